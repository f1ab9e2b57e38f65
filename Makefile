# Two commands: `make demo` and `make test`. Each sets up what it needs by itself.
.PHONY: demo test test-comparison paper setup lint bench clean lock
.DEFAULT_GOAL := help
python := .venv/bin/python

help:
	@echo "make demo   demonstrations -> champion on an embedded default, about 10 minutes on 2 cores"
	@echo "make test   lint, types, import contracts and every test of the product; make test-comparison: those of the comparison"
	@echo "make paper  every policy in every world at equal training time -> docs/results.md; SIZE=minute|minutes|quarter|hours"
	@echo "make bench  measurements against floors and peers      make lock  write requirements.lock again"
	@echo "make clean  remove what can be made again: artifacts and caches, not the registry and what a verdict rests on"

setup:
	@bash infra/setup/setup.sh

demo: setup
	@$(python) -m vqbet flow demo

paper: setup
	@$(python) -m vqbet.comparison $(if $(SIZE),--size $(SIZE))

lint: setup
	@$(python) -m ruff check .
	@$(python) -m ruff format --check .
	@$(python) -m mypy
	@.venv/bin/lint-imports

test: lint
	@$(python) -m pytest -n 2 --dist loadfile --no-loadscope-reorder --ignore tests/comparison

test-comparison: setup
	@$(python) -m pytest -n 2 --dist loadfile --no-loadscope-reorder tests/comparison

bench: setup
	@for name in windows blockpush pusht policies train training; do echo "== $$name"; $(python) -m bench.$$name || exit 1; done

lock: setup
	@bash infra/setup/lock.sh

# Only what can be made again. Registry, ledger, evidence, approvals, keys and the data remote: vqbet forget
made_again := candidate champion checkpoints code-facts.json downloads dvc-site matplotlib paper prefect prefect-ui retrained seconds
clean:
	rm -rf artifacts dvc_plots $(addprefix .vqbet/,$(made_again)) .vqbet/drift-* .vqbet/push-*
