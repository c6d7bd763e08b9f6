#!/usr/bin/env bash
# install-packages.sh [build|test|fuzz|bench]...: installs the Debian packages that are missing for the named
# sets (default: build). `test` and `bench` include `build`. Does nothing, in milliseconds, when all are there.
# Needs root only when something is missing.
set -euo pipefail

build_packages=(
    ccache cmake g++ make ninja-build pkg-config python3
    libgrpc++-dev libprotobuf-dev protobuf-compiler protobuf-compiler-grpc  # cri/: the CRI itself
    libboost-dev libcurl4-openssl-dev libsqlite3-dev libarchive-dev libssl-dev libzstd-dev libisal-dev zlib1g-dev  # cri/
    libcli11-dev nlohmann-json3-dev libspdlog-dev libtomlplusplus-dev libcpp-httplib-dev prometheus-cpp-dev libyaml-cpp-dev  # command line, config.json, log, moatd.toml, CDI
    libseccomp-dev libcap-dev libzydis-dev         # confinement; instruction lengths
    doctest-dev                                    # unit/
    busybox-static                                 # `make run` makes its image of it
    iproute2 procps
)
test_packages=(
    clang-format-14
    mmdebstrap xz-utils            # the Debian root that e2e/oci runs
    containernetworking-plugins iptables  # the CNI plugins' own binaries, and what portmap calls
    faketime                       # sets moatd's clock, and no other
    nftables                       # host ports of the built-in network, kube-proxy
    openssl wget                   # e2e/cluster's keys; its client on the node
    dbus-daemon python3-jeepney    # a stand-in for logind: kubelet's graceful node shutdown
    runc                           # the reference: a test that runc fails is wrong
)
bench_packages=(runc)
fuzz_packages=(clang-14 libclang-rt-14-dev)  # libFuzzer and the sanitizers

wanted=("${build_packages[@]}")
for set_name in "$@"; do
    case $set_name in
        build) ;;
        test) wanted+=("${test_packages[@]}") ;;
        fuzz) wanted+=("${fuzz_packages[@]}") ;;
        bench) wanted+=("${bench_packages[@]}") ;;
        *)
            echo "install-packages: no set '$set_name' (build, test, fuzz, bench)" >&2
            exit 2
            ;;
    esac
done

installed() {
    # dpkg-query complains on stderr, and by its exit status, about names that dpkg has never heard of.
    dpkg-query -W -f '${db:Status-Status} ${Package}\n' "$@" 2>/dev/null | sed -n 's/^installed //p' || true
}

if ! command -v dpkg-query >/dev/null; then
    echo "install-packages: no dpkg here: moat is built on Debian 12; install the equivalents of: ${wanted[*]}" >&2
    exit 1
fi
mapfile -t missing < <(comm -23 <(printf '%s\n' "${wanted[@]}" | sort -u) <(installed "${wanted[@]}" | sort -u))
[ ${#missing[@]} -gt 0 ] || exit 0

echo "installing Debian packages: ${missing[*]}"
if [ "$(id -u)" -ne 0 ]; then
    echo "install-packages: not root; run: apt-get install --no-install-recommends ${missing[*]}" >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt() { apt-get -qq -y -o DPkg::Lock::Timeout=600 -o Dpkg::Use-Pty=0 "$@" >>"$log" 2>&1; }

# Known and downloadable with the lists at hand? Else fetch the lists, once.
if ! apt install --no-install-recommends --no-remove "${missing[@]}"; then
    if ! apt update || ! apt install --no-install-recommends --no-remove "${missing[@]}"; then
        cat "$log" >&2
        echo "install-packages: apt-get could not install: ${missing[*]}" >&2
        exit 1
    fi
fi
