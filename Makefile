# Everything runs in its own virtual environment; nothing else on the machine is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN ?= runs/umaze
PIP := -m pip install --quiet --disable-pip-version-check

.PHONY: demo mazes test setup parity docs check fast slow newest extras pins clean

setup: $(VENV)/.installed

$(VENV)/.installed: requirements.txt setup.cfg
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is older than 3.11; run: make PYTHON=/path/to/python3.11"; exit 1; }
	"$(PYTHON)" -m venv $(VENV)
	$(BIN)/python $(PIP) -r requirements.txt
	$(BIN)/python $(PIP) --no-deps -e .
	@touch $@

# The U-maze with its eight goals: data, models, rewards, maps, steering, report.
demo: setup
	$(BIN)/python -m experiments.maze2d --config=configs/maze2d.py:umaze --workdir="$(RUN)"

# All four mazes, each with its eight goals, and their 32 maps in one figure.
MAZES := umaze open medium large

mazes: setup
	@for maze in $(MAZES); do \
	  $(BIN)/python -m experiments.maze2d --config=configs/maze2d.py:$$maze \
	    --workdir=runs/$$maze || exit 1; \
	done
	$(BIN)/python -m experiments.report $(MAZES:%=runs/%) --out runs/report

# Style, types, import contract, fast tests.
test: check fast

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright --pythonpath $(BIN)/python

fast: setup
	$(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder -m "not slow"

# Also the tests that take minutes each.
slow: setup
	$(BIN)/python -m pytest

# The comparisons with PyTorch and Hugging Face's libraries, which `make test` skips.
parity: $(VENV)/.parity
	$(BIN)/python -m pytest -n 2 --dist loadscope -m "parity and not slow"

$(VENV)/.parity: requirements-parity.txt $(VENV)/.installed
	$(BIN)/python $(PIP) -r requirements-parity.txt
	@touch $@

# The documentation as a site, build/docs/index.html; a broken link or a public name without
# words fails. It runs the tutorial (two minutes) and fetches nothing.
docs: $(VENV)/.docs
	rm -rf build/docs
	$(BIN)/python -m sphinx --quiet --fresh-env --fail-on-warning --keep-going \
	  -d build/doctrees docs build/docs
	$(BIN)/python -m docs.reference.offline build/docs

$(VENV)/.docs: requirements-docs.txt $(VENV)/.installed
	$(BIN)/python $(PIP) -r requirements-docs.txt
	@touch $@

# The newest releases of everything, on the newest Python of PATH or of pyenv.
PYTHON_NEWEST ?= $(shell for v in 15 14 13 12; do \
	for p in python3.$$v "$$HOME"/.pyenv/versions/3.$$v.*/bin/python; do \
	"$$p" -c "" 2> /dev/null && { echo "$$p"; exit; }; done; done)
NEWEST_BIN := .venv-newest/bin
NEWEST_TESTS := tests/card tests/cli tests/data tests/interop tests/report tests/train

newest:
	@"$(PYTHON_NEWEST)" -c 'import sys; sys.exit(sys.version_info < (3, 12))' || \
	  { echo "error: no Python 3.12 or newer; run: make newest PYTHON_NEWEST=/path/to/it"; exit 1; }
	"$(PYTHON_NEWEST)" -m venv .venv-newest
	$(NEWEST_BIN)/python $(PIP) --upgrade --upgrade-strategy eager -e '.[dev,images]'
	$(NEWEST_BIN)/python -m pytest -n 2 --dist loadscope -m "not slow" $(NEWEST_TESTS)
	rm -rf build/newest
	$(NEWEST_BIN)/python -m experiments.images --config=configs/images.py:digits,smoke \
	  --workdir=build/newest

# The README's commands, each in a fresh environment with only what it names (half an hour;
# `make extras EXTRAS="rl wheel"` tries some).
extras:
	"$(PYTHON)" tests/fresh_environments.py $(EXTRAS)

# Writes requirements*.txt: the releases that are tested, the same on Python 3.11 to 3.14.
# Keeps what stands there and still fits; `make pins UPGRADE=--upgrade` takes the newest.
UV = build/pins/bin/uv pip compile --quiet --universal --python-version 3.11 \
	--fork-strategy fewest --no-annotate --custom-compile-command "make pins" $(UPGRADE)

# The others are what an extra adds. PyTorch's CUDA packages are left out: each build of
# PyTorch names its own exactly, and the one for CPUs names none.
pins:
	"$(PYTHON)" -m venv build/pins
	build/pins/bin/python $(PIP) uv
	$(UV) --extra dev --extra images setup.cfg -o requirements.txt
	grep '^[^#]' requirements.txt > build/pins/base
	for extra in parity docs; do \
	  $(UV) --extra dev --extra images --extra $$extra -c requirements.txt setup.cfg \
	    -o requirements-$$extra.txt && \
	  grep -vxFf build/pins/base requirements-$$extra.txt | \
	    grep -vE '^(nvidia-|cuda-|triton)' > build/pins/added && \
	  cp build/pins/added requirements-$$extra.txt || exit 1; \
	done

clean:
	rm -rf $(VENV) .venv-newest build src/*.egg-info
