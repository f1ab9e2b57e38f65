#!/usr/bin/env bash
# install.sh ENVIRONMENT NAME...: makes a virtual environment with what extras ([serve]) and packages need, and no more.
# Every file is checked against its hash in a lock; a package that no lock has is refused. torch is the build without
# CUDA where ./wheels has one for this Python, else the index's with CUDA's libraries. Run in the project's folder, by a
# Python that has uv.
set -euo pipefail
environment="$1"
shift
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
uv() { "${PYTHON:-python3}" -m uv "$@"; }

words=() locks=(requirements.lock infra/docker/kubernetes.lock) links=()
for name in "$@"; do
    case "$name" in
        \[*\]) name="${name#[}" && words+=(--extra "${name%]}") ;;
        *) echo "$name" >> "$work/named" ;;
    esac
done
[ ! -e "$work/named" ] || words+=("$work/named")
cpu="$(sed -n 's/^\(torch==[^ ]*\).*/\1/p' infra/setup/torch-cpu.lock)"
uv venv --quiet "$environment"
fits() { uv pip install --quiet --dry-run --no-deps --python "$environment/bin/python" --find-links wheels "$cpu" 2>/dev/null; }
if [ -d wheels ] && fits; then
    locks+=(infra/setup/torch-cpu.lock) links+=(--find-links wheels)
else
    locks+=(infra/setup/torch.lock infra/setup/cuda.lock)
fi

# opencv-python stays out, as in the locks: the headless build holds the same module and needs no display library.
uv pip compile --quiet --no-header --no-annotate --no-emit-package opencv-python --python "$environment/bin/python" \
    "${links[@]}" "${locks[@]/#/--constraint=}" "${words[@]}" pyproject.toml | sed -n 's/^\([a-z0-9.-]*\)==.*/\1/p' > "$work/names"
cat "${locks[@]}" | awk -v names="$work/names" '
    BEGIN { while ((getline name < names) > 0) wanted[name] = 1 }
    /^[a-z0-9]/ { name = $0; sub(/==.*/, "", name); on = (name in wanted); if (on) found[name] = 1 }
    on
    END {
        for (name in wanted) if (!(name in found)) { print "install: " name " is in no lock; run: make lock" > "/dev/stderr"; bad = 1 }
        exit bad
    }' > "$work/locked"
uv pip install --quiet --compile-bytecode --no-deps --require-hashes --build-constraints requirements.lock "${links[@]}" \
    --python "$environment/bin/python" --requirement "$work/locked"
