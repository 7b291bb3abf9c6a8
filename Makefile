# make demo, make test: each sets up $(VENV) first, once. See CONTRIBUTING.md for the rest.
PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.nl_detectron

.PHONY: setup demo test lint format clean

setup: $(READY)

# A Detectron2 that $(PYTHON) or $(VENV) imports already is kept, together with the torch it was built
# for: $(VENV) sees the packages of $(PYTHON) then, through a .pth file. Else everything is installed, at the
# tested versions of constraints.txt.
$(READY): pyproject.toml constraints.txt tools/install_detectron2.py
	@$(PYTHON) -c "import sys; v = sys.version_info; sys.exit(v < (3, 11) and 'nl_detectron needs Python 3.11 or newer; $(PYTHON) is %d.%d' % v[:2])"
	@test -x $(RUN) || { $(PYTHON) -m venv $(VENV) && $(PYTHON) -c "import detectron2, site; print(*('import site; site.addsitedir(%r)' % folder for folder in site.getsitepackages()), sep='\n')" \
		> $(VENV)/host.pth 2>/dev/null && mv $(VENV)/host.pth $(VENV)/lib/python3*/site-packages/ || rm -f $(VENV)/host.pth; }
	@if $(RUN) -c "import detectron2" 2>/dev/null; \
		then $(RUN) tools/install_detectron2.py && $(RUN) -m pip install --quiet -e '.[dev]'; \
		else $(RUN) -m pip install --quiet -c constraints.txt torch torchvision setuptools wheel && \
			$(RUN) tools/install_detectron2.py -c constraints.txt && \
			$(RUN) -m pip install --quiet -c constraints.txt -e '.[dev]'; fi
	@$(RUN) -c "import cv2" || { echo "error: OpenCV lacks system libraries: install them (Debian: apt-get install libgl1 libglib2.0-0), or opencv-python-headless into $(VENV)"; exit 1; }
	@touch $@

demo: $(READY)
	$(RUN) tools/shapes_demo.py --output output/demo

test: $(READY)
	$(RUN) -m pytest -n 2

lint: $(READY)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

format: $(READY)
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

clean:
	rm -rf $(VENV) build *.egg-info output/demo
