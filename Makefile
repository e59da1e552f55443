# Every target sets up what it needs by itself; all it asks of the machine is Python 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.9
STAMP := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup check test test-postgres15 test-kafka demo demo-check bench schemas

help:  ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 18

setup: $(STAMP)  ## make .venv with everything locked, and the telltale command in it

$(STAMP): pyproject.toml uv.lock
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@$(BIN)/uv sync --frozen --quiet --all-extras --inexact
	@touch $(STAMP)

check: setup  ## lint, types, import layers, unit tests: before every commit
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m pytest -q -m unit

test: setup  ## the whole suite on the embedded broker and PostgreSQL
	$(BIN)/python -m pytest -q -m "not kafka"

test-postgres15: setup  ## the store's tests on Debian's PostgreSQL 15 (package postgresql-15)
	TELLTALE_TEST_POSTGRES=debian15 $(BIN)/python -m pytest -q tests/store -m "not timescaledb"

test-kafka: setup  ## ingest and end-to-end suites on Apache Kafka (needs Java 17 and Maven)
	TELLTALE_TEST_KAFKA=apache $(BIN)/python -m pytest -q $(wildcard tests/broker tests/ingest tests/e2e)

bench: setup  ## how fast, how late, how much memory; results of the last run are in benchmarks/RESULTS.md
	$(BIN)/python benchmarks/decode.py
	$(BIN)/python benchmarks/shapes.py
	$(BIN)/python benchmarks/safety.py
	$(BIN)/python -m benchmarks.ingest
	$(BIN)/python -m benchmarks.latency
	$(BIN)/python -m benchmarks.memory
	test -z "$(TELLTALE_TEST_DATA)" || $(BIN)/python -m benchmarks.cell_fault

schemas: setup  ## write the contracts that are made from code into schemas/
	$(BIN)/python schemas/write.py

demo: setup  ## a simulated fleet on the embedded engines, opened in the browser
	$(BIN)/telltale demo

demo-check: setup  ## run the demo for 60 s without a browser, then print its accounts
	$(BIN)/telltale demo --check --seconds 60 --data-dir .telltale/check
