# keepwarm: `make help` lists the targets. Each sets up what it needs below this folder; only
# python3, make and a package index are taken for granted.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
UV := .tools/bin/uv
BIN := .venv/bin
SOURCES := autoscaling manifests predictors protocol transformers
SCRIPTS = .ci/run $(shell find manifests tests -name '*.sh')
LOCKED := tools build dev transformer predictor-cpu predictor-gpu demo perf controller mlserver simfaas swarm litellm

.PHONY: help
help: ## Print the targets
	@grep -hE '^[a-z][a-z0-9-]*:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## (.*)/  make \1\t\2/' | expand -t 18

.PHONY: run
run: .venv/.ready ## Serve a real model here (MODEL=folder, NAME=name, ARGS="--http-port 8000")
	@$(BIN)/keepwarm run $(if $(MODEL),--model $(MODEL)) $(if $(NAME),--name $(NAME)) $(ARGS)

.PHONY: test
test: .venv/.ready ## Run all tests that need no cluster (ARGS="-k chat")
	$(BIN)/pytest $(ARGS)

.PHONY: check
check: .venv/.ready ## Lint, types, generated files and requirements
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/shellcheck $(SCRIPTS)
	$(BIN)/mypy $(SOURCES)
	$(BIN)/python tests/generated.py check
	@$(MAKE) check-lock

.PHONY: check-lock
check-lock: .tools/.ready
	@fresh=$$(mktemp -d); trap 'rm -rf "$$fresh"' EXIT; \
	cp requirements/*.txt "$$fresh"; \
	$(MAKE) lock OUT="$$fresh"; \
	diff -rq -x README.md requirements "$$fresh" || { echo 'requirements are out of date: run make lock' >&2; exit 1; }; \
	echo 'requirements are current'

.PHONY: e2e
e2e: .venv/.ready ## Run the end-to-end tests on a cluster (KUBECONFIG=..., or the one kept beside this folder)
	tests/e2e/run.sh $(ARGS)

.PHONY: conformance
conformance: .venv/.ready ## Test any V2 server (URL=http://HOST:PORT GRPC_URL=HOST:PORT MODEL=name ARGS="-k b3")
	@mkdir -p build
	$(BIN)/python -m pytest tests/conformance -q --tb=short --junitxml=build/conformance.xml --url '$(URL)' \
	$(if $(GRPC_URL),--grpc-url '$(GRPC_URL)') --model '$(MODEL)' $(ARGS)

.PHONY: conformance-table
conformance-table: .venv/.ready ## Compare ours, stock KServe and MLServer: writes docs/conformance.md
	@$(UV) venv --quiet --allow-existing --python '>=3.11,<3.13' build/mlserver
	@$(UV) pip sync --quiet --python build/mlserver requirements/mlserver.txt
	$(BIN)/python tests/conformance/comparison/run.py $(ARGS)

.PHONY: fuzz
fuzz: .venv/.ready ## Fuzz the decoders (ARGS="--seconds 600 chat v2_infer")
	$(BIN)/python tests/fuzz/campaign.py $(ARGS)

.PHONY: bench
bench: .venv/.ready build/litellm/.ready ## Measure all that the transformer costs, beside the others, and judge the targets
	$(BIN)/python perf/codec.py
	$(BIN)/python perf/cache_hit.py --json build/bench/cache_hit.json
	$(BIN)/python perf/hop.py --json build/bench/hop.json
	$(BIN)/python perf/stages.py --json build/bench/stages.json
	$(BIN)/python perf/streams.py --json build/bench/streams.json
	$(BIN)/python perf/idle_streams.py --json build/bench/idle_streams.json
	$(BIN)/python perf/wanted.py build/bench

.PHONY: bench-codec
bench-codec: .venv/.ready ## Measure decoding and encoding a request, beside KServe's
	$(BIN)/python perf/codec.py $(ARGS)

.PHONY: bench-hit
bench-hit: .venv/.ready ## Measure a cache hit beside a bare answer of the same bytes
	$(BIN)/python perf/cache_hit.py $(ARGS)

.PHONY: bench-hop
bench-hop: .venv/.ready build/litellm/.ready ## Measure a request's cost beside KServe's, a bare proxy's and LiteLLM's
	$(BIN)/python perf/hop.py $(ARGS)

.PHONY: bench-stages
bench-stages: .venv/.ready ## Measure what each of the transformer's stages costs a request, by turning it off
	$(BIN)/python perf/stages.py $(ARGS)

.PHONY: bench-streams
bench-streams: .venv/.ready build/litellm/.ready ## Measure what a proxy adds to a stream's tokens, in time and CPU
	$(BIN)/python perf/streams.py $(ARGS)

.PHONY: bench-idle
bench-idle: .venv/.ready ## Measure the memory of 5,000 open streams
	$(BIN)/python perf/idle_streams.py $(ARGS)

.PHONY: bench-compare
bench-compare: .venv/.ready ## Fail when a request, hit or token has become dearer than it landed (ARGS="--margin 0.2")
	$(BIN)/python perf/guard.py $(ARGS)

.PHONY: bench-land
bench-land: .venv/.ready ## Keep what bench-compare measures as what landed
	$(BIN)/python perf/guard.py --land $(ARGS)

# With GPU=1 in an environment of their own: the vLLM in .venv computes on the CPU.
EXPERIMENTS := $(if $(GPU),build/gpu/bin,$(BIN))/python perf/experiments
EXPERIMENTS_READY := $(if $(GPU),build/gpu,.venv)/.ready

.PHONY: bench-hit-ratio
bench-hit-ratio: $(EXPERIMENTS_READY) ## Find the hit ratio that 1000 rps with P99 under 500 ms needs (ARGS="--engine h200-fp8")
	$(EXPERIMENTS) hit-ratio $(ARGS)

.PHONY: bench-baseline
bench-baseline: $(EXPERIMENTS_READY) ## Offer 50 to 200 rps to the engine alone and behind keepwarm (on a GPU: GPU=1 ARGS="--engine ours --engine raw --model FOLDER")
	$(EXPERIMENTS) baseline $(ARGS)

.PHONY: bench-peak
bench-peak: $(EXPERIMENTS_READY) ## The same at 500 to 1000 rps, with and without cache and shedding (ARGS=--full)
	$(EXPERIMENTS) peak $(ARGS)

.PHONY: bench-limit
bench-limit: $(EXPERIMENTS_READY) ## The same at 1000 to 2000 rps
	$(EXPERIMENTS) limit $(ARGS)

.PHONY: bench-cache
bench-cache: $(EXPERIMENTS_READY) ## Compare no cache, one in process, and Redis behind it, by prompt length at 500 rps
	$(EXPERIMENTS) cache $(ARGS)

.PHONY: bench-batch
bench-batch: $(EXPERIMENTS_READY) ## Sweep batch sizes in bf16 and fp8, and try what keepwarm engine advise makes of it
	$(EXPERIMENTS) batch $(ARGS)

.PHONY: bench-burst
bench-burst: .venv/.ready ## Burst from 50 to 1000 rps on a cluster, divided by a stated factor (KUBECONFIG=... ARGS="--scale 10")
	$(EXPERIMENTS) burst $(ARGS)

.PHONY: bench-all
bench-all: .venv/.ready ## Run those seven, write build/bench/report.html (about 25 minutes; without a cluster, no burst)
	$(EXPERIMENTS) all $(ARGS)

build/litellm/.ready: requirements/litellm.txt .tools/.ready
	@$(UV) venv --quiet --allow-existing --python '>=3.11,<3.13' build/litellm
	@$(UV) pip sync --quiet --python build/litellm --compile-bytecode $<
	@touch $@

.PHONY: overload
overload: .venv/.ready ## Measure goodput over load, with and without shedding (ARGS="--svg overload.svg")
	$(BIN)/python perf/overload.py $(ARGS)

.PHONY: locust
locust: build/locust/.ready ## Run a Locust scenario (URL=http://HOST:PORT SCENARIO=peak ARGS="--stage-seconds 60")
	build/locust/bin/locust -f perf/locustfile.py --headless --only-summary --host '$(URL)' \
	$(if $(SCENARIO),--scenario $(SCENARIO)) $(ARGS)

.PHONY: chaos
chaos: .venv/.ready ## Kill and freeze processes at random under load (ARGS="--faults 50 --seed 1")
	$(BIN)/python tests/chaos $(ARGS)

.PHONY: bench-kpa
bench-kpa: .venv/.ready ## Measure the twin of the autoscaler beside its reference and SimFaaS (ARGS="--policies 50")
	@$(UV) venv --quiet --allow-existing --python '>=3.11,<3.13' build/simfaas
	@$(UV) pip sync --quiet --python build/simfaas requirements/simfaas.txt
	$(BIN)/python perf/kpa_engine.py $(ARGS)

.PHONY: generate
generate: .venv/.ready ## Make the gRPC stubs and the reference pages in docs/ anew
	$(BIN)/python tests/generated.py write

.PHONY: format
format: .venv/.ready ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: clean
clean: ## Remove what make has set up here
	rm -rf .venv .tools .mypy_cache .pytest_cache .ruff_cache .hypothesis dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- requirements -----------------------------------------------------------
OUT := requirements
compile = UV_CUSTOM_COMPILE_COMMAND='make lock' $(UV) pip compile --quiet --universal \
	--generate-hashes --no-annotate --python-version 3.11 $(UPGRADE) --output-file $(OUT)/$@.txt
CPU := --overrides requirements/overrides-cpu.txt
TESTED := --constraints $(OUT)/dev.txt

.PHONY: lock
lock: .tools/.ready ## Compile requirements/*.txt from pyproject.toml (UPGRADE=--upgrade renews the pins)
	@$(MAKE) $(LOCKED) OUT=$(OUT) UPGRADE=$(UPGRADE)

.PHONY: $(LOCKED)
tools: # without the project's environments: any python3 may install uv
	@$(compile) --no-config --group $@
build mlserver simfaas swarm litellm:
	@$(compile) --group $@
dev:
	@$(compile) pyproject.toml --extra demo --group dev $(CPU)
controller: dev
	@$(compile) --group $@ $(TESTED)
transformer perf: dev
	@$(compile) pyproject.toml --extra $@ $(TESTED)
predictor-cpu demo: dev
	@$(compile) pyproject.toml --extra $@ $(CPU) $(TESTED)
predictor-gpu:
	@$(compile) pyproject.toml --extra $@

# --- set-up -----------------------------------------------------------------
.tools/.ready: requirements/tools.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 9) and "python3 must be 3.9 or newer")'
	@$(PYTHON) -m venv --clear .tools || { echo 'python3 lacks venv: install it (Debian: python3-venv)' >&2; exit 1; }
	@.tools/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

build/gpu/.ready: requirements/predictor-gpu.txt pyproject.toml .tools/.ready
	@echo 'setting up build/gpu (vLLM for CUDA, about 10 GB)'
	@$(UV) venv --quiet --allow-existing --python '>=3.11,<3.13' build/gpu
	@$(UV) pip sync --quiet --python build/gpu --compile-bytecode $<
	@$(UV) pip install --quiet --python build/gpu --no-deps --build-constraints requirements/build.txt --editable .
	@touch $@

build/locust/.ready: requirements/swarm.txt .tools/.ready
	@$(UV) venv --quiet --allow-existing --python '>=3.11,<3.13' build/locust
	@$(UV) pip sync --quiet --python build/locust requirements/swarm.txt
	@touch $@

# Compiled here once: vLLM's import takes 20 s longer, in two processes, without its .pyc files.
.venv/.ready: requirements/dev.txt pyproject.toml .tools/.ready
	@echo 'setting up .venv (about 6 GB; a minute or two the first time)'
	@$(UV) venv --quiet --allow-existing --python '>=3.11,<3.13' .venv
	@$(UV) pip sync --quiet --python .venv --compile-bytecode requirements/dev.txt
	@$(UV) pip install --quiet --python .venv --no-deps --no-build-isolation --editable .
	@touch $@
