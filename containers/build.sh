#!/usr/bin/env bash
# Pull or build a container image:   containers/build.sh NAME OUT.sif
#
#   NAME   a recipe of this folder without its ending (legacy, modern, standin)
#   OUT    the image file to write; it appears only when it is complete
#
# Settings, all optional, from the environment:
#   RETRACE_IMAGE_REGISTRY  where built images are kept, e.g. oras://registry.example.org/group: the
#                           image retrace-NAME:DIGEST is pulled from there, and built if that fails. Its
#                           sha256 must be the one in containers/pushed.sha256, if that has a line for it
#   RETRACE_IMAGE_BASE      what to build on: `docker` (the recipe's FROM, from a container registry),
#                           for debian:bookworm-slim also `mmdebstrap` (the same system straight from Debian's packages, for machines
#                           that reach no container registry), or a .sif file or folder. Unset: docker,
#                           and mmdebstrap where the registry does not answer
#   RETRACE_TORCH           what pip installs for torch, e.g. a CPU build; unset: envs/torch.txt
#
# No privileges are needed: Apptainer builds in a user namespace.
set -euo pipefail

die() { echo "error: $*" >&2; exit 1; }
step() { echo "== $* ($((SECONDS / 60)) min $((SECONDS % 60)) s)"; }

[ "$(uname -s)" = Linux ] || die "Apptainer runs on Linux only; run without --use-singularity, or in a virtual machine"
[ $# = 2 ] || die "usage: containers/build.sh NAME OUT.sif"
name=$1
root=$(cd "$(dirname "$0")/.." && pwd)
recipe=$root/containers/$name.def
[ -f "$recipe" ] || die "no recipe containers/$name.def; known: $(cd "$root/containers" && echo *.def)"
mkdir -p "$(dirname "$2")"
out=$(cd "$(dirname "$2")" && pwd)/$(basename "$2")

apptainer=$(command -v apptainer || command -v singularity) ||
    die "neither apptainer nor singularity is on the PATH; install one, or run without --use-singularity"

# Clones may share the folder of images: one run at a time makes an image. The lock ends with its holder.
lock=$(dirname "$out")/.$(basename "$out").lock
exec 9>>"$lock"
status=0
flock --nonblock --conflict-exit-code 75 9 || status=$?
if [ $status = 75 ]; then
    echo "waits for another run that makes $out (lock file $lock)"
    flock 9
    if [ -e "$out" ]; then
        echo "another run has made $out"
        exit 0
    fi
elif [ $status != 0 ]; then
    echo "no lock on $lock: let only one run at a time make $out"
fi

work=$out.build
rm -rf "$work"
mkdir -p "$work/tmp"
trap 'rm -rf "$work" 2>/dev/null || unshare -Ur rm -rf "$work"' EXIT
trap 'exit 143' TERM INT
export APPTAINER_TMPDIR=$work/tmp SINGULARITY_TMPDIR=$work/tmp

# --- pull ------------------------------------------------------------------------------------
# A registry may give another file under the same tag. The sha256 of the image is that of its one layer there.
check_pulled() {
    local sum recorded
    sum=$(sha256sum "$work/image.sif" | cut -d ' ' -f 1)
    recorded=$(sed -n "s/  $(basename "$out")\$//p" "$root/containers/pushed.sha256" 2>/dev/null || true)
    if [ -z "$recorded" ]; then
        echo "pulled, sha256 $sum: containers/pushed.sha256 has no line for it to compare with"
    elif [ "$recorded" = "$sum" ]; then
        echo "pulled, sha256 $sum, as in containers/pushed.sha256"
    else
        die "$address has sha256 $sum, but containers/pushed.sha256 says $recorded: it is another image." \
            "Ask whoever pushed it, or unset RETRACE_IMAGE_REGISTRY to build your own"
    fi
}

if [ -n "${RETRACE_IMAGE_REGISTRY:-}" ]; then
    digest=$(basename "$out" .sif)
    address=${RETRACE_IMAGE_REGISTRY%/}/retrace-$name:${digest##*-}
    step "pulling $address"
    if "$apptainer" pull "$work/image.sif" "$address"; then
        check_pulled
        mv "$work/image.sif" "$out"
        exit 0
    fi
    echo "could not pull $address: building the image instead"
fi

from=$(sed -n 's/^    FROM=//p' "$recipe")
echo "$out is built once: in about 2 minutes if a mirror of the packages is near, else as long as the downloads take."
case $name in
modern) echo "It takes 0.8 GB with a build of torch for CPUs, 3.3 GB with one for CUDA; as much is downloaded." ;;
standin) echo "It takes 0.5 GB; as much is downloaded." ;;
esac
step "base system: $from"

# --- the base system, as a folder, so that the folders bound below can be made in it ----------
make_from_docker() {
    "$apptainer" build --sandbox "$work/base" "docker://$from"
}

make_from_packages() {
    if [ "$from" != debian:bookworm-slim ]; then
        echo "the $name image is built on $from, which only a container registry has" >&2
        return 1
    fi
    command -v mmdebstrap >/dev/null || return 1
    local mirror
    mirror=$(bash "$root/containers/debian_mirror.sh")
    mmdebstrap --quiet --variant=minbase --include=python3,python3-venv,ca-certificates \
        bookworm "$work/base" ${mirror:+"$mirror"} || return 1
    # Extracting without privileges can create neither device nodes nor files of other owners.
    rm -rf "$work"/base/dev/*
    chown -R "$(id -u):$(id -g)" "$work/base"
}

base=${RETRACE_IMAGE_BASE:-auto}
case $base in
docker) make_from_docker || die "cannot fetch $from; another base: RETRACE_IMAGE_BASE (see $0)" ;;
mmdebstrap) make_from_packages || die "mmdebstrap failed or is not installed (apt-get install mmdebstrap)" ;;
auto) make_from_docker || make_from_packages ||
    die "no base system: the container registry does not answer and mmdebstrap cannot replace it" ;;
*)
    [ -e "$base" ] || die "RETRACE_IMAGE_BASE=$base is neither docker, mmdebstrap nor an existing file"
    "$apptainer" build --sandbox "$work/base" "$base"
    ;;
esac

# --- the image -------------------------------------------------------------------------------
# pip inside the image is to find packages and certificates as pip on this machine does.
binds=()
while read -r kind value; do
    case $kind in
    env) export "APPTAINERENV_${value?}" "SINGULARITYENV_${value?}" ;;
    bind)
        binds+=(-B "$value")
        if [ -d "$value" ]; then
            mkdir -p "$work/base$value"
        else
            mkdir -p "$work/base$(dirname "$value")"
            touch "$work/base$value"
        fi
        ;;
    esac
done < <(python3 "$root/containers/host_pip.py")

# A root that lacks capabilities (bit 24, CAP_SYS_RESOURCE: a root inside a virtual machine or a
# container) is refused by Apptainer; inside a user namespace of its own it builds like anyone else.
namespace=()
if [ "$(id -u)" = 0 ] && ! (( 0x$(sed -n 's/^CapEff:\s*//p' /proc/self/status) >> 24 & 1 )); then
    namespace=(unshare -Ur)
fi

arguments=(--build-arg BOOTSTRAP=localimage --build-arg "FROM=$work/base")
if [ -n "${RETRACE_TORCH:-}" ] && grep -q "{{ TORCH }}" "$recipe"; then
    arguments+=(--build-arg "TORCH=$RETRACE_TORCH")
fi
cd "$root"
step "packages, then the image file"
"${namespace[@]}" "$apptainer" build --force --mksquashfs-args="-comp zstd -Xcompression-level 1" \
    "${binds[@]}" "${arguments[@]}" "$work/image.sif" "$recipe"
mv "$work/image.sif" "$out"
step "built $out, $(($(stat --format %s "$out") / 1000000)) MB"
