# Cutover's commands. Each does its own set-up: .venv from requirements.lock, and the Debian packages that it needs.
# What is set on the command line (SOURCE=... TARGET=...) reaches the programs as environment variables: make exports it.

PYTHON ?= python3
PYTEST_ARGS ?=
TEST_WORKERS ?= 2
BENCH_ARGS ?=
LOCK_ARGS ?=
MYPY_PATHS := $(wildcard services shared tests benchmarks demo docs)

# mkfs, losetup and their like are in /usr/sbin, which an ordinary PATH lacks.
export PATH := $(PATH):/usr/sbin:/sbin

VENV := .venv
BIN := $(VENV)/bin
LOCKED := $(VENV)/.locked
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help venv demo docs test test-long sim lint format bench bench-full bench-map lock clean packages-demo packages-test packages-bench
.PHONY: lint-code lint-format lint-types lint-imports judges nats-cli compose-cli asyncapi-parser promtool

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

demo: $(INSTALLED) packages-demo ## Migrate a live volume from end to end and prove it; or SOURCE=... TARGET=... of your own
	@$(BIN)/python -m demo

test: $(INSTALLED) packages-test ## Run every test; PYTEST_ARGS="tests/unit -k name" runs some, TEST_WORKERS=1 one at a time
	@$(MAKE) --no-print-directory --jobs judges
	@$(BIN)/python -m pytest --numprocesses $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

# Programs that tests ask for their verdict. One waits for a registry while another is compiled.
judges: nats-cli compose-cli asyncapi-parser promtool

lint: lint-code lint-format lint-types lint-imports ## Linters, formatter, types, and who may import whom

lint-code: $(INSTALLED)
	@$(BIN)/ruff check .

lint-format: $(INSTALLED)
	@$(BIN)/ruff format --check .

lint-types: $(INSTALLED)
	@$(BIN)/mypy $(MYPY_PATHS)

lint-imports: $(INSTALLED)
	@$(BIN)/lint-imports --no-cache

format: $(INSTALLED) ## Mend what ruff can mend by itself
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

test-long: $(INSTALLED) packages-test ## All crash cases, ten minutes of fuzzing, 100,000 simulated lives: some hours
	@CRASH_CASES=all FUZZ_SECONDS=600 $(BIN)/python -m pytest tests/crashes tests/fuzz $(PYTEST_ARGS)
	@$(MAKE) --no-print-directory sim SEEDS=100000

sim: $(INSTALLED) ## Simulate lives of the whole system: SEEDS=2000 of them, or replay one with SEED=123
	@PYTHONPATH=. $(BIN)/python -m tests.simulation $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),2000) --first $(or $(FIRST),0))

bench: $(INSTALLED) packages-bench ## Measure what the ratios need, under 10 minutes; writes benchmarks/results.json
	@$(BIN)/python -m benchmarks $(BENCH_ARGS)

bench-full: $(INSTALLED) packages-bench ## Measure every case; writes benchmarks/results.json
	@$(BIN)/python -m benchmarks --full --caching buffered large_folios direct $(BENCH_ARGS)

bench-map: $(INSTALLED) packages-bench ## Measure what the region map saves after a kill, and costs before it; as root
	@$(BIN)/python -m benchmarks.resync $(BENCH_ARGS)

venv: $(INSTALLED) ## Only make .venv, with the `cutover` command in .venv/bin

docs: $(INSTALLED) ## Bring the generated parts of docs/ up to date
	@PYTHONPATH=. $(BIN)/python docs/generate.py
	@PYTHONPATH=. $(BIN)/python docs/security.py

lock: ## Renew requirements.lock; LOCK_ARGS=--upgrade takes the newest versions
	@PYTHON="$(PYTHON)" tools/lock $(LOCK_ARGS)

clean: ## Remove everything that the other commands made
	rm -rf $(VENV) .cache build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

$(LOCKED): requirements.lock tools/make-venv
	@tools/make-venv "$(PYTHON)" $(VENV)
	@touch $@

$(INSTALLED): $(LOCKED) pyproject.toml
	@$(BIN)/python -m pip --quiet --disable-pip-version-check install --no-deps --no-index --no-build-isolation --editable .
	@touch $@

packages-demo packages-test packages-bench: packages-%:
	@tools/debian-packages $*

nats-cli compose-cli asyncapi-parser promtool:
	@tools/$@
