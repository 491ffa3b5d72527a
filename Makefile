# Everything a fresh machine with Python 3.11+, git and make needs; each target sets up first.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.stamp
# A CPU-capable torch is asked for by its exact version before anything else can pull another.
TORCH  := $(shell sed -n 's/^\(torch==.*\)/\1/p' constraints.txt)

export OMP_WAIT_POLICY := PASSIVE
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM := false

.PHONY: climb climb-full climb-logic docs test acceptance lint report clean

$(STAMP)-core: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(STAMP)-climb: $(STAMP)-core
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[search,vision]'
	touch $@

$(STAMP)-dev: $(STAMP)-core
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

climb: $(STAMP)-climb  ## a small vision-language model up all four rungs, on a CPU, in minutes
	$(BIN)/safeladder climb

climb-full: $(STAMP)-climb  ## the same with a larger model and budget and the arms it is read against, within an hour
	$(BIN)/safeladder climb climb_full

climb-logic: $(STAMP)-core  ## a model that reasons through logic puzzles, from nothing
	$(BIN)/safeladder climb first_climb

test: $(STAMP)-dev lint  ## static checks and the test suite
	$(BIN)/python -m pytest -m "not acceptance"

docs: $(STAMP)-dev  ## regenerate docs/cli.md
	$(BIN)/python tools/cli_docs.py

lint: $(STAMP)-dev
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

acceptance: $(STAMP)-dev  ## the long versions; writes acceptance-<date>.json
	$(BIN)/python -m pytest -m acceptance -s

clean:
	rm -rf $(VENV) runs .mypy_cache .ruff_cache .pytest_cache .hypothesis
