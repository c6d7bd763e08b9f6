#!/usr/bin/env bash
# debian-tool.sh docker-registry|etcd-server|nginx: prints the path of a program of a Debian package that would start a
# service if it were installed. Already on the machine: that one. Else the package is downloaded by apt and
# unpacked under build/tools/, so that nothing runs on the machine afterwards that did not run before.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
out=${MOAT_BUILD_ROOT:-$root/build}/tools
package=${1:?usage: debian-tool.sh PACKAGE}
case $package in
    docker-registry) program=usr/bin/docker-registry ;;
    etcd-server) program=usr/bin/etcd ;;
    nginx) program=usr/sbin/nginx ;;
    *) echo "debian-tool: no package '$package'" >&2; exit 2 ;;
esac

if [ -x "/$program" ]; then
    echo "/$program"
    exit 0
fi
unpacked=$out/$package
if [ ! -x "$unpacked/$program" ]; then
    mkdir -p "$out"
    work=$(mktemp -d "$out/$package.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    chmod 755 "$work"
    cd "$work"
    if ! apt-get -qq download "$package" >&2; then
        apt-get -qq update >&2
        apt-get -qq download "$package" >&2
    fi
    dpkg-deb -x "$package"_*.deb "$work/root"
    rm -rf "$unpacked"
    mv "$work/root" "$unpacked"
fi
echo "$unpacked/$program"
