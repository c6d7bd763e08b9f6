#!/usr/bin/env bash
# debian-root.sh [programs]: makes a Debian minbase root with bash, tar, findutils, gcc and python3 out of Debian's
# packages, once, and prints its path (build/cache/debian-root); with "programs" one of servers and what drives them
# (build/cache/programs-root). The packages come from the mirrors that this machine's apt uses.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cache=${MOAT_BUILD_ROOT:-$root/build}/cache
case ${1:-debian} in
    debian) include=gcc,libc6-dev,python3-minimal,python3,procps,xz-utils,bzip2 ;;
    programs) include=postgresql,postgresql-contrib,redis-server,redis-tools,nginx-light,sqlite3,python3,nodejs,curl,procps,util-linux ;;
    *) echo "debian-root: no root '$1' (programs)" >&2; exit 2 ;;
esac
name=${1:-debian}-root
target=$cache/$name
stamp="1 $include"

mkdir -p "$cache"
exec 9>"$cache/.$name.lock"
flock 9
if [ "$(cat "$target.stamp" 2>/dev/null)" = "$stamp" ]; then
    echo "$target"
    exit 0
fi
command -v mmdebstrap >/dev/null || {
    echo "debian-root: no mmdebstrap (Debian package mmdebstrap)" >&2
    exit 1
}
# shellcheck source=/dev/null
codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
[ -n "$codename" ] || { echo "debian-root: /etc/os-release names no VERSION_CODENAME" >&2; exit 1; }
sources=()
for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
    # Only Debian's own archives: a third party's may want keys that mmdebstrap does not have.
    if [ -f "$file" ] && grep -qE 'debian' "$file"; then sources+=("$file"); fi
done
[ ${#sources[@]} -gt 0 ] || { echo "debian-root: apt on this machine has no Debian sources" >&2; exit 1; }

echo "making the Debian root $name (once)" >&2
work=$(mktemp -d "$cache/$name.XXXXXX")
trap 'rm -rf "$work"' EXIT
log=$cache/$name.log
# Mounts nothing: --mode=chrootless would not run maintainer scripts, root mode unshares a mount namespace of its own.
if ! mmdebstrap --quiet --variant=minbase --mode=root --include="$include" \
    --aptopt='Acquire::Languages "none"' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
    --customize-hook='rm -rf "$1"/var/cache/apt/archives/*.deb "$1"/var/lib/apt/lists/*' \
    "$codename" "$work/root" "${sources[@]}" >"$log" 2>&1; then
    tail -n 30 "$log" >&2
    echo "debian-root: mmdebstrap failed" >&2
    exit 1
fi
rm -rf "$target"
mv "$work/root" "$target"
echo "$stamp" >"$target.stamp"
echo "$target"
