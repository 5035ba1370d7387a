# One place for every command a developer or a reader needs. `make` alone lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help

VENV   := .venv
# The locks are made for this version.
PYTHON ?= $(shell python3 -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null && echo python3 || echo python3.11)
BIN    := $(VENV)/bin
TORCH  ?= -r envs/torch.txt
STAMP  := $(VENV)/.installed
LOCKS  := envs/dev.txt envs/torch.txt envs/uv.txt

# Programs that the scripts start (snakemake, python) come from the project's own environment.
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Without compiled files, Snakemake and every program would take three times as long to start.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help setup demo test lint bench docs status lock image clean

help: ## list the commands
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile | expand -t 16

setup: $(STAMP) ## create .venv with everything locked in envs/

# Installed again only when a lock is newer. torch comes last and with pip: it is not locked, since
# which build is right (CPU, CUDA) depends on the machine, and pip's own configuration says where
# it comes from: make setup TORCH="torch==2.13.0 --index-url https://..." takes another build. Its
# dependencies are in the lock, so nothing else moves.
$(STAMP): $(LOCKS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -r envs/uv.txt
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --no-deps --require-hashes -r envs/dev.txt
	$(BIN)/python -m pip install --quiet $(TORCH)
	touch $@

demo: setup ## the whole workflow on generated volumes: scores and a picture, in minutes
	$(BIN)/python workflow/scripts/demo.py

# In their order by name the long integration tests come first, and the short ones fill the end.
test: setup ## every test that this machine can run, or TESTS="..." (files, options of pytest)
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder $(TESTS)

lint: setup ## style, types, and Snakemake's own checks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/snakemake --lint

BENCHMARKS := fetch lsd_targets train data_parallel predict evaluate malis checkpoint memory graph znn elektronn \
              alignment_speed cracks

bench: setup ## the programs behind the figures of docs/performance.md
	for name in $(BENCHMARKS); do echo "== $$name"; $(BIN)/python benchmarks/$$name.py || exit 1; done

docs: setup ## the documentation as a site in site/; every warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

status: setup ## how far a target is: make status TARGET=evaluate_zfinch_mtlsd OPTIONS="--use-singularity"
	$(BIN)/python workflow/scripts/status.py $(TARGET) -- $(OPTIONS)

COMPILE := uv pip compile --quiet --python-version 3.11 --generate-hashes --no-annotate \
           --no-emit-index-url --custom-compile-command "make lock"

lock: setup ## resolve envs/*.in anew into exact, consistent locks (UPGRADE=1: newest versions)
	cd envs && $(COMPILE) --override overrides.txt $(if $(UPGRADE),--upgrade) dev.in -o dev.txt
	cd envs && $(COMPILE) --upgrade host.in -c dev.txt -o host.txt
	cd envs && $(COMPILE) --upgrade modern.in -c dev.txt -o modern.txt
	cd envs && $(COMPILE) $(if $(UPGRADE),--upgrade) standin.in -o standin.txt

image: setup ## build or pull the container image of the rules (see docs/how-to/containers.md)
	$(BIN)/snakemake --cores all image_modern

clean: ## remove caches; data, results and images stay
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis site
	find workflow tests benchmarks -name __pycache__ -prune -exec rm -rf {} +
