# Each target builds what it needs on a machine that has Python (3.11 or later) and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO ?=
TESTS ?=
SECONDS ?= 60
SEED ?=

.PHONY: demo test fuzz lint bench bench-compat bench-network docs peers clean

demo: $(VENV)/.runtime
	@$(BIN)/armillary demo $(DEMO)

test: lint peers
	$(BIN)/python -m pytest -n 2 --dist loadfile $(TESTS)

# New cases for so many seconds each, or those from a seed on: `make fuzz SECONDS=600 SEED=17`. What is found is
# printed with its seed.
fuzz: $(VENV)/.dev
	$(BIN)/python tests/network/protocol/test_packet_fuzz.py $(SECONDS) $(SEED)
	$(BIN)/python tests/network/test_manager_fuzz.py $(SECONDS) $(SEED)
	$(BIN)/python tests/network/test_chaos_in_memory.py $(SECONDS) $(SEED)

lint: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/flake8 src compat/src benchmarks docs/examples
	@# Tests swallow cancellations and open needless nurseries to see what happens then.
	$(BIN)/flake8 --disable=ASYNC102,ASYNC103,ASYNC104,ASYNC109,ASYNC112,ASYNC114,ASYNC124,ASYNC128,ASYNC9 tests
	$(BIN)/mypy

bench: $(VENV)/.dev peers
	$(BIN)/python -m benchmarks.katcp

bench-compat: $(VENV)/.dev peers
	$(BIN)/python -m benchmarks.aiokatcp
	$(BIN)/python -m benchmarks.compat crossings
	$(BIN)/python -m benchmarks.msl_network

bench-network: $(VENV)/.dev peers
	$(BIN)/python -m benchmarks.network

docs: $(VENV)/.docs
	$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html
	@echo "open docs/_build/html/index.html"

# Foreign implementations from PyPI, each in an environment of its own: interop tests and benchmarks speak with them.
peers: .peers/aiokatcp/.ready .peers/katcp/.ready .peers/msl_network/.ready

.peers/aiokatcp/.ready:
	$(PYTHON) -m venv .peers/aiokatcp
	.peers/aiokatcp/bin/pip install --quiet --disable-pip-version-check 'aiokatcp==2.3.0' uvloop
	@touch $@

# katcp 0.9.3 imports pkg_resources, which newer setuptools no longer carries.
.peers/katcp/.ready:
	$(PYTHON) -m venv .peers/katcp
	.peers/katcp/bin/pip install --quiet --disable-pip-version-check 'katcp==0.9.3' 'setuptools<81'
	@touch $@

# msl-network 1.0.0 asks certificates for dates without a time zone, which cryptography 50 still tells, with a warning.
.peers/msl_network/.ready:
	$(PYTHON) -m venv .peers/msl_network
	.peers/msl_network/bin/pip install --quiet --disable-pip-version-check 'msl-network==1.0.0' 'cryptography<51'
	@touch $@

$(VENV)/.runtime: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(BIN)/pip install --quiet --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime compat/pyproject.toml
	$(BIN)/pip install --quiet --editable ./compat
	$(BIN)/pip install --quiet --group dev
	@touch $@

$(VENV)/.docs: $(VENV)/.runtime
	$(BIN)/pip install --quiet --group docs
	@touch $@

clean:
	rm -rf $(VENV) .peers docs/_build
