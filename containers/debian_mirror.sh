#!/usr/bin/env bash
# Print the mirror of Debian's packages that apt on this machine is configured with; nothing without one.
command -v apt-get >/dev/null || exit 0
apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(REPO_URI)' 'Created-By: Packages' |
    sed -n 's/^Debian|Debian|//p' | head -n 1
