#!/usr/bin/env bash
# Installs this project itself into an environment (.venv, unless another folder is named), as it lies here: its files
# stay where they are, and `vqbet` and `import vqbet` work from every folder. Asks no index: what builds it is
# setuptools, which requirements.lock has put there.
set -euo pipefail
cd "$(dirname "$0")/../.."
.venv/bin/python -m uv pip install --quiet --offline --no-deps --no-build-isolation --python "${1:-.venv}/bin/python" --editable .
