# Every target sets up what it needs: on a fresh machine `make demo` or `make test` is the only command.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# The interpreter to build .venv with; 3.11 or newer.
PYTHON ?= python3
# One thread is fastest for models as small as those of the tests, and gives the same bits on every machine.
TEST_THREADS ?= 1

PINS := build/requirements.txt
READY := .venv/.ready
RUN := .venv/bin/python
TEST := OMP_NUM_THREADS=$(TEST_THREADS) $(RUN) -m pytest
SCRIPTS := .ci/run $(wildcard *.sh build/*.sh build/*/*.sh data_scripts/*.sh)
# uv installs the same pins in a fraction of the time, where it works.
INSTALL := $(if $(shell uv --version 2>/dev/null),uv pip install --python $(RUN),$(RUN) -m pip install)

.PHONY: help setup demo test test-all test-browser lint bench pins catalogue licences audit clean gpu-dry

help: ## Show this list
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/  make \1|\2/p' Makefile | column -t -s '|'

setup: $(READY) ## Install everything into .venv (about 3 GB to download, once)
	@echo "Ready: $(RUN)"

demo: $(READY) ## Make data, train a small model and use it: the first training of the README, in minutes on a CPU
	$(RUN) -m data_scripts quickstart_sprites
	$(RUN) -m lvae_torch.train egs/quickstart.cfg
	$(RUN) -m lvae_torch.synthesize quickstart --mode reconstruction --mode generation --mode layer_inspection

test: $(READY) ## Run the quick tests, in two processes
	$(TEST) -n 2 --dist loadfile -m 'not slow'

test-all: $(READY) ## Run all tests, those in the browser too where there is one
	-@build/browser.sh --install
	$(TEST)

test-browser: $(READY) ## Test the explorer in Chromium, which is installed where it can be; skipped where not
	@build/browser.sh --install || { [[ $$? -eq 3 ]] && exit 0; exit 1; }; \
	$(TEST) -m browser -s tests/explore

lint: $(READY) ## Check style, types, shell scripts and the Dockerfile
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	.venv/bin/shellcheck $(SCRIPTS) build/cluster/slurm.sbatch
	.venv/bin/hadolint build/Dockerfile

# A GPU that counts and computes nothing; its folder has build.sh, nullgpu.sh and null_counts.py.
NULLGPU ?= ../shared/recipes/nullgpu

gpu-dry: $(READY) ## Count what a training step launches on a GPU, on a stand-in for one, where there is a recipe for it
	@test -x $(NULLGPU)/build.sh || { echo "gpu-dry: no recipe in $(NULLGPU); give its folder by NULLGPU=DIR"; exit 2; }
	$(NULLGPU)/build.sh .venv/nullgpu $(RUN)
	PYTHONPATH=$(NULLGPU) NULL_GPUS=1 $(NULLGPU)/nullgpu.sh .venv/nullgpu $(RUN) -m benchmarks.launches

bench: $(READY) ## Run the benchmarks
	@for file in benchmarks/[a-z]*.py; do name=$$(basename "$$file" .py); echo "== $$name"; $(RUN) -m "benchmarks.$$name"; done

pins: ## Make build/requirements.txt again from pyproject.toml (PINS_OPTIONS=--upgrade: newer versions); needs uv
	build/pins.sh $(PINS_OPTIONS)

catalogue: $(READY) ## Take over from the recipes what their dumps look like
	$(RUN) -m data_scripts --catalogue > catalogue.json.new && mv catalogue.json.new lvae_torch/data/catalogue.json

licences: $(READY) ## List the licences of all dependencies in docs/licences.md
	$(RUN) -m build.licences > docs/licences.md.new && mv docs/licences.md.new docs/licences.md

audit: $(READY) ## Ask for known vulnerabilities of the pinned versions, where a package registry answers
	$(RUN) -m build.audit

clean: ## Remove .venv and what the tools left; runs and dumps stay
	rm -rf .venv .hypothesis .mypy_cache .pytest_cache .ruff_cache ./*.egg-info
	find . -path ./runs -prune -o -path ./dataset_dumps -prune -o -name __pycache__ -type d -exec rm -rf {} +

$(READY): pyproject.toml $(PINS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$(PYTHON) is missing or older than 3.11. Name another one: make setup PYTHON=python3.12" >&2; exit 1; }
	@$(RUN) -c '' 2>/dev/null || $(PYTHON) -m venv --clear .venv || { rm -rf .venv; \
		echo "$(PYTHON) cannot make a virtual environment. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@echo "Installing into .venv. The first time, this downloads about 3 GB (PyTorch with CUDA, which also runs without a GPU)."
	$(INSTALL) -r $(PINS)
	$(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@
