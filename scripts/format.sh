#!/usr/bin/env bash
# format.sh [--check|--report] [FILE...]: clang-format over the tree's C and C++ files (or the files named).
# --check changes nothing, lists the files that differ, and fails if there are any; --report does not fail.
# Version 14 only: other versions format the same source differently.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

mode=-i
if [ "${1:-}" = --check ] || [ "${1:-}" = --report ]; then
    mode=$1
    shift
fi
clang_format=$(command -v clang-format-14) || {
    echo "format: no clang-format-14 (Debian package clang-format-14)" >&2
    exit 1
}
if [ $# -gt 0 ]; then
    files=("$@")
else
    mapfile -t files < <(git ls-files -co --exclude-standard -- '*.h' '*.cc' '*.c' | sort -u)
fi
existing=()
for file in "${files[@]}"; do
    if [ -f "$file" ]; then existing+=("$file"); fi
done
[ ${#existing[@]} -gt 0 ] || { echo "format: no files" >&2; exit 1; }

if [ "$mode" = -i ]; then
    "$clang_format" -i --style=file "${existing[@]}"
    exit 0
fi
differing=0
for file in "${existing[@]}"; do
    if ! "$clang_format" --style=file --dry-run -Werror "$file" 2>/dev/null; then
        echo "not formatted: $file"
        differing=$((differing + 1))
    fi
done
echo "${#existing[@]} files, $differing not formatted (make format)"
[ "$differing" -eq 0 ] || [ "$mode" = --report ]
