#!/usr/bin/env bash
# What the tests need from the system besides Python, on a bare Debian 12 (needs root once).
set -euo pipefail

packages=(git make python3-venv squashfs-tools squashfuse fuse-overlayfs fuse2fs uidmap patchelf
    mmdebstrap chromium chromium-driver slurm-wlm munge docker-registry)

missing=()
for package in "${packages[@]}"; do
    dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed ||
        missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
    echo "system: installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    # Another apt-get, as machines run one after they start, is waited for.
    patient=(-o Acquire::Retries=5 -o DPkg::Lock::Timeout=300)
    apt-get -qq "${patient[@]}" update
    apt-get -qq "${patient[@]}" install -y --no-install-recommends "${missing[@]}" >/dev/null
fi
