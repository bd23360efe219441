#!/usr/bin/env bash
# Runs the tests of packages for arm64 under qemu's user mode emulation:
#
#     internal/emulate/arm64.sh ./vae/internal/kernel -run Gemm
#
# takes what `go test` takes. README.md says what is needed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
[ $# -ge 1 ] || { echo "usage: $0 PACKAGE... [FLAGS OF GO TEST]" >&2; exit 2; }
for qemu in qemu-aarch64 qemu-aarch64-static ""; do
	[ -z "$qemu" ] || ! command -v "$qemu" >/dev/null || break
done
[ -n "$qemu" ] || { echo "emulate: missing: qemu-aarch64 (Debian: qemu-user)" >&2; exit 3; }
CGO_ENABLED=0 GOARCH=arm64 exec go test -exec "$qemu" "$@"
