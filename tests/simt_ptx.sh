#!/usr/bin/env bash
# tests/simt_ptx.sh [--quick] [ARCH...]: compiles the kernels to PTX for each architecture (default: 80 90a), and runs
# doctor's checks on it with the interpreter of kernels/simt/ptx: the whole of `codit doctor`, in which warps run in index
# order and copies land late, then the tests of the kernels under other orders. --quick runs a reduced doctor, and plants
# faults in the PTX of the first architecture, which a check must find (tests/suite/ptx/kernels.rs).
# Needs nvcc: $NVCC, or the one that kernels/toolchain.sh installs.
set -euo pipefail
cd "$(dirname "$0")/.."
quick=
if [[ ${1:-} == --quick ]]; then
    quick=1
    shift
fi
[[ $# -gt 0 ]] || set -- 80 90a

kernels() { cargo test --release --test suite -- --ignored --exact "ptx::kernels::$1"; }

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for arch in "$@"; do
    export CODIT_PTX=$folder/$arch
    kernels/ptx.sh "$arch" "$CODIT_PTX"
    if [[ $quick ]]; then
        kernels the_compiled_kernels_pass_a_reduced_doctor
        [[ $arch != "$1" ]] || kernels planted_faults_fail_a_check
    else
        CODIT_SIMT=ptx cargo run --release -- doctor --device simt
        CODIT_SIMT=ptx cargo test --release --test suite -- kernels:: --skip ptx::
    fi
    echo "sm_$arch: the kernels' PTX passed"
done
