#!/usr/bin/env bash
# What `make demo-robot` runs: a second policy against the demo's champion in a blind session on a simulated robot, from
# its training to its canary; then a policy that is broken on purpose, which the trials refuse. Every line after $ is a
# command that a lab types. All of it happens in a copy of this project, .vqbet/demo-robot, so that the demo's registry,
# params.yaml and history stay as they are.
set -euo pipefail
cd "$(dirname "$0")/.."
root="$PWD" copy=.vqbet/demo-robot began=$SECONDS
vqbet() { "$root/.venv/bin/vqbet" "$@"; }
dvc() { "$root/.venv/bin/dvc" "$@"; }

say() { printf '\n[%3d s] %s\n' "$((SECONDS - began))" "$1"; }
run() { printf '$ %s\n' "$*"; "$@"; }
# choose <what> <sed expression>: change blockpush's section of params.yaml and commit it, since only that counts
choose() {
    sed -i "/^blockpush:/,/^pusht:/ { $2 }" params.yaml
    git diff --unified=0 params.yaml | grep '^[+-] '
    git -c user.name=demo -c user.email=demo@localhost commit --quiet --all --message "$1"
}
# session: forty trials at most, in which a script is the operator
session() {
    run vqbet trials plan blockpush --robot simrobot
    run vqbet trials run blockpush --simulated --scripted
    run vqbet trials judge blockpush
}

vqbet history blockpush 2>/dev/null | grep -q champion || make --no-print-directory demo
rm -rf "$copy"
git clone --quiet --local . "$copy"
ln -s "$root/.venv" "$copy/.venv"
for kept in data artifacts .dvc/cache .vqbet/*; do
    case "$kept" in "$copy" | .vqbet/prefect* | .vqbet/downloads) continue ;; esac
    mkdir -p -m 700 "$copy/$(dirname "$kept")"
    cp -a --reflink=auto "$kept" "$copy/$kept"
done
cd "$copy"

say "A second policy: other temperature. It needs evidence of both kinds, and one robot first after a promotion."
choose "A second policy, to be tried on the robot" '
    s/bundle: {<<: \*bundle}/bundle: {<<: *bundle, temperature: 0.5}/
    s/evaluate: {<<: \*evaluate}/evaluate: {<<: *evaluate, episodes: 40, videos: 1}/
    s/^    min_modes: 4/    min_modes: 4\n    question: "not_worse"\n    margin: 0.1\n    evidence: ["simulated", "robot"]/
    s/canary: {<<: \*canary}/canary: {<<: *canary, episodes: 10}/
    s/trials: {<<: \*trials\(.*\)}/trials: {<<: *trials\1, looks: [10, 20], margin: 0.25}/'
run dvc repro --quiet report@blockpush
run vqbet register blockpush

say "The session: forty trials at most, in blocks, and nobody is told which policy drives."
session
say "Promotion: each kind of evidence must say PROMOTE."
run vqbet promote blockpush --why "not worse in simulation, not worse on the robot"

say "Canary: the new champion on one robot first."
vqbet serve blockpush@champion --canary --port 8071 >.vqbet/canary-server.log 2>&1 &
server=$!
trap 'kill "$server" 2>/dev/null || true' EXIT
run vqbet simrobot blockpush --server ws://127.0.0.1:8071 --wait 60 --episodes 10 --name robot-1 --record recordings
kill "$server"
run vqbet canary blockpush --robot robot-1 --recordings recordings

say "A policy that is broken on purpose: its codes are drawn at random. The robot alone is to judge it."
choose "A broken policy" '
    s/temperature: 0.5/temperature: 50.0/
    s/evidence: \["simulated", "robot"\]/evidence: ["robot"]/
'
run dvc repro --quiet report@blockpush
run vqbet register blockpush
session
if run vqbet promote blockpush; then
    echo "demo-robot: the broken policy was promoted; the gate does not work" >&2
    exit 1
fi
say "It was refused, and the champion is the second policy:"
run vqbet history blockpush
run vqbet audit blockpush
say "The session's page: $(ls -t "$root/$copy"/.vqbet/trials/blockpush/*/page/index.html | tail -1)"
