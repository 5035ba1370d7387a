# All commands for developers and readers in one place. `make` alone lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help

VENV   := .venv
# The versions of Python that the locks are resolved for. uv takes the first one that it finds on this machine, or
# downloads one. make setup PYTHON=3.12 (or a path) chooses.
PYTHON ?= >=3.11,<3.14
UV     := $(CURDIR)/.uv/bin/uv
BIN    := $(VENV)/bin
TORCH  ?= -r envs/torch.txt
STAMP  := $(VENV)/.installed
LOCKS  := envs/dev.txt envs/torch.txt envs/uv.txt
NO_PYTHON := error: no Python $(PYTHON) on this machine, and uv could not download one (see above). The locks hold for \
             Python 3.11 to 3.13. Install one (Debian 12 and 13, Ubuntu 24.04: apt-get install python3; Fedora: \
             dnf install python3.13), or name it: make setup PYTHON=PATH
# Exits with a message where .venv has a Python that the locks do not hold for.
FITS := import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v < (3, 14) else "error: $(VENV) has Python \
        %d.%d, and the locks hold for 3.11, 3.12 and 3.13. Take another: rm -r $(VENV); make setup PYTHON=3.13" % v)

# Scripts start programs (snakemake, python) from the project's own environment.
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Write compiled files: without them, Snakemake and every program take three times as long to start.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help setup demo test lint bench schemas docs list status cost lock image push clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s%s\n", $$1, $$2}' Makefile

setup: $(STAMP) ## create .venv with the packages that envs/ locks

# Installs again only if a lock is newer. torch comes last, with pip. It is not locked, because the
# right build (CPU, CUDA) depends on the machine, and pip's own configuration sets the package index.
# make setup TORCH="torch==2.13.0 --index-url https://..." installs another build. The dependencies
# of torch are in the lock, so no other version changes.
$(STAMP): $(LOCKS)
	@command -v python3 >/dev/null || { echo "error: there is no python3; install it (apt-get install python3)" >&2; exit 1; }
	@echo "setup: uv, packages, torch"
	@PIP_ROOT_USER_ACTION=ignore python3 envs/obtain_uv.py envs/uv.txt .uv
	@test -x $(BIN)/python || $(UV) venv --quiet --python '$(PYTHON)' $(VENV) || { echo "$(NO_PYTHON)" >&2; exit 1; }
	@$(BIN)/python -c '$(FITS)'
	$(UV) pip install --quiet --compile-bytecode --python $(BIN)/python --no-deps --require-hashes -r envs/dev.txt
	$(BIN)/python -m pip install --quiet --root-user-action ignore $(TORCH)
	touch $@

demo: setup ## run the whole workflow on generated volumes: scores and a picture, in minutes
	$(BIN)/python workflow/scripts/demo.py

# Tests start in the order of their names: the long integration tests come first, short ones fill the end.
test: setup ## run every test that this machine can run, or TESTS="..." (files, options of pytest)
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder $(TESTS)

lint: setup ## check style and types, and run Snakemake's own checks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/python tests/lint_rules.py Snakefile
	$(BIN)/snakemake --lint

BENCHMARKS := fetch lsd_targets train data_parallel predict segment evaluate malis checkpoint memory graph znn \
              elektronn alignment_speed cracks zarr_formats gpu peers

bench: setup ## run the programs that measure the figures in docs/performance.md
	$(BIN)/python benchmarks/bench.py $(BENCHMARKS)

schemas: setup ## write config/schemas and the generated pages of docs/reference again
	PYTHONPATH=workflow/scripts $(BIN)/python -m retrace.config.json_schemas config/schemas
	PYTHONPATH=workflow/scripts $(BIN)/python docs/_site/what_decides.py docs/reference/what-decides.md
	PYTHONPATH=workflow/scripts $(BIN)/python docs/_site/formats_page.py docs/reference/formats.md
	$(BIN)/python docs/_site/dependencies_page.py docs/reference/dependencies.md

docs: setup ## build the documentation as a site in site/; every warning is an error
	$(BIN)/python docs/_site/build.py site

list: setup ## show what can run here: make list, or make list NAME=zfinch
	@$(BIN)/python workflow/scripts/targets.py $(NAME)

status: setup ## show the progress of a target: make status TARGET=evaluate_zfinch_mtlsd OPTIONS="--use-singularity"
	$(BIN)/python workflow/scripts/status.py $(TARGET) -- $(OPTIONS)

cost: setup ## show what a target costs before it runs: make cost TARGET=... OPTIONS="..." (ASK=1: ask the bucket)
	@$(BIN)/python workflow/scripts/cost.py $(TARGET) $(if $(ASK),--ask) -- $(OPTIONS)

COMPILE := $(UV) pip compile --quiet --python-version 3.11 --generate-hashes --no-annotate \
           --no-emit-index-url --custom-compile-command "make lock"
# Locks of what people install hold for each version of Python and each system; those of images for the image's.

lock: setup ## resolve envs/*.in again into exact, consistent locks (UPGRADE=1: newest versions)
	cd envs && $(COMPILE) --universal $(if $(UPGRADE),--upgrade) uv.in -o uv.txt
	cd envs && $(COMPILE) --universal --override overrides.txt $(if $(UPGRADE),--upgrade) dev.in -o dev.txt
	cd envs && $(COMPILE) --universal --upgrade host.in -c dev.txt -o host.txt
	cd envs && $(COMPILE) --upgrade --override overrides.txt modern.in -c dev.txt -o modern.txt
	cd envs && $(COMPILE) $(if $(UPGRADE),--upgrade) standin.in -o standin.txt
	$(BIN)/python docs/_site/releases.py $(UV)

IMAGE ?= modern

image: setup ## build or pull the container image of the rules, or IMAGE=standin (see docs/how-to/containers.md)
	$(BIN)/snakemake --cores all image_$(IMAGE)

push: setup ## push this image to the registry RETRACE_IMAGE_REGISTRY, for others to pull
	$(BIN)/python workflow/scripts/push_image.py $(IMAGE)

clean: ## remove caches; data, results and images stay
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis site
	find workflow tests benchmarks -name __pycache__ -prune -exec rm -rf {} +
