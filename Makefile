# make demo: the whole way on simulated scenes, with a picture at the end
# make test: lint and tests
# make bench: speed and memory, against the released way and this machine's limits; BENCH=--quick for a minute's look

PYTHON ?= python3
BIN = .venv/bin

demo: .venv/installed
	$(BIN)/python demo.py

test: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

# made anew when the requirements change; removed first, so that a half-made one is not taken for whole
.venv/installed: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=python3.11")'
	rm -rf .venv
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements.txt -e '.[app,tensorboard,browser]'
	touch $@

bench: .venv/installed
	cd benchmarks && ../$(BIN)/python bench.py $(BENCH)

.PHONY: bench demo test
