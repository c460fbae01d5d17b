# Everything runs in its own virtual environment; nothing else on the machine is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN ?= runs/umaze

.PHONY: demo test setup parity check fast slow clean

setup: $(VENV)/.installed

$(VENV)/.installed: requirements.txt setup.cfg
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is older than 3.11; run: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

# PyTorch and Hugging Face's libraries, so that `make test` also compares with them.
parity: $(VENV)/.parity

$(VENV)/.parity: requirements-parity.txt $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-parity.txt
	@touch $@

# The U-maze with its eight goals: data, models, rewards, maps, steering, report.
demo: setup
	$(BIN)/python -m experiments.maze2d --config=configs/maze2d.py:umaze --workdir=$(RUN)

# Style, types, import contract, fast tests.
test: check fast

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright --pythonpath $(BIN)/python

fast: setup
	$(BIN)/python -m pytest -n 2 --dist loadscope -m "not slow"

# Also the tests that take minutes each.
slow: setup
	$(BIN)/python -m pytest

clean:
	rm -rf $(VENV) build src/*.egg-info
