#!/usr/bin/env bash
# What `make gpu` runs: every number that needs a GPU, in one call of at most ten minutes. Says so where there is none.
set -euo pipefail
cd "$(dirname "$0")/.."
python="${PYTHON:-.venv/bin/python}"
[ -x "$(command -v "$python")" ] || python=python3
"$python" -m bench.gpu --seconds "${SECONDS_EACH:-120}"
