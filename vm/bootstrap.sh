#!/bin/sh
# Prepare this machine: install Debian packages (as root), and make a virtual environment with probekit in it.
#
#     sh vm/bootstrap.sh          installs what `make demo` needs
#     sh vm/bootstrap.sh tests    also installs what the tests and the bench need
#
# For a user other than root it prints the packages to ask an administrator for. Nothing is done twice: when
# everything is there, this takes a few hundredths of a second. PROBEKIT_VENV moves the environment.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
venv=${PROBEKIT_VENV:-$root/.venv}
stamp=$venv/.bootstrapped
log=
ticker=

say() {
    printf 'probekit: %s\n' "$*" >&2
}

stop_ticker() {
    [ -z "$ticker" ] || kill "$ticker" 2>/dev/null || :
    ticker=
}

clean_up() {
    stop_ticker
    [ -z "$log" ] || rm -f "$log"
}
trap clean_up EXIT
trap 'printf "\n" >&2; exit 130' INT
trap 'exit 143' TERM HUP

# step TEXT COMMAND...: run a command, and print a line with a dot every five seconds and the time at its end.
step() {
    text=$1
    shift
    log=${log:-$(mktemp)}
    started=$(date +%s)
    printf 'probekit: %s ' "$text" >&2
    # Only the short sleep can outlive this script, and it keeps no pipe of ours open.
    (while sleep 1 && sleep 2 && sleep 2; do printf . >&3; done) 3>&2 >/dev/null 2>&1 &
    ticker=$!
    status=0
    "$@" >"$log" 2>&1 </dev/null || status=$?
    stop_ticker
    printf ' %s s\n' "$(($(date +%s) - started))" >&2
    if [ "$status" -ne 0 ]; then
        tail -n 20 "$log" >&2
        say "failed (exit status $status): $*"
    fi
    return "$status"
}

have() {
    command -v "$1" >/dev/null 2>&1
}

# Print the first Python that is new enough and can make a virtual environment with pip in it.
find_python() {
    for python in python3 /usr/bin/python3 python3.13 python3.12 python3.11; do
        if "$python" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            echo "$python"
            return
        fi
    done
    return 1
}

venv_is_current() {
    # The path matters too: the programs of an environment contain the path that they were made for.
    [ -x "$venv/bin/python" ] && { echo "$root $venv"; cat "$root/pyproject.toml"; } | cmp -s - "$stamp"
}

# Print Debian's names of the packages that are missing. vm/host.py has those for running guests.
missing_packages() {
    venv_is_current || find_python >/dev/null || echo python3-venv
    have qemu-system-x86_64 || echo qemu-system-x86
    # It must be static, because guests have no libraries. A dynamic program names its loader near its start.
    if ! have busybox || head -c 4096 "$(command -v busybox)" | grep -q ld-linux; then
        echo busybox-static
    fi
    have gcc || echo gcc
    [ -e /usr/lib/x86_64-linux-gnu/libc.a ] || [ -e /usr/lib64/libc.a ] || [ -e /usr/lib/libc.a ] || echo libc6-dev
    if [ "${1:-}" = tests ]; then
        have gdb || echo gdb
        # To build kernel modules: make, and the library that the kernel's own objtool needs.
        have make || echo make
        [ -e /usr/lib/x86_64-linux-gnu/libelf.so.1 ] || [ -e /usr/lib64/libelf.so.1 ] || echo libelf1
    fi
}

have_package_lists() {
    for list in /var/lib/apt/lists/*_Packages*; do
        [ -e "$list" ] && return
    done
    return 1
}

install_packages() {
    export DEBIAN_FRONTEND=noninteractive
    if ! have_package_lists; then
        step "updating Debian's package lists" apt-get -q update
        set -- fresh "$@"
    else
        set -- stale "$@"
    fi
    lists=$1
    shift
    step "installing Debian packages: $*" apt-get -q install -y --no-install-recommends "$@" && return
    [ "$lists" = stale ] || return 1
    # Old lists name files that the mirror no longer has.
    step "updating Debian's package lists" apt-get -q update
    step "installing Debian packages: $*" apt-get -q install -y --no-install-recommends "$@"
}

ensure_packages() {
    # These are words of our own without globs: splitting is intended.
    # shellcheck disable=SC2046
    set -- $(missing_packages "$@")
    [ $# -gt 0 ] || return 0
    if ! have apt-get; then
        say "this machine needs what Debian has in these packages: $*"
        exit 3
    fi
    if [ "$(id -u)" -ne 0 ]; then
        update=
        have_package_lists || update='apt-get update && '
        say "this machine lacks Debian packages. Ask an administrator to run:"
        printf '\n    %sapt-get install -y --no-install-recommends %s\n\n' "$update" "$*" >&2
        exit 3
    fi
    install_packages "$@" || exit 1
}

ensure_venv() {
    venv_is_current && return
    if ! "$venv/bin/python" -c 'import pip' >/dev/null 2>&1; then
        python=$(find_python) || { say "no Python of at least 3.11 with the modules venv and ensurepip"; exit 3; }
        step "making a virtual environment in $venv" "$python" -m venv --clear "$venv" || exit 1
    fi
    step "installing probekit and its Python packages" \
        "$venv/bin/python" -m pip install -q --disable-pip-version-check -e "$root[dev]" || exit 1
    # Compile once, as for any installed package; PYTHONDONTWRITEBYTECODE would have it done at each start.
    "$venv/bin/python" -m compileall -q "$root/probekit" "$root/vm" || exit 1
    { echo "$root $venv"; cat "$root/pyproject.toml"; } >"$stamp"
}

case "${1:-}" in
'' | tests) ;;
*)
    say "usage: sh vm/bootstrap.sh [tests]"
    exit 2
    ;;
esac
ensure_packages "$@"
ensure_venv
