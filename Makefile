# make demo: the five commands on simulated scenes, with pictures at the end
# make test: style, types, tests without the slow ones
# make test-all: with them
# make bench: speed and memory against the released way and the limits of this machine; BENCH=--quick takes a minute
# make gpu: below ten minutes on a GPU: tests, training speed and memory, resume, torchrun; a table and a plan

PYTHON ?= python3
BIN = .venv/bin

demo: .venv/installed
	$(BIN)/python demo.py

PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist worksteal

test: style
	$(PYTEST) -m "not slow"

test-all: style
	$(PYTEST)

style: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright --pythonpath $(BIN)/python

# made again when the requirements change; removed first, so that an interrupted install does not count as complete
.venv/installed: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=python3.11")'
	rm -rf .venv
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements.txt -e '.[test]'
	touch $@

bench: .venv/installed
	cd benchmarks && ../$(BIN)/python bench.py $(BENCH)

gpu: .venv/installed
	cd benchmarks && ../$(BIN)/python gpu.py

.PHONY: bench demo gpu style test test-all
