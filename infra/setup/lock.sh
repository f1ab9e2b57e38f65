#!/usr/bin/env bash
# Writes every lock from pyproject.toml: exact pins with hashes, no address of any registry.
#   requirements.lock            all but torch
#   infra/setup/torch.lock       torch, as the index has it
#   infra/setup/cuda.lock        what its Linux build needs beside requirements.lock
#   infra/setup/torch-cpu.lock   torch's builds without CUDA
#   infra/setup/uv.lock          the installer
#   infra/docker/kubernetes.lock what the extra [kubernetes] adds, which only an image has
# Pins that are there already are kept; LOCK_UPGRADE=1 looks for newer ones.
# opencv-python stays out: the headless build holds the same module and needs no display library.
set -euo pipefail
cd "$(dirname "$0")/../.."
python="${1:-.venv/bin/python}"
here=infra/setup
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

compiled() {  # compiled TARGET ARGUMENTS...: for every platform of [tool.uv] in pyproject.toml
    local target="$1"
    shift
    "$python" -m uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest --generate-hashes \
        ${LOCK_UPGRADE:+--upgrade} --no-header --no-annotate --no-emit-index-url --no-emit-find-links "$@" \
        --output-file "$target"
}
entries() {  # entries PATTERN [not]: the entries of the whole lock whose names fit, hashes included; or all others
    awk -v name="^($1)==" -v other="${2:-}" '/^[a-z0-9]/ { on = ($0 ~ name) != (other != "") } on' "$work/all"
}

cat requirements.lock $here/torch.lock $here/cuda.lock > "$work/all" 2>/dev/null || true
compiled "$work/all" --extra pipeline --extra robot --extra serve --extra export --extra video --extra hdf5 --extra bags --extra sims --extra team --extra comparison --extra dask --extra dev --no-emit-package opencv-python pyproject.toml
gpu='triton|cuda-[a-z0-9-]*|nvidia-[a-z0-9-]*'
entries "torch|$gpu" not > requirements.lock
entries torch > $here/torch.lock
entries "$gpu" > $here/cuda.lock

# CPU builds are on no index: their hashes are kept, and added to from pip's folder of local wheels where it has one.
cpu="$(sed -n 's/^ *"\(torch==[^"]*\)".*/\1+cpu/p' pyproject.toml)"
wheels="$("$python" -m pip config get global.find-links 2>/dev/null || true)"
{
    if grep -qF "$cpu " $here/torch-cpu.lock 2>/dev/null; then grep -o 'sha256:[0-9a-f]*' $here/torch-cpu.lock; fi
    for wheel in ${wheels:+"$wheels/${cpu/==/-}"-*.whl}; do
        [ ! -f "$wheel" ] || echo "sha256:$(sha256sum < "$wheel" | cut -d' ' -f1)"
    done
} | sort -u | sed 's/.*/    --hash=&/; $!s/$/ \\/' > "$work/cpu"
if [ -s "$work/cpu" ]; then { echo "$cpu \\"; cat "$work/cpu"; } > $here/torch-cpu.lock; else rm -f $here/torch-cpu.lock; fi

sed -n 's/^\(uv==[^ ]*\).*/\1/p' $here/uv.lock > "$work/uv"
compiled $here/uv.lock "$work/uv"

compiled "$work/kubernetes" --constraint requirements.lock --extra kubernetes pyproject.toml
awk -F '==' 'NR == FNR { if (/^[a-z0-9]/) had[$1] = 1; next } /^[a-z0-9]/ { on = !($1 in had) } on' requirements.lock \
    "$work/kubernetes" > infra/docker/kubernetes.lock
grep -c '==' requirements.lock $here/*.lock infra/docker/*.lock
