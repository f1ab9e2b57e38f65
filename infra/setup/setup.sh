#!/usr/bin/env bash
# Everything a fresh machine needs: a virtual environment with the pinned packages, each checked against its hash, and
# the project itself, so that .venv/bin/vqbet is there.
# Needs Python 3.11-3.13 and a package index; does nothing when the environment already matches the locks. Safe to run
# again after an interruption.
set -euo pipefail
cd "$(dirname "$0")/../.."

here=infra/setup
stamp="$({ cat requirements.lock $here/*.lock $here/setup.sh $here/project.sh; sed -n '/^\[project/,/^\[tool/p' pyproject.toml; } | cksum)"
place="$(pwd -P)"  # the scripts in .venv name their interpreter by it: a folder that was moved or copied needs its own
if [ ! -L .venv ] && [ "$(cat .venv/.place 2>/dev/null || echo "$place")" != "$place" ]; then rm -rf .venv; fi
if [ -x .venv/bin/python ] && [ "$(cat .venv/.matches 2>/dev/null)" = "$stamp" ]; then exit 0; fi

find_python() {
    for name in "${PYTHON:-}" python3 python3.13 python3.12 python3.11; do
        if [ -n "$name" ] && "$name" -c 'import sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
            echo "$name"
            return
        fi
    done
    echo "setup: needs Python 3.11, 3.12 or 3.13 with venv; found $(python3 --version 2>&1 || echo none). Set PYTHON=..." >&2
    exit 1
}

mkdir -p -m 700 .vqbet  # before DVC makes it readable for all
echo "setup: making .venv with the packages of the locks (about 2 GB, once)"
started=$SECONDS
if [ ! -x .venv/bin/pip ]; then rm -rf .venv; "$(find_python)" -m venv .venv; fi
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $here/uv.lock \
    2> >(grep -v '^WARNING: Location' >&2 || true)

# uv does not read pip's settings: a folder of local wheels, where pip has one, is passed on by hand.
wheels="$(.venv/bin/python -m pip config get global.find-links 2>/dev/null || true)"
# Compiled now, since every stage is a process of its own and imports anew: a no-op `dvc repro` takes half the time.
# One distribution has no wheel (antlr4-python3-runtime); what builds it is held to the lock and its hashes as well.
install=(.venv/bin/python -m uv pip install --quiet --compile-bytecode --python .venv/bin/python --no-deps --require-hashes
         --build-constraints requirements.lock)
# torch first: the CPU build where a folder of local wheels has one for this Python, else the index's build for this
# platform, which on Linux needs CUDA's libraries, whether there is a GPU or not.
cpu="$(sed -n 's/^\(torch==[^ ]*\).*/\1/p' $here/torch-cpu.lock 2>/dev/null || true)"
fits() { .venv/bin/python -m uv pip install --quiet --dry-run --no-deps --python .venv/bin/python --find-links "$@" 2>/dev/null; }
if [ -n "$wheels" ] && [ -n "$cpu" ] && fits "$wheels" "$cpu"; then
    "${install[@]}" --find-links "$wheels" -r $here/torch-cpu.lock
else
    "${install[@]}" -r $here/torch.lock
    "${install[@]}" -r $here/cuda.lock
fi
"${install[@]}" -r requirements.lock
[ -L .venv ] || bash $here/project.sh  # the .venv of another clone keeps running that one's files
.venv/bin/python -c 'import torch, numpy, zarr, cv2, mujoco, prefect'
printf '%s' "$place" > .venv/.place
printf '%s' "$stamp" > .venv/.matches
echo "setup: done in $((SECONDS - started)) s; \`source .venv/bin/activate\` puts vqbet on the PATH of this shell"
