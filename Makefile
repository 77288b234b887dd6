# Each target sets itself up on a machine that has only Python (3.11 or 3.12) and make; what tests need from
# Debian is installed where we may.
PYTHON ?= python3
READY := .venv/ready

# What torch's products do on a processor without AVX-512: bf16 is slow there, and 32-bit products take other paths.
AVX2 := ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2
AVX2_TESTS := device golden_models metrics embedder export training model

.PHONY: demo test test-avx2 check clean

demo: $(READY)
	rm -rf demo
	.venv/bin/resight demo --out demo

test: $(READY)
	.venv/bin/pytest -n 2 --dist worksteal

test-avx2: $(READY)
	$(AVX2) .venv/bin/pytest -n 2 --dist worksteal $(AVX2_TESTS:%=tests/test_%.py)
	rm -rf demo-avx2
	$(AVX2) .venv/bin/resight demo --out demo-avx2 --epochs 3
	rm -rf demo-avx2

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
