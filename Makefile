PYTHON ?= python3
BIN := .venv/bin

export DO_NOT_TRACK := 1
export MLFLOW_DISABLE_TELEMETRY := true
export PREFECT_SERVER_ANALYTICS_ENABLED := false

.PHONY: bench demo test up down lock

# the stamp is newer than the lock file once everything is installed
.venv/installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@

demo: .venv/installed
	$(BIN)/python -m flows.tai --profile demo

up: .venv/installed
	$(BIN)/python -m tasks.serving.services up

down:
	$(BIN)/python -m tasks.serving.services down

test: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 3 --dist loadfile

# ratios against the plain way, a line each in benchmarks/figures.jsonl, and README's table of them;
# many minutes on a quiet machine
BENCHMARKS := step ranking encode score end_to_end labels labelled ingest refresh image_sets \
	image_parts scheduler heads
bench: .venv/installed
	$(BIN)/python -m benchmarks.record $(BENCHMARKS) --table

# needs uv on the PATH; no host is written
lock:
	uv pip compile pyproject.toml --extra dev --python-version 3.11 --no-header --no-annotate \
		--output-file requirements.lock
	sed -i '1i # Every version pinned; made by: make lock' requirements.lock
