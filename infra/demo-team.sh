#!/usr/bin/env bash
# What `make demo-team` runs: the demo as a team runs it, on servers of this machine. Database, S3, Prefect, MLflow and
# two workers come up; ingest, pipeline and promotion run as deployments, each in a clone of its own; what they made is
# read back from S3 and git by a clone that has made nothing. Every line after $ is a command that a team types. All of
# it happens in a copy of this project, .vqbet/demo-team, so that registry, data and branches of this one stay as they are.
# TASK=... another task; PARAMS=... a file of parameters to run with.
set -euo pipefail
cd "$(dirname "$0")/.."
root="$PWD" copy="$PWD/.vqbet/demo-team" task="${TASK:-blockpush}" began=$SECONDS
export PATH="$root/.venv/bin:$PATH"
say() { printf '\n[%3d s] %s\n' "$((SECONDS - began))" "$1"; }
run() { printf '$ %s\n' "$*"; "$@"; }
# deployed <deployment>: run it through a worker to its end; its log lines are those of the worker
deployed() {
    printf '$ prefect deployment run %s --param task_name=%s --watch\n' "$1" "$task"
    prefect --no-prompt deployment run "$1" --param "task_name=$task" --watch >"$copy/.vqbet/run.log" 2>&1 || {
        tail -5 "$copy/.vqbet/run.log" >&2
        echo "demo-team: $1 did not complete; see $VQBET_TEAM/worker-cpu/log and $VQBET_TEAM/worker-gpu/log" >&2
        exit 1
    }
    printf '  completed, %d s\n' "$((SECONDS - began))"
}

export VQBET_TEAM="$root/team/demo"  # not below .vqbet, which the user that runs Postgres in place of root cannot pass
vqbet team down >/dev/null
rm -rf "$copy" "$VQBET_TEAM"
git clone --quiet --local . "$copy"
ln -s "$root/.venv" "$copy/.venv"
[ -z "${PARAMS:-}" ] || cp "$PARAMS" "$copy/params.yaml"
cd "$copy"
git -c user.name=demo -c user.email=demo@localhost commit --quiet --allow-empty --all --message "What the demo runs"

say "The team's servers and workers"
run vqbet team up
printf '$ . %s\n' "$VQBET_TEAM/environment"
. "$VQBET_TEAM/environment"
say "Its deployments"
run vqbet flow deploy

say "Demonstrations, by a worker of pool cpu"
deployed ingest/new-data
say "Training, evaluation and gate, by a worker of pool gpu"
deployed pipeline/nightly-retrain
say "What a machine that has made nothing reads from S3, MLflow, Postgres and git"
git fetch --quiet . runs && git checkout --quiet --detach FETCH_HEAD
run vqbet team init >/dev/null
run vqbet flow screen "$task"
run vqbet history "$task"

say "Open, with the user vqbet and the passwords in $VQBET_TEAM/environment:"
printf '  Prefect  %s\n  MLflow   %s\n' "${PREFECT_API_URL%/api}" "$MLFLOW_TRACKING_URI"
printf '\nThe team runs on. This ends it: VQBET_TEAM=team/demo .venv/bin/vqbet team down\n'
