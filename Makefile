# Each target sets itself up on a machine that has only Python (3.11 or 3.12) and make; what tests need from
# Debian is installed where we may.
PYTHON ?= python3
READY := .venv/ready

# With these variables, torch and OpenVINO compute as on a processor without AVX-512: bf16 is slow there.
AVX2 := ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2
AVX2_TESTS := tests/test_device.py tests/models tests/retrieval tests/inference/test_embedder.py \
	tests/inference/test_export.py tests/training/test_training.py --deselect tests/models/test_published_weights.py \
	--deselect tests/models/test_published_cnn.py --deselect tests/models/test_convert_broken.py

.PHONY: demo test test-slow test-avx2 check clean

demo: $(READY)
	rm -rf demo
	.venv/bin/resight demo --out demo

test: $(READY)
	.venv/bin/pytest -n 2 --dist worksteal

# Tests that take ten seconds or more: processes that are killed, clusters, compilers, published models of full size.
# They wait much of the time, so three run at once.
test-slow: $(READY)
	.venv/bin/pytest -n 3 --dist worksteal -m slow

test-avx2: $(READY)
	$(AVX2) .venv/bin/pytest -n 2 --dist worksteal $(AVX2_TESTS)
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
