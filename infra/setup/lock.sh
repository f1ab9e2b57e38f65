#!/usr/bin/env bash
# Writes requirements.lock from pyproject.toml: exact pins with hashes, no address of any registry.
# torch (and what only its GPU build needs) stays out: it is installed first, by name, see setup.sh.
# opencv-python stays out as well: the headless build holds the same module and needs no display library.
set -euo pipefail
cd "$(dirname "$0")/../.."
python="${1:-.venv/bin/python}"

gpu_only=(triton cuda-bindings cuda-pathfinder cuda-toolkit nvidia-cublas nvidia-cuda-cupti nvidia-cuda-nvrtc
          nvidia-cuda-runtime nvidia-cudnn-cu13 nvidia-cufft nvidia-cufile nvidia-curand nvidia-cusolver
          nvidia-cusparse nvidia-cusparselt-cu13 nvidia-nccl-cu13 nvidia-nvjitlink nvidia-nvshmem-cu13 nvidia-nvtx)
left_out=()
for name in torch opencv-python "${gpu_only[@]}"; do left_out+=(--no-emit-package "$name"); done

"$python" -m uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest --generate-hashes \
    --extra sims --extra dev "${left_out[@]}" --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
    pyproject.toml --output-file requirements.lock
grep -c '==' requirements.lock
