# make demo   train, export and inspect a synthetic part on this machine, CPU only
# make quick  tests that trace, compile and start nothing
# make test   those too that do
# make check  format check, lint, types and the same tests, as CI does
# make all-tests  those too that are long; before a release

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo

.DELETE_ON_ERROR:
.PHONY: demo quick test check all-tests format lint types lock clean

# One stamp for each set of extras; both install at the versions of constraints.txt.
$(VENV)/demo.stamp $(VENV)/dev.stamp: $(VENV)/%.stamp: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --progress-bar off \
	    --constraint constraints.txt --editable '.[$*]'
	touch $@

# The main job, from pictures to verdicts, with the commands that a user would type. Training starts from weights that
# took an hour (see train/pretrained/plate); from random ones, minutes are not enough.
demo: $(VENV)/demo.stamp
	rm -rf $(DEMO)
	$(BIN)/python -m stlm_edge.plate $(DEMO)/data --train 200 --test-good 40 --defects 10
	$(BIN)/python -m train fit --preset train/pretrained/plate/demo.yaml \
	    --initial-weights train/pretrained/plate/model.safetensors --learning-rate 3e-4 --epochs 4 \
	    --data $(DEMO)/data --category plate --output $(DEMO)/run
	$(BIN)/python -m train evaluate $(DEMO)/run/model.safetensors --data $(DEMO)/data --category plate
	$(BIN)/python -m export onnx $(DEMO)/run/model.safetensors --output $(DEMO)/plate.onnx --data $(DEMO)/data/plate/test
	$(BIN)/python -m export openvino $(DEMO)/plate.onnx --output $(DEMO)/plate.xml --precision auto \
	    --data $(DEMO)/data --category plate
	$(BIN)/python -m runtime.camera --engine $(DEMO)/plate.xml \
	    --source 'test://?frames=200&defect-rate=0.2&seed=1&size=256x256' \
	    --output $(DEMO)/inspection.mp4 --output $(DEMO)/events.jsonl --summary $(DEMO)/summary.json
	$(BIN)/python -m benchmarks.demo $(DEMO)

# A worker for each core, but no more than memory has room for; each computes on one core. Whoever is done takes tests
# from another, so that those of one file mostly share a worker and what it has made. WORKERS=0: all in one process.
WORKERS ?= auto
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(WORKERS) --maxprocesses 4 --dist worksteal

# The real pycuda for its tests; it is kept, and where there is no g++ they are skipped, which is said.
$(VENV)/pycuda.stamp: $(VENV)/dev.stamp tests/runtime/gpu/libcuda/build_pycuda.py
	$(BIN)/python tests/runtime/gpu/libcuda/build_pycuda.py
	touch $@

quick: $(VENV)/dev.stamp
	$(PYTEST) -m "not heavy and not slow and not gpu"

test: $(VENV)/pycuda.stamp
	$(PYTEST) -m "not slow"

all-tests: $(VENV)/pycuda.stamp
	$(PYTEST)

check: lint types test

lint: $(VENV)/dev.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/hadolint docker/*.Dockerfile

types: $(VENV)/dev.stamp
	$(BIN)/mypy

format: $(VENV)/dev.stamp
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Needs uv (https://docs.astral.sh/uv): one resolution that holds on every supported Python.
lock:
	uv pip compile --quiet --universal --python-version 3.10 --no-header --no-annotate \
	    --no-emit-package stlm-edge --extra demo --extra dev --extra headless pyproject.toml --output-file constraints.txt
	sed -i "1i # What a fresh machine installs. Made by 'make lock' from pyproject.toml; one file for Python 3.10 to 3.13." \
	    constraints.txt

clean:
	rm -rf $(VENV) $(DEMO)
