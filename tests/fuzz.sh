#!/usr/bin/env bash
# Fuzzes every target for its share of HOURS (default 1), with other cases at each call.
#
#     tests/fuzz.sh [HOURS]
#
# Findings are written to fuzz/findings/, and the exit code is 1 if there is one.
set -euo pipefail
cd "$(dirname "$0")/../fuzz"
hours=${1:-1}
jobs=$(nproc)
targets=$(ls fuzz_targets | wc -l)
# Targets run `jobs` at a time.
seconds=$(python3 -c "print(max(1, int($hours * 3600 * min($jobs, $targets) / $targets)))")
run=$(date +%s)
echo "run $run: $seconds s for each of $targets targets, $jobs at a time"
cargo run --release --no-default-features -- --seconds "$seconds" --run "$run" --jobs "$jobs"
