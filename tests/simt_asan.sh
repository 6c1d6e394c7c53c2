#!/usr/bin/env bash
# tests/simt_asan.sh [FILTER...]: runs the tests whose names contain a FILTER (default: simt::) with the kernels under
# AddressSanitizer, and checks that the sanitizer sees planted reads past the end of a buffer. Needs g++.
# Until the next build, target/release/codit has AddressSanitizer too: do not measure or ship it.
set -euo pipefail
cd "$(dirname "$0")/.."

export CODIT_SIMT_SANITIZE=address
# Leaks are not reported, because Rust keeps some memory for ever. A refused allocation returns null, as without the
# sanitizer.
export ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1

suite() { cargo test --release --test suite -- "$@"; }

suite "${@:-simt::}" --skip simt::speed

for planted in "global probe_over_read" "shared probe_over_read_shared"; do
    read -r memory kernel <<<"$planted"
    if report=$(suite --ignored --exact --nocapture "simt::over_reads::of_${memory}_memory" 2>&1); then
        echo "AddressSanitizer did not see a read past the end of $memory memory" >&2
        exit 1
    fi
    for part in "heap-buffer-overflow" "READ of size" "$kernel, block (1, 0, 0), thread (5, 0, 0)"; do
        if ! grep -qF "$part" <<<"$report"; then
            printf '%s\nthe report does not contain: %s\n' "$report" "$part" >&2
            exit 1
        fi
    done
done
echo "AddressSanitizer: it found no fault but the planted ones"
