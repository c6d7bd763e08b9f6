#!/usr/bin/env bash
# check-clients.sh: the Go tests of e2e/cri compile and pass go vet, and are formatted.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../e2e/cri"
if ! command -v go >/dev/null && [ -x /usr/local/go/bin/go ]; then
    PATH=$PATH:/usr/local/go/bin
fi
go vet ./...
unformatted=$(gofmt -l .)
[ -z "$unformatted" ] || { echo "not gofmt'd: $unformatted"; exit 1; }
