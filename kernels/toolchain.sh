#!/usr/bin/env bash
# Installs nvcc into .cuda/ of the checkout, where the build finds it, for machines without CUDA's toolkit. Downloads about
# 250 MB from the Python package index and needs python3 with pip. A second run does nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(
    nvidia-cuda-nvcc==13.0.88    # nvcc, ptxas, fatbinary
    nvidia-cuda-crt==13.0.88     # nvcc's own headers
    nvidia-nvvm==13.0.88         # cicc, libdevice
    nvidia-cuda-runtime==13.0.96 # cuda_fp16.h, cuda_bf16.h and their includes
    nvidia-cuda-cccl==13.0.85    # nv/target
)
nvcc=.cuda/nvidia/cu13/bin/nvcc
stamp=.cuda/packages

if [[ -x $nvcc && -f $stamp && $(<"$stamp") == "${packages[*]}" ]]; then
    echo "$nvcc is installed"
    exit
fi

# The packages go to a temporary folder first, so that an interrupted run leaves no partial compiler behind.
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
touch kernels/toolchain.sh # cargo watches kernels/, so the next build looks for nvcc again
