#!/bin/sh
# Prints the addresses of the stub's symbols as macros: stub_symbols.sh NM STUB_ELF
set -eu
echo "#pragma once"
"$1" "$2" | awk '$3 ~ /^stub_.*(_instruction|filter|filter_program)$/ { print "#define MOAT_" toupper($3) " 0x" $1 "ull" }'
