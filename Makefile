# make demo, make test, make bench, ...: each sets up $(VENV) first, once. See CONTRIBUTING.md for the rest.
PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.nl_detectron

.PHONY: setup demo test test-slow test-all bench gpu soak evidence lint format clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt tools/make_environment.py tools/install_detectron2.py $(wildcard tools/pure_detectron2/*)
	$(PYTHON) tools/make_environment.py $(VENV)
	@touch $@

demo: $(READY)
	$(RUN) -W ignore projects/far_context/demo.py --output output/demo

test: $(READY)
	$(RUN) -m pytest -n 2 --dist worksteal -m "not slow"

test-slow: $(READY)
	$(RUN) -m pytest -n 2 --dist worksteal -m "slow and not long" --durations 25

test-all: test
	$(RUN) -m pytest -n 2 --dist worksteal -m slow --durations 25

bench: $(READY)
	$(RUN) -W ignore tools/benchmark.py --output output/benchmark

gpu: $(READY)
	$(RUN) -W ignore tools/gpu.py --output output/gpu

soak: $(READY)
	$(RUN) -W ignore tools/soak.py --output output/soak

evidence: $(READY)
	$(RUN) -W ignore projects/far_context/experiment.py --output output/experiment --jobs 2

lint: $(READY)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

format: $(READY)
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

# Not $(VENV), which may be an environment of the user's.
clean:
	rm -rf .venv build *.egg-info output/demo output/benchmark output/gpu output/soak
