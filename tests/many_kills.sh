#!/usr/bin/env bash
# The kill-and-resume test with 200 kills (CI makes 20). usage: tests/many_kills.sh [KILLS]
set -euo pipefail
cd "$(dirname "$0")/.."
CODIT_KILLS="${1:-200}" cargo test --release killed_and_resumed -- --nocapture
