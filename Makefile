# `make help` explains itself.
unexport PYTHONDONTWRITEBYTECODE  # compiling anew takes longer than most tests
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEVSTAMP := $(VENV)/.installed-dev
LABEL_STUDIO := build/label-studio

.PHONY: help install dev docs demo ladder prompter chaos bench bench-gpu lint lock licences structure check test test-ui format clean
.DEFAULT_GOAL := help

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(STAMP): pyproject.toml requirements.lock | $(BIN)/python
	$(BIN)/python -m pip install --quiet -c requirements.lock -e '.[service]'
	@touch $@

$(DEVSTAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet -c requirements.lock -e '.[dev]'
	@touch $@

# A server for tests. It wants another redis than ours, so it has an environment of its own. Without
# it its tests are skipped, which say why.
$(LABEL_STUDIO)/.installed: tools/label_studio.sh | $(DEVSTAMP)
	-@tools/label_studio.sh $(BIN)/uv $(BIN)/python $(LABEL_STUDIO)

install: $(STAMP) ## .venv with everything the service needs

dev: $(DEVSTAMP) ## .venv with the test tools too

demo: $(STAMP) ## the whole job over HTTP on generated scenes; IMAGES= POINTS= [TRUTH=] for your own, STACK=redis for Celery
	$(BIN)/python examples/demo.py $(if $(IMAGES),--images "$(IMAGES)") $(if $(POINTS),--points "$(POINTS)") $(if $(TRUTH),--truth "$(TRUTH)") $(if $(STACK),--stack "$(STACK)") $(DEMOFLAGS)

DATA ?= $(patsubst %/points.json,%,$(wildcard ../shared/data/*/points.json))
WEIGHTS ?= $(firstword $(wildcard ../shared/weights/mobilenet_v2*.pt))
ladder: $(STAMP) ## what each component adds, DATA="DIR DIR" [WEIGHTS=], into docs/results.md; most of an hour
	$(BIN)/python benchmarks/ladder.py $(foreach dir,$(DATA),--data "$(dir)") \
		--proposals simulated --proposals hierarchy --affinity 16 $(if $(WEIGHTS),--weights "$(WEIGHTS)") \
		--json docs/ladder.json --markdown docs/results.md --figure docs/ladder.png $(LADDERFLAGS)

PROMPTER ?= ../shared/data/prompter
WORK ?= var/prompter
SLICE ?= 3600
NAME ?= all
prompter: $(STAMP) ## train the prompter for SLICE=3600 s more (NAME=strict: on free photographs alone), pack its weights, measure them into docs/prompter.md
	$(BIN)/python benchmarks/prompter.py train --data "$(PROMPTER)" --work "$(WORK)" --name $(NAME) $(if $(filter all,$(NAME)),--all) --seconds $(SLICE)
	$(BIN)/python benchmarks/prompter.py pack --data "$(PROMPTER)" --work "$(WORK)" --name $(NAME)
	$(BIN)/python benchmarks/prompter.py card --data "$(PROMPTER)" $(foreach dir,$(DATA),"$(dir)")

KILLS ?= 50
chaos: $(DEVSTAMP) ## kill -9 whatever a job needs, KILLS=50 times, into docs/reliability.md; most of an hour
	@tests/servers.sh
	$(BIN)/python benchmarks/chaos.py --kills $(KILLS) \
		--json docs/reliability.json --markdown docs/reliability.md $(CHAOSFLAGS)

bench: $(DEVSTAMP) ## ours beside its peers, BENCH="name name" or all, into docs/performance.md
	$(BIN)/python benchmarks/bench.py $(BENCH) --markdown docs/performance.md $(BENCHFLAGS)

bench-gpu: $(DEVSTAMP) ## the rows that need a GPU, into docs/performance.md
	$(BIN)/python benchmarks/bench.py gpu --markdown docs/performance.md $(BENCHFLAGS)

lint: $(DEVSTAMP) ## format, lint, types and import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python tools/structure.py --check

lock: $(DEVSTAMP) ## requirements.lock anew from pyproject.toml, then licences; UPGRADE=1 takes the newest releases
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --quiet \
		--no-emit-index-url --custom-compile-command 'make lock' $(if $(UPGRADE),--upgrade) -o requirements.lock
	$(MAKE) licences

licences: $(DEVSTAMP) ## THIRD_PARTY.md: what the service installs, and under which licences
	$(BIN)/python tools/licences.py

structure: $(DEVSTAMP) ## entries, levels and cycles of the packages; draws docs/images/rooms.svg
	$(BIN)/python tools/structure.py --draw

check: $(DEVSTAMP) lint ## lint and unit tests, under a minute
	$(BIN)/pytest -n 2 -m "not slow and not service"

test: $(DEVSTAMP) $(LABEL_STUDIO)/.installed lint ## everything that is tested
	@tests/servers.sh
	$(BIN)/pytest -n 3 --dist worksteal  # on two cores: many tests wait for processes

docs: $(DEVSTAMP) ## the documentation site, into build/site; broken links fail
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

SCREENSHOTS ?= build/screenshots
test-ui: $(DEVSTAMP) ## the page in Chromium, the whole story included; images of it in SCREENSHOTS=
	@tests/servers.sh chromium
	SCREENSHOTS=$(SCREENSHOTS) $(BIN)/pytest -n 2 --dist worksteal tests/web

format: $(DEVSTAMP) ## rewrite the code in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove what was built, the data of the service stays
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache
