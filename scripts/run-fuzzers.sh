#!/usr/bin/env bash
# run-fuzzers.sh [RUNS [NAME...]]: builds each fuzzer of unit/fuzz (or those named) with clang's sanitizers and runs it
# RUNS times (default 200000; a tenth of that for `requests`, behind which a whole moatd works). Fails on the first
# crash, leak or input that takes too long; the input is left in build/fuzz/NAME.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
runs=${1:-200000}
shift || true
out=build/fuzz
proto=$out/proto
clang=$(command -v ccache || true)
flags=(-std=gnu++20 -O1 -gline-tables-only -fsanitize=address,undefined -fno-sanitize-recover=undefined -I. -Wall -Wextra
    -DSPDLOG_COMPILED_LIB -DSPDLOG_FMT_EXTERNAL -Ulinux -Wno-deprecated-declarations)
streaming=(cri/streaming/{spdy_frame,spdy_connection,channel_connection,stream,negotiate,remote_status}.cc cri/base/base64.cc kernel/base/*.cc)
# What answers requests; of moatd that is all but its start and its real runtimes.
mapfile -t moatd < <(find cri cgroups kernel/control runtime/spec/capabilities.cc runtime/util/{remove_tree,tree_usage}.cc -name '*.cc' | grep -Ev '^cri/(main|image_commands|handlers/make_handlers|server/(server|methods|metrics_server|rpc_observer|rpc_server|service_manager))\.cc$' | sort)
mkdir -p "$out" "$proto"

# compile SOURCE: prints the object's name.
compile() {
    local object=$out/objects/${1//\//-}
    object=${object%.*}.o
    $clang clang++-14 "${flags[@]}" -fsanitize=fuzzer-no-link -isystem "$proto" -c "$1" -o "$object"
    echo "$object"
}
mkdir -p "$out/objects"

# run NAME RUNS COMMAND...: one fuzzer. Seeded, so that a failure can be had again; what was interesting is kept.
run() {
    local name=$1 count=$2
    shift 2
    "$@" -runs="$count" -seed=1 -max_len=8192 -timeout=20 -rss_limit_mb=2048 -verbosity=0 -print_final_stats=1 \
        -artifact_prefix="$out/$name/" "$out/$name/corpus" 2>"$out/$name/log" || {
        tail -n 40 "$out/$name/log" >&2
        echo "fuzz: $name failed; its input is in $out/$name" >&2
        exit 1
    }
    echo "fuzz: $name: $(sed -n 's/^stat::number_of_executed_units: *//p' "$out/$name/log") inputs, no finding"
}

wanted=("$@")
[ ${#wanted[@]} -gt 0 ] || for source in unit/fuzz/*_fuzz.cc; do wanted+=("$(basename "$source" _fuzz.cc)"); done
for name in "${wanted[@]}"; do
    mkdir -p "$out/$name/corpus"
    if [ "$name" != requests ]; then
        objects=()
        for source in "${streaming[@]}"; do objects+=("$(compile "$source")"); done
        clang++-14 "${flags[@]}" -fsanitize=fuzzer "unit/fuzz/${name}_fuzz.cc" "${objects[@]}" -lspdlog -lfmt -lcrypto -lz -pthread -o "$out/$name/fuzz"
        run "$name" "$runs" "$out/$name/fuzz"
        continue
    fi
    scripts/fetch-cri-proto.sh "$proto"
    protoc -I"$proto" --cpp_out="$proto" --grpc_out="$proto" --plugin=protoc-gen-grpc="$(command -v grpc_cpp_plugin)" "$proto/api.proto"
    export -f compile
    export out proto clang
    declare -p flags >"$out/flags"
    mapfile -t objects < <(printf '%s\n' "${moatd[@]}" kernel/base/*.cc unit/cri/fake_runtime.cc unit/fuzz/requests_fuzz.cc "$proto"/*.cc |
        xargs -P "$(nproc)" -I{} bash -c 'source "$out/flags"; compile {}')
    mapfile -t libraries < <(pkg-config --libs grpc++_unsecure sqlite3 libarchive libisal libzstd zlib openssl libcurl spdlog tomlplusplus cpp-httplib \
        prometheus-cpp-core yaml-cpp protobuf | tr ' ' '\n' | grep .)
    clang++-14 "${flags[@]}" -fsanitize=fuzzer "${objects[@]}" "${libraries[@]}" -lseccomp -lcap -latomic -pthread -o "$out/$name/fuzz"
    # It makes files where requests say: as nobody, who is root of a user namespace, on file systems of its own (ours
    # stays in reach as the working directory), without a network.
    chown -R nobody "$out/$name"
    run "$name" "$((runs / 10))" setpriv --reuid=nobody --regid=nogroup --clear-groups unshare --user --map-root-user --mount --net bash -c '
        for at in /tmp /var/tmp /dev/shm /run; do mount -t tmpfs -o mode=1777 tmpfs "$at"; done
        exec env "$@"' fuzz "./$out/$name/fuzz"
done
