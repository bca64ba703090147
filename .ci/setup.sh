#!/bin/sh
# `make setup`: system packages as far as this user may install them, then .venv with codegen in it.
#   YES=1     with sudo: do not ask
#   PYTHON=x  this interpreter (3.11 or newer)
#   VENV=dir  the virtual environment (default .venv)
set -eu
cd "$(dirname "$0")/.."
VENV=${VENV:-.venv}
PACKAGES="gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user cmake ninja-build make gcc g++
libc6-dev python3-venv pkg-config binutils openssh-server"

say() { echo "setup: $*"; }
die() { echo "setup: $*" >&2; exit 1; }

find_python() {
    for p in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
        "$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$p"; return; }
    done
    return 1
}

# The cycle model was checked with LLVM 19; Debian 12 and newer have it, others get their default.
with_llvm() {
    if apt-cache show llvm-19 >/dev/null 2>&1; then echo "$PACKAGES llvm-19"; else echo "$PACKAGES llvm"; fi
}

missing_packages() {
    for p in $(with_llvm); do
        dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'install ok installed' || echo "$p"
    done
}

# apt PREFIX...: install what is missing, as root or with sudo in front.
apt() {
    missing=$(missing_packages)
    # shellcheck disable=SC2086
    "$@" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y --no-install-recommends $missing
}

install() {
    apt-cache show gcc-aarch64-linux-gnu >/dev/null 2>&1 || "$@" apt-get update || return 1
    apt "$@" && return
    # Lists that are there but old name files that are gone.
    "$@" apt-get update && apt "$@"
}

agreed() {
    [ "${YES:-}" = 1 ] && return 0
    [ -t 0 ] || { say "no terminal to ask on; YES=1 agrees beforehand"; return 1; }
    printf 'setup: install them with sudo? [y/N] '
    read -r answer || return 1
    case $answer in y | Y | yes) return 0 ;; *) return 1 ;; esac
}

# 0 where the system packages are there at the end.
system_packages() {
    command -v apt-get >/dev/null 2>&1 || { say "no apt-get here"; return 1; }
    missing=$(missing_packages | tr '\n' ' ')
    [ "$missing" ] || { say "system packages: all there"; return 0; }
    if [ "$(id -u)" = 0 ]; then
        say "root: installing $missing"
        install
    elif command -v sudo >/dev/null 2>&1; then
        say "these system packages are missing: $missing"
        agreed && install sudo
    else
        say "neither root nor sudo"
        return 1
    fi
}

have_cross() {
    { command -v aarch64-linux-gnu-gcc && command -v qemu-aarch64; } >/dev/null 2>&1
}

make_venv() {
    [ -x "$VENV/bin/pip" ] && return
    fresh=yes
    [ -e "$VENV" ] && fresh=
    "$python" -m venv "$VENV" && return
    [ "$fresh" ] && rm -rf "$VENV"
    die "'$python -m venv' failed; install it (Debian: apt-get install python3-venv)," \
        "then run make setup again"
}

zig=
if ! system_packages; then
    # shellcheck disable=SC2086
    say "going on without; whoever may install them: apt-get install" $PACKAGES llvm
    have_cross || zig=ziglang
fi
python=$(find_python) ||
    die "Python 3.11 or newer is needed, ${PYTHON:-python3} is $("${PYTHON:-python3}" --version 2>&1 || true);" \
        "install it, or set PYTHON=/path/to/python3.11"
make_venv
"$VENV/bin/pip" install --quiet --editable '.[test]' $zig
if [ "$zig" ]; then
    say "ziglang is the cross compiler; without qemu-aarch64, programs run on board local only"
fi
say "done: $VENV/bin/codegen doctor tells what works"
