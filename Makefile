# The commands of this repository. A person and CI type the same ones.
#
# Every target works on a fresh machine with Python >= 3.11, venv and make: tools live in a private environment,
# rebuilt when pyproject.toml changes. What an environment holds is marked by files inside it: `.ready-base` (the
# package and greenlet), `.ready-dev` (plus what tests and linters need), `.ready-bench` and `.ready-bench-http` (plus
# the peers of the benchmarks).
#
#   PYTHON=python3.13   the interpreter that builds the environment ("make clean" before changing it)
#   VENV=.venv          where the environment lives
#   ARGS="-k timers"    passed on to pytest, to the demo or to the benchmarks

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
PYTHONS ?= python3.11 python3.12 python3.13
TEST_BACKENDS ?=
TEST_JOBS ?= 1

PY := $(VENV)/bin/python
PIP := $(PY) -m pip --quiet --disable-pip-version-check
PYTEST := $(PY) -m pytest
TESTED := PYTHONPATH=tests $(PY) -m support.tested

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help test pytest lint format types examples test-backends test-other-backends test-checked test-fake-kqueue \
  tested matrix soak fuzz demo bench bench-backends bench-http bench-hostile test-asyncio test-gevent test-integration \
  test-cpython clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-19s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

test: lint types pytest ## everything: format, lint, types, the whole suite (what CI runs)

pytest: $(VENV)/.ready-dev ## the suite alone (ARGS="-k name")
	@$(PYTEST) $(ARGS)

lint: $(VENV)/.ready-dev ## check format and lint
	@$(PY) -m ruff format --quiet --check . || { echo "formatting differs in the files below: make format"; \
	  $(PY) -m ruff format --check .; exit 1; }
	@$(PY) -m ruff check --quiet .

format: $(VENV)/.ready-dev ## rewrite files in the project's format
	@$(PY) -m ruff check --quiet --fix-only .
	@$(PY) -m ruff format --quiet .

types: $(VENV)/.ready-dev ## mypy --strict
	@$(PY) -m mypy

examples: $(VENV)/.ready-dev ## run every example, every block of the README and of docs
	@$(PYTEST) tests/test_examples.py tests/test_readme.py tests/test_docs.py tests/testing/test_docs.py $(ARGS)

test-backends: $(VENV)/.ready-dev ## the whole suite on every event loop usable here (TEST_BACKENDS="poll libevent" TEST_JOBS=2)
	@$(call on_each_of,left)

test-other-backends: $(VENV)/.ready-dev ## the same without the loop that `make test` takes: for running both at once
	@$(call on_each_of,others)

# The suite on the loops of TEST_BACKENDS, or else on those that `support.tested $(1)` names, TEST_JOBS of them at once.
define on_each_of
backends="$(TEST_BACKENDS)"; \
	[ -n "$$backends" ] || backends="$$($(TESTED) $(1))" || exit 1; \
	printf '%s\n' $$backends | xargs -P $(TEST_JOBS) -I NAME sh -c ' \
	  FIBERS_EVENTLOOP=NAME $(PYTEST) -q $(ARGS) > $(VENV)/test-NAME.log 2>&1; status=$$?; \
	  echo "== event loop: NAME"; cat $(VENV)/test-NAME.log; exit $$status'
endef

test-checked: $(VENV)/.ready-dev ## the whole suite on loops that check their contract (FIBERS_EVENTLOOP chooses which)
	@FIBERS_DEBUG=loop $(PYTEST) -q $(ARGS)

test-gevent: $(VENV)/.ready-dev ## gevent's own tests on fibers.compat.gevent (ARGS="test__pool -k map")
	@PYTHONPATH=tests $(PY) -m support.gevent_suite $(ARGS)

test-fake-kqueue: $(VENV)/.ready-dev ## the whole suite on the kqueue loop, over a fake kqueue (Linux)
	@PYTHONPATH=$(CURDIR)/tests/support/fake_kqueue_site$${PYTHONPATH:+:$$PYTHONPATH} FIBERS_TEST_FAKE_KQUEUE=1 \
	  FIBERS_EVENTLOOP=kqueue $(PYTEST) -q $(ARGS)

test-asyncio: $(VENV)/.ready-dev ## CPython's own tests of asyncio, on the loop of fibers.asyncio (ARGS="test_streams", ARGS=--plain)
	@PYTHONPATH=tests $(PY) -m support.asyncio_suite $(ARGS)

test-cpython: ## CPython's own tests on fibers: not in "make test" (PYTHON=python3.13 ARGS="test_socket -v")
	@version=$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])') || exit 1; \
	venv=.venv-$$version-cpython; \
	$(MAKE) --no-print-directory --silent $$venv/.ready-base PYTHON=$(PYTHON) VENV=$$venv && \
	$$venv/bin/python -m fibers pth install >/dev/null && \
	PYTHONPATH=tests $$venv/bin/python -m cpython $(ARGS)

tested: $(VENV)/.ready-dev ## fail if an event loop was left out (of the runs that FIBERS_TESTED=FILE kept a record of)
	@$(TESTED) check

matrix: ## the whole suite on every Python of PYTHONS that this machine has
	@ran=0; failed=; for python in $(PYTHONS); do \
	  if version=$$($$python -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null); then \
	    echo "== Python $$version"; ran=1; \
	    $(MAKE) --no-print-directory pytest PYTHON=$$python VENV=.venv-$$version ARGS="-q $(ARGS)" \
	      || failed="$$failed $$version"; \
	  else echo "== $$python: not on this machine, left out"; fi; done; \
	if [ $$ran = 0 ]; then echo "none of these works here: $(PYTHONS)" >&2; exit 1; fi; \
	if [ -n "$$failed" ]; then echo "failed on:$$failed" >&2; exit 1; fi

soak: $(VENV)/.ready-dev ## the suite at full size: long random tests, new seeds
	@FIBERS_TEST_SCALE=1 $(PYTEST) --timeout=1800 $(ARGS)

test-integration: $(VENV)/.ready-dev ## real drivers and frameworks at full size, on every event loop usable here
	@backends="$(TEST_BACKENDS)"; \
	[ -n "$$backends" ] || backends="$$(FIBERS_TESTED= $(TESTED) left)" || exit 1; \
	for name in $$backends; do \
	  FIBERS_EVENTLOOP=$$name FIBERS_TEST_SCALE=1 $(PYTEST) --timeout=600 -q tests/integration $(ARGS) || exit 1; done

fuzz: $(VENV)/.ready-dev ## ten minutes of broken requests for the HTTP server (ARGS="--seconds 60 --seed 1")
	@PYTHONPATH=tests $(PY) -m support.http_fuzz $(ARGS)

demo: $(VENV)/.ready-base ## watch 1,000 connections talk
	@$(PY) -m fibers demo $(ARGS)

bench: $(VENV)/.ready-bench ## compare with gevent, asyncio, uvloop, trio, eventlet
	@$(PY) -m bench $(ARGS)

bench-backends: $(VENV)/.ready-base ## compare the event loops, and draw the README's table of them
	@$(PY) -m bench.backends $(ARGS)

bench-http: $(VENV)/.ready-bench-http ## compare the HTTP server with gunicorn, uvicorn, granian, nginx and others
	@.ci/debian-bench-http.sh
	@$(PY) -m bench.http $(ARGS)

bench-hostile: $(VENV)/.ready-base ## what HTTP clients that mean harm cost the others (ARGS="--rounds 9")
	@$(PY) -m bench.hostile $(ARGS)

clean: ## remove environments, builds and caches
	@rm -rf .venv .venv-* build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .benchmarks
	@find fibers tests bench examples -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

$(VENV)/.ready-base: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	  || { echo "fibers needs Python 3.11 or newer, and PYTHON=$(PYTHON) is not" >&2; exit 1; }
	@echo "building $(VENV)"
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@$(PIP) install --editable .
	@touch $@

$(VENV)/.ready-dev: $(VENV)/.ready-base
	@echo "installing the development tools into $(VENV)"
	@$(PIP) install --editable '.[dev]'
	@touch $@

$(VENV)/.ready-bench: $(VENV)/.ready-base
	@echo "installing the peers of the benchmarks into $(VENV)"
	@$(PIP) install --editable '.[bench]'
	@touch $@

$(VENV)/.ready-bench-http: $(VENV)/.ready-base
	@echo "installing the peers of the HTTP server into $(VENV)"
	@$(PIP) install --editable '.[bench-http]'
	@touch $@
