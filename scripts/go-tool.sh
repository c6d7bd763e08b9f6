#!/usr/bin/env bash
# go-tool.sh NAME: builds a Go program that the tests or the bench need and prints its path.
#   crictl, critest   the CRI's own client and conformance tests (e2e/tools)
#                     (critest wants the digest of a test image in CRITEST_DIGEST: see e2e/critest)
#   runc              the newest one, for what Debian's is too old for (e2e/tools/runc; needs cgo and libseccomp)
#   containerd        and containerd-shim-runc-v2: what moatd is measured against (e2e/tools/containerd)
#   kubelet           and kube-apiserver, kube-controller-manager, kube-scheduler, kube-proxy, kubectl (e2e/tools/kubernetes)
#   coredns           with a cluster's plugins only (e2e/tools/coredns)
#   grpc-health       Kubernetes' own server for kubelet's gRPC probes, alone
#   runsc             gVisor's runtime, the bench's peer (e2e/tools/peers)
# Versions are those of the go.mod, checksums those of its go.sum. Built once into build/tools/; built
# again when the go.mod, the go.sum, a program beside them or the Go version has changed.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
out=${MOAT_BUILD_ROOT:-$root/build}/tools

if ! command -v go >/dev/null && [ -x /usr/local/go/bin/go ]; then
    PATH=$PATH:/usr/local/go/bin
fi
command -v go >/dev/null || { echo "go-tool: no 'go' on PATH, needed for $1" >&2; exit 1; }

name=${1:?usage: go-tool.sh crictl|critest|runc|kubelet|...|runsc}
case $name in
    crictl | critest) module_dir=$root/e2e/tools ;;
    runc) module_dir=$root/e2e/tools/runc ;;
    containerd | containerd-shim-runc-v2) module_dir=$root/e2e/tools/containerd ;;
    kubelet | kube-apiserver | kube-controller-manager | kube-scheduler | kube-proxy | kubectl | grpc-health) module_dir=$root/e2e/tools/kubernetes ;;
    coredns) module_dir=$root/e2e/tools/coredns ;;
    runsc) module_dir=$root/e2e/tools/peers ;;
    *) echo "go-tool: no tool '$name'" >&2; exit 2 ;;
esac

mkdir -p "$out"
exec 9>"$out/.$name.lock"
flock 9
shopt -s nullglob
stamp=$(cat "$module_dir/go.mod" "$module_dir/go.sum" "$module_dir"/*.go <(go version) "${BASH_SOURCE[0]}" <(echo "${CRITEST_DIGEST:-}") | sha256sum)
if [ -x "$out/$name" ] && [ "$(cat "$out/.$name.stamp" 2>/dev/null)" = "$stamp" ]; then
    echo "$out/$name"
    exit 0
fi

echo "building $name (once)" >&2
cd "$module_dir"
export CGO_ENABLED=0 GOFLAGS=-buildvcs=false
version_of() { go list -m -f '{{.Version}}' "$1"; }
case $name in
    crictl)
        version=$(version_of sigs.k8s.io/cri-tools)
        go build -trimpath -ldflags "-s -w -X sigs.k8s.io/cri-tools/pkg/version.Version=$version" \
            -o "$out/$name.new" sigs.k8s.io/cri-tools/cmd/crictl
        ;;
    critest)
        # cmd/critest has test files only: it can be compiled, not named by a tool directive. One spec pulls
        # by a digest that no image of ours can have: it is built from a copy with that constant replaced.
        work=$(mktemp -d)
        trap 'rm -rf "$work"' EXIT
        cp -r "$(go list -m -f '{{.Dir}}' sigs.k8s.io/cri-tools)" "$work/cri-tools"
        chmod -R u+w "$work/cri-tools"
        sed -i "s/\(test-image-digest@\)sha256:[0-9a-f]*/\1${CRITEST_DIGEST:?critest needs it}/" "$work/cri-tools/pkg/validate/consts.go"
        grep -q "$CRITEST_DIGEST" "$work/cri-tools/pkg/validate/consts.go" ||
            { echo "go-tool: critest's digest is not where it was" >&2; exit 1; }
        cp go.mod "$work/tools.mod"
        cp go.sum "$work/tools.sum"
        go mod edit -replace "sigs.k8s.io/cri-tools=$work/cri-tools" "$work/tools.mod"
        go test -c -modfile "$work/tools.mod" -trimpath -ldflags "-s -w" -o "$out/$name.new" sigs.k8s.io/cri-tools/cmd/critest
        ;;
    runc)
        CGO_ENABLED=1 go build -trimpath -tags seccomp \
            -ldflags "-s -w -X main.version=$(version_of github.com/opencontainers/runc | tr -d v)" \
            -o "$out/$name.new" github.com/opencontainers/runc
        ;;
    containerd*)
        module=github.com/containerd/containerd/v2
        go build -trimpath -tags no_btrfs,no_devmapper,no_zfs -ldflags "-s -w -X $module/version.Version=$(version_of $module)" \
            -o "$out/$name.new" "$module/cmd/$name"
        ;;
    kube*)
        version=$(version_of k8s.io/kubernetes)
        minor=${version#v1.}
        go build -trimpath -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=$version \
            -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=${minor%%.*}" \
            -o "$out/$name.new" "k8s.io/kubernetes/cmd/$name"
        ;;
    coredns) go build -trimpath -ldflags "-s -w" -o "$out/$name.new" . ;;
    grpc-health) go build -trimpath -ldflags "-s -w" -o "$out/$name.new" ./grpc-health ;;
    runsc)
        go build -trimpath -ldflags "-s -w -X gvisor.dev/gvisor/runsc/version.version=$(version_of gvisor.dev/gvisor)" \
            -o "$out/$name.new" gvisor.dev/gvisor/runsc
        ;;
esac
mv "$out/$name.new" "$out/$name"
printf '%s\n' "$stamp" >"$out/.$name.stamp"
echo "$out/$name"
