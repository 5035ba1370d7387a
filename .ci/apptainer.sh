#!/usr/bin/env bash
# Install Apptainer on a bare Debian 12 machine (needs root), where the distribution has no package of it.
#
# The package of Debian unstable wants a newer libc than Debian 12 has. Its libraries are therefore
# kept in a folder of their own and the two programs are pointed at that folder; nothing of the
# system is replaced. Does nothing where apptainer or singularity is already on the PATH.
set -euo pipefail

prefix=/opt/apptainer
triplet=x86_64-linux-gnu
libexec=/usr/lib/$triplet/apptainer

if command -v apptainer >/dev/null || command -v singularity >/dev/null; then
    echo "apptainer: already installed"
    exit 0
fi

# The mirror the machine itself is configured with.
mirror=$(bash "$(dirname "$0")/../containers/debian_mirror.sh")
[ -n "$mirror" ] || { echo "apptainer: apt is configured with no Debian mirror" >&2; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
mkdir -p "$work"/{lists/partial,cache/archives/partial,debs,root}
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror sid main" >"$work/sources.list"
private=(-o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=/dev/null
    -o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work/cache" -o APT::Sandbox::User=root
    -o Acquire::Languages=none -o Acquire::Retries=5)
apt-get -qq "${private[@]}" update
(cd "$work/debs" && apt-get -qq "${private[@]}" download \
    apptainer/sid libc6/sid libseccomp2/sid libsqlite3-0/sid)
for package in "$work"/debs/*.deb; do
    dpkg -x "$package" "$work/root"
done

mkdir -p "$prefix/lib" "$(dirname "$libexec")" /var/lib/apptainer/mnt/session
find "$work/root" -path "*/$triplet/*.so*" -not -path "*/gconv/*" -not -path "*/apptainer/*" \
    -exec cp -a -t "$prefix/lib" {} +
loader=$(find "$work/root" -name ld-linux-x86-64.so.2 \( -type f -o -type l \) -print -quit)
cp -L --remove-destination "$loader" "$prefix/lib/ld-linux-x86-64.so.2"
cp -aT "$work/root/etc/apptainer" /etc/apptainer
cp -aT "$work/root/usr/lib/$triplet/apptainer" "$libexec"
install -m 755 "$work/root/usr/bin/apptainer" "$prefix/apptainer"

# A plain runpath is not enough: the libraries' own dependencies would resolve to the system's.
for program in "$prefix/apptainer" "$libexec/bin/starter"; do
    patchelf --set-interpreter "$prefix/lib/ld-linux-x86-64.so.2" \
        --force-rpath --set-rpath "$prefix/lib" "$program"
done

# A root without CAP_SYS_RESOURCE (a root inside most virtual machines and containers) cannot pass
# on all capabilities, which is Apptainer's default for root.
sed -i 's/^root default capabilities = .*/root default capabilities = no/' /etc/apptainer/apptainer.conf

"$prefix/apptainer" --version
install -m 755 "$prefix/apptainer" /usr/bin/apptainer
