#!/usr/bin/env bash
# secrets.sh FILE: generates the passwords of infra/compose.yaml, for this user alone; passwords that are there stay.
set -euo pipefail
file="${1:-.vqbet/compose.env}"
umask 077
mkdir -p "$(dirname "$file")"
touch "$file"
random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
for name in DATABASE PREFECT_DATABASE MLFLOW_DATABASE LEDGER_DATABASE PREFECT MLFLOW MLFLOW_SESSION S3_KEY S3; do
    grep -q "^SECRET_$name=" "$file" || echo "SECRET_$name=$(random)" >> "$file"
done
grep -q '^VQBET_USER=' "$file" || echo "VQBET_USER=$(id -u):$(id -g)" >> "$file"
echo "secrets: $file"
