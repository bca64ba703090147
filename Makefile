# make setup     .venv with codegen in it, and the system packages (YES=1: sudo without asking)
# make run       compile the example network for a Jetson Nano, or for this machine
# make test      setup, ruff, the quick tests
# make test-all  the slow ones too;  make test-rl  the search, with its heavy packages

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.setup
BOARD := jetson-nano-cpu
MODEL := examples/models/mlperf_ic_resnet8.onnx
OUT := build/resnet8

.PHONY: setup run lint test test-all test-rl peers table clean

setup: $(STAMP)

$(STAMP): pyproject.toml .ci/setup.sh
	VENV=$(VENV) sh .ci/setup.sh
	@touch $@

# PyPI's torch for Linux brings CUDA, gigabytes that nothing here uses. TORCH_INDEX: a package index
# with wheels without it; TORCH: the requirement, where only some version has such a wheel.
TORCH := torch
$(VENV)/.setup-rl: $(STAMP)
	$(BIN)/pip install --quiet $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) '$(TORCH)'
	$(BIN)/pip install --quiet --editable '.[rl,test]'
	@touch $@

# A board that cannot be built for and run here gives way to this machine.
run: setup
	@board=$(BOARD); $(BIN)/codegen doctor --board $$board >/dev/null || \
	    { echo "no compiler or emulator for $$board here: board local"; board=local; }; \
	set -x; $(BIN)/codegen build $(MODEL) --board $$board --out $(OUT)

lint: setup
	$(BIN)/ruff check .

test: lint
	$(BIN)/pytest -n auto -m "not slow"

test-all: lint
	$(BIN)/pytest -n auto

# Other engines on the same networks: what is missing in benchmarks/results, then docs/BENCHMARKS.md.
peers: setup
	$(BIN)/python -m benchmarks.peers

# The table of networks in README.md.
table: setup
	$(BIN)/python benchmarks/table.py

test-rl: $(VENV)/.setup-rl
	$(BIN)/pytest -m rl

clean:
	rm -rf $(VENV) build .cache .pytest_cache .ruff_cache .hypothesis *.egg-info
