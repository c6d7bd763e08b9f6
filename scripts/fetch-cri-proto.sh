#!/usr/bin/env bash
# fetch-cri-proto.sh OUTDIR: writes OUTDIR/api.proto, the CRI as kubelet speaks it.
#
# The file comes out of the Go module k8s.io/cri-api at the version that e2e/tools/go.mod names, checked
# against e2e/tools/go.sum by the go command. The option `debug_redact` is taken out: protoc learned it in
# 22, Debian 12 has 3.21, and it changes nothing on the wire.
#
# OUTDIR/api.proto is only touched when its content changes, so a rebuild does not follow from a second run.
# Exit status: 0 done, 1 with one line on stderr that says what is missing.
set -euo pipefail

die() {
    echo "fetch-cri-proto: $*" >&2
    exit 1
}

[ $# -eq 1 ] || die "usage: fetch-cri-proto.sh OUTDIR"
out_dir=$1
tools_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/../e2e/tools" && pwd)
module=k8s.io/cri-api
inside=pkg/apis/runtime/v1/api.proto

# A newcomer's shell may have Go installed without it being on PATH.
if ! command -v go >/dev/null && [ -x /usr/local/go/bin/go ]; then
    PATH=$PATH:/usr/local/go/bin
fi
command -v go >/dev/null ||
    die "no 'go' on PATH. moatd is built from the CRI's api.proto, which comes from the Go module $module" \
        "and is not kept in this tree. Install Go, or configure with -DMOAT_CRI=OFF to build all but moatd."

version=$(awk -v m="$module" '$1 == m { print $2 } $1 == "require" && $2 == m { print $3 }' "$tools_dir/go.mod")
[ -n "$version" ] || die "$tools_dir/go.mod does not pin $module"

# -json reports a failure (no network, wrong checksum) in the field Error and by its exit status.
errors=$(mktemp)
trap 'rm -f "$errors"' EXIT
if ! answer=$(cd "$tools_dir" && go mod download -json "$module" 2>"$errors"); then
    reason=$(sed -n 's/^[[:space:]]*"Error": "\(.*\)",\{0,1\}$/\1/p' <<<"$answer")
    die "cannot get Go module $module@$version: ${reason:-$(tail -n 1 "$errors")}"
fi
dir=$(sed -n 's/^[[:space:]]*"Dir": "\(.*\)",\{0,1\}$/\1/p' <<<"$answer")
[ -n "$dir" ] || die "go mod download gave no directory for $module@$version"
source=$dir/$inside
[ -f "$source" ] || die "Go module $module@$version has no $inside"

mkdir -p "$out_dir"
temporary=$(mktemp "$out_dir/api.proto.XXXXXX")
trap 'rm -f "$errors" "$temporary"' EXIT
sed 's/ \[debug_redact = true\]//' "$source" >"$temporary"
if grep -v '^[[:space:]]*//' "$temporary" | grep -n 'debug_redact' >&2; then
    die "$inside of $module@$version writes debug_redact in a form this script does not know (above)"
fi
chmod 644 "$temporary"
if cmp -s "$temporary" "$out_dir/api.proto"; then
    rm -f "$temporary"
else
    mv "$temporary" "$out_dir/api.proto"
fi
