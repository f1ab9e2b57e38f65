#!/usr/bin/env bash
# Installs this project itself into an environment (.venv, unless another folder is named), as it lies here: its files
# stay where they are, and `vqbet` and `import vqbet` work from every folder. Asks no index: what builds it is
# setuptools, which requirements.lock has put there. "compat": one line with a path, where the default is a module that each
# start of Python imports (40 ms).
set -euo pipefail
cd "$(dirname "$0")/../.."
.venv/bin/python -m uv pip install --quiet --offline --no-deps --no-build-isolation \
    --config-setting editable_mode=compat --python "${1:-.venv}/bin/python" --editable .
