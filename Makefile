# `make train` and `make test` set up everything they need, once, and then run.
#
#   make train      the main job on embedded real images (scikit-learn's digits)
#   make test       the tests, without those marked slow
#   make test-all   `make test`, then the slow ones
#   make setup      only the virtual environment and the pinned install
#   make clean      removes what these commands made, except the runs/ directory
#
# Variables: PYTHON (interpreters to try, in this order), VENV, PYTEST_ARGS.

PYTHON ?= python3.13 python3.12 python3.11 python3
VENV ?= .venv
# One process per core, each with its own TensorFlow: at most 4, since each takes about 1 GB.
PYTEST_ARGS ?= -n auto --maxprocesses=4 --dist=loadfile --no-loadscope-reorder

python := $(VENV)/bin/python
installed := $(VENV)/.installed
digits := data/digits/manifest.json

# Both print nothing; the exit status is the answer. They have to parse under any Python.
is_supported := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
has_venv := import ensurepip, venv

.PHONY: setup train test test-all clean
.NOTPARALLEL:

setup: $(installed)

train: $(digits)
	$(python) -m inception_tf.train --gin_file=configs/digits.gin

test: $(installed)
	$(python) -m pytest -m "not slow" $(PYTEST_ARGS)

test-all: test
	$(python) -m pytest -m "slow" $(PYTEST_ARGS)

clean:
	rm -rf $(VENV) data/digits build dist *.egg-info .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(digits): | $(installed)
	$(python) -m inception_tf.records build digits --out data/digits

# An environment that a removed or another Python left behind is made anew.
$(installed): setup.py pyproject.toml constraints.txt
	@if ! $(python) -c '$(is_supported)' 2>/dev/null || ! $(python) -m pip --version >/dev/null 2>&1; then \
	  chosen=; without_venv=; \
	  for candidate in $(PYTHON); do \
	    if $$candidate -c '$(is_supported)' 2>/dev/null; then \
	      if $$candidate -c '$(has_venv)' 2>/dev/null; then chosen=$$candidate; break; fi; \
	      without_venv="$$without_venv $$candidate"; \
	    fi; \
	  done; \
	  if [ -z "$$chosen" ] && [ -n "$$without_venv" ]; then \
	    echo "inception_tf:$$without_venv cannot make a virtual environment (no ensurepip)." \
	      "On Debian or Ubuntu: apt install python3-venv, then this command again." >&2; exit 1; \
	  fi; \
	  if [ -z "$$chosen" ]; then \
	    echo "inception_tf needs Python 3.11, 3.12 or 3.13 (Keras 3.15 runs on nothing older);" \
	      "none was found as: $(PYTHON). Install one, or name it: make PYTHON=/path/to/python3.12 ..." >&2; exit 1; \
	  fi; \
	  echo "$$chosen -m venv --clear $(VENV)"; \
	  "$$chosen" -m venv --clear $(VENV); \
	fi
	$(python) -m pip install --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@
