# `make demo` to see it work; `make check` while editing, `make test` before a commit. Each sets up what it needs by itself.
.PHONY: demo demo-team demo-robot check test test-comparison tests-fast tests-product paper setup lint types bench clean lock images gpu sbom
.DEFAULT_GOAL := help
python := .venv/bin/python

help:
	@echo "make demo   demonstrations -> champion on an embedded default, about 6 minutes on 2 cores"
	@echo "make demo-robot  a second policy tried blind on a simulated robot, promoted, and followed by its canary"
	@echo "make demo-team  the demo on a team's own servers: Postgres, S3, Prefect, MLflow, two workers; about 6 minutes"
	@echo "make check  lint, types, import contracts and the fast tests, within 2 minutes"
	@echo "make test   the same with every test of the product; make test-comparison: those of the comparison"
	@echo "make paper  every policy in every world at equal training time -> docs/results.md; SIZE=minute|minutes|quarter|hours"
	@echo "make bench  measurements against floors and peers      make lock  write requirements.lock again"
	@echo "make gpu    every number that needs a GPU, within ten minutes on one"
	@echo "make images  the images of infra/docker, where docker or buildah is here"
	@echo "make clean  remove what can be made again: artifacts and caches, not the registry and what a verdict rests on"

setup:
	@bash infra/setup/setup.sh

demo: setup
	@$(python) -m vqbet flow demo

demo-team: setup
	@bash infra/demo-team.sh

demo-robot: setup
	@bash infra/demo-robot.sh

paper: setup
	@$(python) -m vqbet.comparison $(if $(SIZE),--size $(SIZE))

lint: setup
	@$(python) -m ruff check .
	@$(python) -m ruff format --check .
	@.venv/bin/lint-imports

types: setup
	@$(python) -m mypy

# Lint and types beside the tests: what waits for a file or a process leaves the cores to them.
side_by_side := $(MAKE) --no-print-directory -j3 lint types
pytest := $(python) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

check: setup
	@$(side_by_side) tests-fast

test: setup
	@$(side_by_side) tests-product

tests-fast: setup
	@$(pytest) --ignore tests/comparison -m "not slow"

tests-product: setup
	@$(pytest) --ignore tests/comparison --hypothesis-profile ci

test-comparison: setup
	@$(pytest) --hypothesis-profile ci tests/comparison

bench: setup
	@for name in windows blockpush pusht policies train training; do echo "== $$name"; $(python) -m bench.$$name || exit 1; done

gpu: setup
	@bash infra/gpu.sh

# TARGETS="robot serve": these alone
images:
	@bash infra/docker/images.sh $(TARGETS)

# Bill of materials of the release (CycloneDX 1.6): every package of .venv with version, licence and source
sbom: setup
	@mkdir -p dist
	@$(python) -m uv tool run --quiet --from cyclonedx-bom==7.2.1 cyclonedx-py environment --pyproject pyproject.toml \
		--output-reproducible --validate --output-file dist/vqbet.cdx.json .venv
	@$(python) -c 'import json; print("dist/vqbet.cdx.json:", len(json.load(open("dist/vqbet.cdx.json"))["components"]), "packages")'

lock: setup
	@bash infra/setup/lock.sh

# Only what can be made again. Registry, ledger, evidence, approvals, keys and the data remote: vqbet forget
made_again := candidate champion checkpoints code-facts.json downloads dvc-site inductor matplotlib paper prefect prefect-ui retrained seconds staged streamed
clean:
	rm -rf artifacts dvc_plots $(addprefix .vqbet/,$(made_again)) .vqbet/drift-* .vqbet/push-*
