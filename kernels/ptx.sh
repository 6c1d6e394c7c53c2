#!/usr/bin/env bash
# kernels/ptx.sh ARCH FOLDER: compiles kernels/*.cu to PTX for an architecture such as 80 or 90a, into FOLDER, by the
# flags of the build (build/nvcc.rs). CODIT_SIMT=ptx CODIT_PTX=FOLDER codit ... --device simt runs it.
# The compiler is $NVCC, or else the one that kernels/toolchain.sh installs.
set -euo pipefail
if [[ $# -ne 2 ]]; then
    sed -n '2,4s/^# //p' "${BASH_SOURCE[0]}" >&2
    exit 2
fi
arch=$1
mkdir -p "$2"
folder=$(realpath "$2")
cd "$(dirname "$0")/.."
nvcc=${NVCC:-$PWD/.cuda/nvidia/cu13/bin/nvcc}

compile() { "$1" -ptx -std=c++17 -O3 -I kernels -arch="compute_$2" -o "$3/$(basename "$4" .cu).ptx" "$4"; }
export -f compile
printf '%s\n' kernels/*.cu | xargs -P "$(nproc)" -I{} bash -c 'compile "$@"' _ "$nvcc" "$arch" "$folder" {}
