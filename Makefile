# Two commands do everything on a fresh Debian or Ubuntu machine with Python 3.11, git and make:
#   make demo   the main job end to end          make test   all checks and tests
# The distribution's Python goes first: it is built with profile-guided optimisation, which one that was compiled by hand
# often is not (a node then takes a tenth to a third more time), and is mended with the system. PYTHON=... takes another.
ifndef PYTHON
PYTHON  := $(shell for each in /usr/bin/python3.11 python3.11 python3; do \
  "$$each" -c 'import ensurepip, venv' 2>/dev/null && command -v "$$each" && exit; \
  done; command -v python3.11 || command -v python3)
endif
VENV    := .venv
BIN     := $(VENV)/bin
ITEMS   ?= 10000000
# of an item: with so many, a table of 20 GB
BYTES   ?= 1500
SYSTEM  := bubblewrap openssh-client libseccomp2 curl gnupg iproute2 faketime slirp4netns
COMPILER := gcc libc6-dev $(shell "$(PYTHON)" -c 'import sys; print("python%d.%d-dev" % sys.version_info[:2])' 2>/dev/null)
TESTED  := docker.io nodejs npm pebble postgresql wrk

.DEFAULT_GOAL := help
.PHONY: help setup pure system tested compiled demo test check format soak bench docs lock oracle names differ clean

help:           ## what there is
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | sort | expand -t 12

setup: $(VENV)/.ready   ## make .venv with everything that is pinned in requirements.lock; compile what is hot
	@$(BIN)/python hatch_build.py

pure: $(VENV)/.ready    ## take away what was compiled: all is interpreted, as it stands in the sources
	@$(BIN)/python hatch_build.py --pure

$(VENV)/.ready: requirements.lock pyproject.toml owsgit/__init__.py
	@test -n "$(PYTHON)" || { echo "owsgit needs Python 3.11 or newer: install python3 and python3-venv" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is older than Python 3.11: set PYTHON=/path/to/python3.11" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
	  test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get update -qq && apt-get install -y -qq python3-venv >/dev/null; } || { \
	  echo "$(PYTHON) has no venv module: install python3-venv" >&2; exit 1; }
	"$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

system:         ## system packages: installed when root on Debian or Ubuntu, else named
	@sh tests/system-packages $(SYSTEM)

tested: system  ## what the tests try functions and tables with, besides: Docker, Node.js, a C compiler, PostgreSQL
	@PYTHON="$(PYTHON)" sh tests/system-packages $(COMPILER) $(TESTED)

demo: system $(VENV)/.ready   ## the main job end to end; KEEP=1 leaves it running
	@$(BIN)/python -m demo

check: $(VENV)/.ready  ## ruff, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

compiled: tested $(VENV)/.ready
	@$(BIN)/python hatch_build.py

test: system $(VENV)/.ready  ## all checks and tests
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=recurse compiled check
	$(BIN)/python -m pytest

soak: system tested setup   ## longer fuzzing and load than make test
	OWSGIT_SOAK=1 $(BIN)/python -m pytest --timeout 3600
	$(BIN)/python -m differ
	$(BIN)/python -m bench.tables_large --items $(ITEMS) --bytes $(BYTES)

format: setup   ## rewrite the code in the one style
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: setup     ## generate docs/reference and schemas from the models
	$(BIN)/python -m docs.generate

bench: system tested setup  ## all benchmarks, quick
	@for name in policies verify push nodes catch_up simulation idle coldstart invoke async_queue tables_engine gateway; do $(BIN)/python -m bench.$$name --quick || exit 1; done

lock: setup     ## pin the newest versions in requirements.lock
	@$(BIN)/python -c 'import tomllib; found = tomllib.load(open("pyproject.toml", "rb")); \
	  print("\n".join(found["project"]["dependencies"] + found["dependency-groups"]["dev"]))' > requirements.in
	$(BIN)/pip-compile --quiet --upgrade --generate-hashes --allow-unsafe --strip-extras --no-annotate --no-header \
	  --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-emit-options \
	  --output-file requirements.lock requirements.in
	@rm requirements.in

oracle: setup oracle/node_modules/.ready   ## compare decisions with another policy simulator (npm, a development tool)
	$(BIN)/python -m oracle

names: setup oracle/node_modules/.ready   ## add AWS's newest actions and condition keys to the known ones
	$(BIN)/python -m oracle.names

differ: setup system tested   ## compare tables with other implementations of DynamoDB (npm, PyPI)
	$(BIN)/python -m differ

oracle/node_modules/.ready: oracle/package-lock.json
	@command -v npm >/dev/null || { echo "npm is missing: install Node.js 18 or newer" >&2; exit 1; }
	cd oracle && npm ci --no-audit --no-fund --silent
	@touch $@

clean:          ## forget what make made
	find owsgit -name '*.so' -delete
	rm -rf $(VENV) .mypyc owsgit/compiled.json owsgit__mypyc.*.so .demo .mypy_cache .ruff_cache .pytest_cache .import_linter_cache oracle/node_modules
