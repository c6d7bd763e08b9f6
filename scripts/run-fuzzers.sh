#!/usr/bin/env bash
# run-fuzzers.sh [RUNS]: builds each fuzzer of unit/fuzz with clang's sanitizers and runs it RUNS times (default
# 200000). Fails on the first crash, leak or input that takes too long; the input is left in build/fuzz/NAME.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
runs=${1:-200000}
out=build/fuzz
flags=(-std=gnu++20 -O1 -g -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined -I. -Wall -Wextra)
streaming=(cri/streaming/{spdy_frame,spdy_connection,channel_connection,stream,negotiate,remote_status}.cc cri/base/base64.cc kernel/base/*.cc)
libraries=(-lspdlog -lfmt -lcrypto -lz -pthread)
mkdir -p "$out"
clang=$(command -v ccache || true)
objects=()
for source in "${streaming[@]}"; do
    object=$out/$(tr / - <<<"${source%.cc}").o
    $clang clang++-14 "${flags[@]/fuzzer,/fuzzer-no-link,}" -DSPDLOG_COMPILED_LIB -DSPDLOG_FMT_EXTERNAL -c "$source" -o "$object"
    objects+=("$object")
done
for source in unit/fuzz/*_fuzz.cc; do
    name=$(basename "$source" _fuzz.cc)
    mkdir -p "$out/$name/corpus"
    clang++-14 "${flags[@]}" "$source" "${objects[@]}" "${libraries[@]}" -o "$out/$name/fuzz"
    # Seeded, so that a failure can be had again. What was interesting is kept for the next run.
    "$out/$name/fuzz" -runs="$runs" -seed=1 -max_len=8192 -timeout=10 -rss_limit_mb=1024 -verbosity=0 -print_final_stats=1 \
        -artifact_prefix="$out/$name/" "$out/$name/corpus" 2>"$out/$name/log" || {
        tail -n 40 "$out/$name/log" >&2
        echo "fuzz: $name failed; its input is in $out/$name" >&2
        exit 1
    }
    echo "fuzz: $name: $(sed -n 's/^stat::number_of_executed_units: *//p' "$out/$name/log") inputs, no finding"
done
