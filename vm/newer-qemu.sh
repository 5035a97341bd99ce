#!/bin/sh
# Put a QEMU newer than Debian 12's into a directory, and print its program. Nothing is installed; no root needed.
#
#     PROBEKIT_QEMU=$(sh vm/newer-qemu.sh ~/.cache/probekit/qemu) python -m vm start
#
# It comes from bookworm-backports, on the mirror of the machine's own package sources, and runs with the machine's
# own libraries. Nothing is done twice. Exit status 3: it could not be had.
set -eu

[ $# -eq 1 ] || { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
mkdir -p "$1"
dir=$(cd "$1" && pwd)
program=$dir/qemu-system-x86_64
suite=bookworm-backports

fail() {
    printf 'probekit: %s\n' "$*" >&2
    exit 3
}

if [ ! -x "$program" ]; then
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Identifier: Packages' 'Codename: bookworm' 'Origin: Debian' | head -n 1)
    [ -n "$mirror" ] || fail "this machine has no package sources of Debian 12"
    mkdir -p "$dir/apt/lists/partial" "$dir/apt/archives/partial" "$dir/root"
    for name in bookworm $suite; do
        echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $name main"
    done >"$dir/apt/sources.list"
    # Package lists, state and downloads of our own: the machine's apt stays as it is.
    cat >"$dir/apt/apt.conf" <<CONF
Dir::State::lists "$dir/apt/lists";
Dir::Cache "$dir/apt";
Dir::Etc::SourceList "$dir/apt/sources.list";
Dir::Etc::SourceParts "/dev/null";
APT::Sandbox::User "";
Debug::NoLocking "1";
CONF
    export APT_CONFIG="$dir/apt/apt.conf"
    apt-get -qq update >&2 || fail "no package lists from $mirror"
    apt-get -qq -y -t $suite --no-install-recommends --download-only --reinstall install \
        qemu-system-x86 qemu-system-common qemu-system-data seabios >&2 || fail "could not download $suite's QEMU"
    for package in "$dir"/apt/archives/*.deb; do
        dpkg-deb -x "$package" "$dir/root"
    done
    rm -rf "$dir/apt"
    cat >"$dir/wrapper" <<WRAPPER
#!/bin/sh
root='$dir/root'
export LD_LIBRARY_PATH="\$root/usr/lib/x86_64-linux-gnu:\$root/lib/x86_64-linux-gnu"
export QEMU_MODULE_DIR="\$root/usr/lib/x86_64-linux-gnu/qemu"
exec "\$root/usr/bin/qemu-system-x86_64" -L "\$root/usr/share/qemu" -L "\$root/usr/share/seabios" "\$@"
WRAPPER
    chmod +x "$dir/wrapper"
    "$dir/wrapper" --version >/dev/null || fail "it does not run here"
    mv "$dir/wrapper" "$program"
fi
echo "$program"
