#!/usr/bin/env bash
# tests/simt_asan.sh [FILTER...]: runs the tests whose names contain a FILTER (simt::) with the kernels under
# AddressSanitizer, and shows that it sees a read past the end of a buffer. Needs g++.
set -euo pipefail
cd "$(dirname "$0")/.."

export CODIT_SIMT_SANITIZE=address
# What Rust keeps for ever is no leak of the kernels. An allocation that is refused is an error, not an end.
export ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1

suite() { cargo test --release --test suite -- "$@"; }

suite "${@:-simt::}" --skip simt::speed

for planted in "global probe_over_read" "shared probe_over_read_shared"; do
    read -r memory kernel <<<"$planted"
    if report=$(suite --ignored --exact --nocapture "simt::over_reads::of_${memory}_memory" 2>&1); then
        echo "a read past the end of $memory memory went unseen" >&2
        exit 1
    fi
    for part in "heap-buffer-overflow" "READ of size" "$kernel, block (1, 0, 0), thread (5, 0, 0)"; do
        if ! grep -qF "$part" <<<"$report"; then
            printf '%s\nthe report does not say: %s\n' "$report" "$part" >&2
            exit 1
        fi
    done
done
echo "AddressSanitizer: no fault but the planted ones"
