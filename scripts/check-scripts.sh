#!/usr/bin/env bash
# check-scripts.sh: every shell and Python script of the tree parses. Changes nothing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bad=0
count=0
while IFS= read -r file; do
    [ -f "$file" ] || continue
    case $(head -c 64 "$file" | head -n 1 | tr -d '\0') in
        '#!'*python3*)
            python3 -c 'import ast, sys; ast.parse(open(sys.argv[1], encoding="utf-8").read(), sys.argv[1])' "$file" || bad=1
            ;;
        '#!'*bash*) bash -n "$file" || bad=1 ;;
        '#!'*/sh*) sh -n "$file" || bad=1 ;;
        *) continue ;;
    esac
    count=$((count + 1))
done < <(git ls-files -co --exclude-standard | sort -u)
echo "$count scripts"
[ "$bad" -eq 0 ] && [ "$count" -gt 0 ]
