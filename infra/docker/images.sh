#!/usr/bin/env bash
# images.sh [TARGET...]: builds the images of infra/docker/Dockerfile, all by default, by docker or buildah.
# BASE=... names another base image than python:3.11-slim; see Dockerfile.
set -euo pipefail
cd "$(dirname "$0")/../.."
[ $# -gt 0 ] || set -- robot serve servers sim train

if docker info >/dev/null 2>&1; then
    build=(docker build)
elif command -v buildah >/dev/null; then
    build=(buildah build --isolation "${BUILDAH_ISOLATION:-chroot}")
else
    echo "images: nothing was built, since neither a docker engine nor buildah is here; install one of them"
    exit 0
fi
for target in "$@"; do
    echo "images: vqbet-$target"
    "${build[@]}" ${BASE:+--build-arg "BASE=$BASE"} --file infra/docker/Dockerfile --target "$target" --tag "vqbet-$target" .
done
