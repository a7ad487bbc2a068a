# Everything runs in .venv, which is made from nothing and made again when a requirements file changes.
PYTHON ?= python3
PYTEST_ARGS ?=
# What is asked for by name fails where it cannot run; `make test` empties this.
MUST_RUN ?= -p must_run

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
UNIT := tests --ignore=tests/host --ignore=tests/browser -n auto --dist loadfile
REQUIREMENTS := requirements.txt requirements-dev.txt constraints-dev.txt

.DEFAULT_GOAL := help
.PHONY: help demo test lint types audit unit unit-all test-host test-browser test-robust test-card test-full test-files test-install screenshots bench-quality bench-speed bench-training format clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

demo: $(STAMP) ## Merge two LoRAs of the small world that ships with the repository, and show what came out
	$(BIN)/python -m benchmarks.shapes_world.demo

test: ## Run everything that CI runs, one after another
	$(MAKE) --no-print-directory lint
	$(MAKE) --no-print-directory types
	$(MAKE) --no-print-directory audit
	$(MAKE) --no-print-directory unit-all
	$(MAKE) --no-print-directory test-host MUST_RUN=

lint: $(STAMP) ## Check style and formatting (ruff)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP) ## Check types (pyright)
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright

audit: $(STAMP) ## Ask whether a vulnerability is known in anything installed (goes on where nobody answers)
	PYTHONPATH=tests $(BIN)/python -m dependencies --audit

unit: $(STAMP) ## Run the tests that need no ComfyUI
	OMP_NUM_THREADS=1 $(BIN)/pytest $(UNIT) $(PYTEST_ARGS)

unit-all: unit ## Run them on every other Python 3.10 to 3.13 of this machine, too
	PYTHONPATH=tests OMP_NUM_THREADS=1 $(BIN)/python -m pythons $(UNIT) $(PYTEST_ARGS)

test-host: $(STAMP) ## Run the tests inside real ComfyUI checkouts (fails where there is none)
	PYTHONPATH=tests OMP_NUM_THREADS=1 $(BIN)/pytest $(MUST_RUN) tests/host -n auto --maxprocesses 4 --dist loadgroup $(PYTEST_ARGS)

test-browser: $(STAMP) ## Drive ComfyUI's own page in Chromium: every workflow, as an artist would
	PYTHONPATH=tests $(BIN)/python -m browser.install_chromium
	PYTHONPATH=tests OMP_NUM_THREADS=1 $(BIN)/pytest $(MUST_RUN) tests/browser -n 2 --dist loadgroup $(PYTEST_ARGS)

screenshots: $(STAMP) ## Make every picture of the README and of workflows/ again
	PYTHONPATH=tests $(BIN)/python -m browser.install_chromium
	OMP_NUM_THREADS=1 PYTHONPATH=tests:. $(BIN)/python -m browser.screenshots

test-robust: $(STAMP) ## Attack files, saves, trainings and memory by the thousand, under 20 minutes
	PYTHONPATH=.:tests OMP_NUM_THREADS=1 $(BIN)/python -m robust

test-card: $(STAMP) ## Let every flow run on a pretended card in each ComfyUI, under 8 minutes (fails where there is none)
	PYTHONPATH=.:tests OMP_NUM_THREADS=1 $(BIN)/python -m host.card

test-full: $(STAMP) ## One merge on SDXL at its real size in a real ComfyUI: seconds and memory node by node, 10 to 20 minutes
	PYTHONPATH=.:tests $(BIN)/python -m benchmarks.real_size

test-files: $(STAMP) ## Read LoRA files as trainers write them, and compare with theirs and ComfyUI's values, under 6 minutes
	PYTHONPATH=.:tests OMP_NUM_THREADS=1 $(BIN)/python -m wild_loras

test-install: $(STAMP) ## Pack and check the pack as the registry does, and time its import in each ComfyUI, 2 minutes
	PYTHONPATH=.:tests OMP_NUM_THREADS=1 $(BIN)/python -m try_install

bench-quality: $(STAMP) ## Measure every method on held-out pairs, 60 minutes (FAST=1: a part of it, 8 minutes)
	$(BIN)/python -m benchmarks.shapes_world.quality $(if $(FAST),--cases 4 --pictures 16 --table-only --no-report)

bench-speed: $(STAMP) ## Count FLOPs and bytes, and time a step beside the authors' and ZipLoRA's, under 10 minutes
	$(BIN)/python -m benchmarks.speed

bench-training: $(STAMP) ## Content and style LoRAs of one picture: DreamBooth, B-LoRA, UnZipLoRA; under 20 minutes
	$(BIN)/python -m benchmarks.shapes_world.training

format: $(STAMP) ## Mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Remove the environment and every cache
	rm -rf $(VENV) .venv-3.* .pytest_cache .ruff_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): $(REQUIREMENTS)
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 10) <= sys.version_info[:2] <= (3, 13) else "DuoLoRA is developed on Python 3.10 to 3.13, this is " + sys.version.split()[0] + "; choose another with: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt -c constraints-dev.txt
	@touch $@
