# Two commands for newcomers: `make demo` and `make test`. Both set up .venv by themselves.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test lint docs clean

demo: $(VENV)/.installed  ## the main job: 6 encoders x 4 tasks; tables, plots and report.html in results/
	$(BIN)/python lineval.py --report

test: $(VENV)/.tested  ## all tests, offline
	$(BIN)/python -m pytest -n auto --maxprocesses=4

lint: $(VENV)/.linted
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.documented  ## the website in site/; runs the notebooks; a warning is an error
	$(BIN)/python docs/make_task_pages.py --check
	$(BIN)/python docs/make_encoder_pages.py --check
	NO_MKDOCS_2_WARNING=1 PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m mkdocs build --quiet --strict

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml
	$(PIP) -e .
	touch $@

# The packages that our encoders are compared with are installed without what they depend on: years-old pins.
# Not after .installed: the tests want a torch that torchaudio fits, and several GB need not come twice.
$(VENV)/.tested: $(VENV)/bin/python pyproject.toml tests/requirements-parity.txt
	$(PIP) -e ".[test]"
	$(PIP) --no-deps -r tests/requirements-parity.txt
	touch $(VENV)/.installed $@

$(VENV)/.linted: $(VENV)/.installed
	$(PIP) -e ".[dev]"
	touch $@

$(VENV)/.documented: $(VENV)/.installed
	$(PIP) -e ".[docs]"
	touch $@

clean:
	rm -rf $(VENV) build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache
