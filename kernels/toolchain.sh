#!/usr/bin/env bash
# Brings nvcc into .cuda/ of the checkout, where the build finds it: about 250 MB from the Python registry, for
# machines without CUDA's toolkit. Needs python3 with pip. Run again, it does nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(
    nvidia-cuda-nvcc==13.0.88    # nvcc, ptxas, fatbinary
    nvidia-cuda-crt==13.0.88     # nvcc's own headers
    nvidia-nvvm==13.0.88         # cicc, libdevice
    nvidia-cuda-runtime==13.0.96 # cuda_fp16.h, cuda_bf16.h and what they include
    nvidia-cuda-cccl==13.0.85    # nv/target
)
nvcc=.cuda/nvidia/cu13/bin/nvcc
stamp=.cuda/packages

if [[ -x $nvcc && -f $stamp && $(<"$stamp") == "${packages[*]}" ]]; then
    echo "$nvcc is there"
    exit
fi

# A folder of its own until it is whole: what is cut short leaves no half of a compiler behind.
fresh=$(mktemp -d .cuda.XXXXXX)
trap 'rm -rf "$fresh"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: \
    --target "$fresh" "${packages[@]}"
"$fresh/${nvcc#.cuda/}" --version | tail -n 1
echo "${packages[*]}" >"$fresh/packages"
chmod 755 "$fresh"
rm -rf .cuda
mv "$fresh" .cuda
trap - EXIT
touch kernels/toolchain.sh # cargo watches this folder: the next build looks for nvcc again
