# Each of demo and test sets itself up on a machine that has only Python (3.11 or 3.12) and make; what tests need from
# Debian is installed where we may.
PYTHON ?= python3
READY := .venv/ready

.PHONY: demo test check clean

demo: $(READY)
	rm -rf demo
	.venv/bin/resight demo --out demo

test: $(READY)
	.venv/bin/pytest -n 2 --dist worksteal

check: $(READY)
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/basedpyright
	.venv/bin/lint-imports

$(READY): pyproject.toml
	bash .ci/debian
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check --editable ".[dev]"
	touch $(READY)

clean:
	rm -rf .venv demo runs .pytest_cache .ruff_cache .hypothesis
