# gatewayd: every target does its own set-up; nothing needs to be installed or started first but Python (3.11 to 3.14) and make.
# Set-ups are redone when the requirement files change: each leaves a stamp file in the environment it made.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

VENV := .venv
BIN := $(VENV)/bin
# The scripts in models need packages of their own to be type-checked; their lint is part of `check` all the same.
CHECKED := gatewayd tests prove bench

PIP_INSTALL = install --quiet --disable-pip-version-check --require-hashes
PROJECT = --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .

# The first interpreter of the list that is new enough and can make environments (a pyenv shim may stand for none).
PYTHON ?= $(shell scripts/find-python 3.11 3.14 python3 python3.13 python3.12 python3.11 python3.14)

# tflite-runtime has wheels for Python 3.9 to 3.11 only; workers are programs of their own, so another one than ours will do.
PYTHON_TFLITE_RUNTIME ?= $(shell scripts/find-python 3.9 3.11 python3.11 $(BIN)/python python3 python3.10 python3.9)

DEV := $(VENV)/.dev-stamp
# A developer's environment holds all that the demonstration needs.
DEMO := $(if $(wildcard $(DEV)),$(DEV),$(VENV)/.demo-stamp)
BENCH_PEERS := build/bench-mlserver-venv/.stamp build/bench-kserve-venv/.stamp
TFLITE_RUNTIME := build/tflite-runtime-venv/.stamp
OPENVINO := build/openvino-venv/.stamp
MODELS := build/models-venv/.stamp
BENCH_MODELS := build/bench-models/.stamp
PLUGINS := build/plugins-venv/.stamp

.PHONY: help
help: ## show this list
	@grep -hE '^[a-z][a-z0-9-]*:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /  make \1\t/' | expand -t 26

.PHONY: demo
demo: $(DEMO) ## the main job on three simulated boards, over MQTT and LwM2M, in the terminal (DEMO_ARGS=--stay keeps it running)
	$(BIN)/python -m gatewayd demo $(DEMO_ARGS)

.PHONY: run
run: $(DEMO) build/run/gatewayd.yaml ## the daemon with an embedded broker and its state in build/run (CONFIG=FILE for another)
	$(BIN)/python -m gatewayd run --config $(or $(CONFIG),build/run/gatewayd.yaml)

build/run/gatewayd.yaml:
	mkdir -p $(@D)
	printf '%s\n' 'node: {name: gateway-1, data_dir: data}' 'mqtt: {embedded: {enabled: true}}' > $@

.PHONY: test
test: $(DEV) $(TFLITE_RUNTIME) $(OPENVINO) $(PLUGINS) ## all tests, with the reason of each that is skipped (PYTEST_ARGS=... for some)
	scripts/install-test-tools
	$(BIN)/python -m pytest -ra $(PYTEST_ARGS)

.PHONY: coverage
coverage: $(DEV) ## branch coverage of the tests in this process (what child processes run is not counted)
	$(BIN)/coverage run -m pytest -q $(PYTEST_ARGS)
	$(BIN)/coverage report --skip-covered --sort=cover

.PHONY: check
check: $(DEV) ## format, lint, types, and the rules of the house
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy $(CHECKED)
	$(BIN)/python -m pytest tests/test_architecture.py tests/test_house.py

.PHONY: bench-preflight
bench-preflight: $(DEV) $(BENCH_MODELS) ## does pre-flight tell the truth? (GATEWAYD_BENCH_MODELS=FOLDER for more models)
	PYTHONPATH=$(dir $(BENCH_MODELS)) $(BIN)/python -m bench.preflight $(BENCH_ARGS)

.PHONY: fuzz-models
fuzz-models: $(DEV) ## 10,000 broken and insane model files through admission (BENCH_ARGS='--count N --seed N')
	$(BIN)/python -m bench.fuzz_models $(BENCH_ARGS)

.PHONY: fuzz-lwm2m
fuzz-lwm2m: $(DEV) ## 20,000 malformed LwM2M messages through every reader, as many datagrams at a daemon, at DTLS and at OSCORE (BENCH_ARGS='--count N --seed N')
	$(BIN)/python -m bench.fuzz_lwm2m $(BENCH_ARGS)
	$(BIN)/python -m bench.fuzz_lwm2m_daemon $(BENCH_ARGS)
	$(BIN)/python -m bench.fuzz_dtls $(BENCH_ARGS)
	$(BIN)/python -m bench.fuzz_dtls_daemon $(BENCH_ARGS)
	$(BIN)/python -m bench.fuzz_oscore $(BENCH_ARGS)

.PHONY: bench-worker
bench-worker: $(DEV) ## what a worker process costs beside a bare ping-pong and a call without one
	$(BIN)/python -m bench.worker

.PHONY: bench-isolation
bench-isolation: $(DEV) ## what a model that crashes or hangs does to another one
	$(BIN)/python -m bench.isolation

.PHONY: soak-node
soak-node: $(DEV) ## a million requests with a thousand hot swaps: no failure, no growth (REQUESTS=, SWAPS=)
	$(BIN)/python -m bench.soak_node

.PHONY: models
models: $(MODELS) ## train the project's own models again and compare them with the committed files
	build/models-venv/bin/python models/speaker/train.py --check

.PHONY: bench-restart
bench-restart: $(DEV) ## a gateway killed beside 1,000 pushes in every state: how soon it serves again, how they end (5 minutes)
	$(BIN)/python -m bench.restart $(BENCH_ARGS)

.PHONY: chaos-mqtt
chaos-mqtt: $(DEV) ## 105,000 MQTT commands through a proxy that duplicates, drops and resets, restarts and SIGKILLs: each obeyed once
	$(BIN)/python -m bench.chaos_mqtt $(CHAOS_ARGS)
	$(BIN)/python -m bench.chaos_mqtt --forget --commands 1000

.PHONY: chaos-leaving
chaos-leaving: $(DEV) ## 200 devices revoked or forgotten over MQTT, the daemon SIGKILLed within milliseconds: once, whole, with the true answer
	$(BIN)/python -m bench.chaos_leaving $(CHAOS_ARGS)
	$(BIN)/python -m bench.chaos_leaving --forget --rounds 20

.PHONY: prove-unbrickable
prove-unbrickable: $(DEV) ## cut a push everywhere, on both sides, then 100,000 times twice; about twelve minutes (PROVE_ARGS=--pairs=1000 for less)
	$(BIN)/python -m prove.unbrickable $(PROVE_ARGS)

.PHONY: prove-mutants
prove-mutants: $(DEV) ## disable each safety rule in turn: the proof has to notice
	$(BIN)/python -m prove.mutants

.PHONY: prove-bits
prove-bits: $(DEV) ## flip every bit of manifest, signature, artifact and stream: both ends refuse it
	$(BIN)/python -m prove.bits

.PHONY: prove-files
prove-files: $(DEV) ## the gateway's files after a power cut at every write and sync, un-synced writes dropped (needs gcc)
	$(BIN)/python -m prove.files

.PHONY: bench-push
bench-push: $(DEV) ## how long a model travels over CoAP: link profiles, loss, many at once (BENCH_ARGS=--quick for one size)
	$(BIN)/python -m bench.push $(BENCH_ARGS)

.PHONY: bench-runs
bench-runs: $(DEV) ## round trips of one inference on a device over CoAP: read or notified, with loss
	$(BIN)/python -m bench.runs $(BENCH_ARGS)

.PHONY: bench-registry
bench-registry: $(DEV) ## the registry with 1,000 versions: resolve, start, storage, two operators at once
	$(BIN)/python -m bench.registry

.PHONY: bench-mqtt
bench-mqtt: $(DEV) ## small inferences over MQTT beside an echo, a loop with LiteRT and the bare bones (GATEWAYD_BENCH_MODELS=FOLDER)
	$(BIN)/python -m bench.mqtt $(BENCH_ARGS)

.PHONY: prove-registry
prove-registry: $(DEV) ## power cuts over admission, alias moves and garbage collection, at every step of their disk work
	$(BIN)/python -m bench.registry_cuts

.PHONY: bench-decision
bench-decision: $(DEV) ## how long a decision takes at 1,000 devices x 20 models, index included, and what a pair weighs
	$(BIN)/python -m bench.decision $(BENCH_ARGS)

.PHONY: bench-replay
bench-replay: $(DEV) ## 100,000 logged decisions replayed, and how often the interval of another policy's estimate holds
	$(BIN)/python -m bench.replay $(BENCH_ARGS)

.PHONY: bench-agreement
bench-agreement: $(DEV) ## does the simulator agree with the real daemon and boards? ten scenarios, 5 minutes (BENCH_ARGS='--seed N --only N')
	$(BIN)/python -m bench.agreement $(BENCH_ARGS)

.PHONY: bench-node
bench-node: $(DEV) $(BENCH_PEERS) ## the node over HTTP beside bare aiohttp, MLServer and KServe (models: GATEWAYD_BENCH_MODELS=FOLDER)
	$(BIN)/python -m bench.node $(BENCH_ARGS)

.PHONY: bench-lwm2m
bench-lwm2m: $(DEV) ## the daemon with 1,000 LwM2M devices: its loop, its memory, 1,000 updates a second (BENCH_ARGS='--seconds 8')
	$(BIN)/python -m bench.lwm2m $(BENCH_ARGS)

.PHONY: fuzz-http
fuzz-http: $(DEV) build/fuzz-http-venv/.stamp ## schemathesis against the OpenAPI description of a running daemon (FUZZ_ARGS=...)
	$(BIN)/python -m bench.fuzz_http $(FUZZ_ARGS)

.PHONY: fuzz-mqtt
fuzz-mqtt: $(DEV) ## 12,000 bad payloads over MQTT: one error each, memory flat (FUZZ_ARGS='--count N --seed N')
	$(BIN)/python -m bench.fuzz_mqtt $(FUZZ_ARGS)

.PHONY: prove-http
prove-http: $(DEV) ## 10,000 connections, slow and lying clients, while requests are counted
	$(BIN)/python -m bench.hostile_http

.PHONY: test-triton
test-triton: $(DEV) build/tritonclient-venv/.stamp ## an unmodified tritonclient against a running daemon
	$(BIN)/python -m pytest -ra tests/edges/test_http_triton.py

.PHONY: bench-placement
bench-placement: $(DEV) ## how near the optimum placement comes: seeded scenarios against a clairvoyant and five policies (10 minutes on two cores)
	$(BIN)/python -m bench.placement $(BENCH_ARGS)

.PHONY: bench-cascade
bench-cascade: $(DEV) ## second opinions on real recordings: what a cascade saves against the big model on the device
	$(BIN)/python -m bench.cascade $(BENCH_ARGS)

.PHONY: docs
docs: $(DEV) ## write docs/asyncapi.yaml anew from the verb table
	scripts/render-docs $(BIN)/python

.PHONY: lock
lock: $(DEV) ## pin the newest versions that requirements/*.in allow, with their hashes
	scripts/lock-requirements $(BIN)/uv

.PHONY: clean
clean: ## remove everything that a target made
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage*
	find gatewayd tests models -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.demo-stamp $(DEV): $(VENV)/.%-stamp: requirements/%.txt pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip $(PIP_INSTALL) -r $<
	$(BIN)/python -m pip install $(PROJECT)
	touch $@

$(BIN)/python:
	$(call need,$(PYTHON),Python 3.11 to 3.14 with the modules venv and ensurepip (Debian: apt install python3 python3-venv))
	$(PYTHON) -m venv $(VENV)

# Optional: the tests of this engine say that they are skipped when its environment could not be made.
$(TFLITE_RUNTIME): requirements/tflite-runtime.txt
	mkdir -p build
	if [ -z "$(PYTHON_TFLITE_RUNTIME)" ]; then \
	    echo "no Python 3.9 to 3.11 here: tests of tflite-runtime will be skipped"; \
	elif $(PYTHON_TFLITE_RUNTIME) -m venv --clear $(@D) && $(@D)/bin/python -m pip $(PIP_INSTALL) -r $<; then \
	    touch $@; \
	else \
	    rm -rf $(@D); echo "tflite-runtime could not be installed: its tests will be skipped"; \
	fi

# Optional in the same way: ONNX Runtime and OpenVINO.
$(OPENVINO): requirements/openvino.txt | $(BIN)/python
	mkdir -p build
	if $(BIN)/python -m venv --clear $(@D) && $(@D)/bin/python -m pip $(PIP_INSTALL) -r $<; then \
	    touch $@; \
	else \
	    rm -rf $(@D); echo "openvino and onnxruntime could not be installed: their tests will be skipped"; \
	fi

# Environments of their own: a peer to measure beside, a client or a tool to test with. Each from its hashed requirements.
build/tritonclient-venv/.stamp build/fuzz-http-venv/.stamp $(BENCH_PEERS): build/%-venv/.stamp: requirements/%.txt
	$(call need,$(PYTHON),Python 3.11 to 3.14 with the modules venv and ensurepip (Debian: apt install python3 python3-venv))
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/python -m pip $(PIP_INSTALL) -r $<
	touch $@

# Optional: the tests of the compiler plugins say that they are skipped when their environment could not be made.
$(PLUGINS): requirements/plugins.txt
	$(call need,$(PYTHON),Python 3.11 to 3.14 with the modules venv and ensurepip (Debian: apt install python3 python3-venv))
	mkdir -p build
	if $(PYTHON) -m venv --clear $(@D) && $(@D)/bin/python -m pip $(PIP_INSTALL) -r $<; then \
	    touch $@; \
	else \
	    rm -rf $(@D); echo "the compiler plugins' tools could not be installed: their tests will be skipped"; \
	fi

# The data set's package is wanted for its files only; with what it depends on it would be a gigabyte.
$(MODELS): requirements/models.txt requirements/models-data.txt
	$(call need,$(PYTHON),Python 3.11 to 3.14 with the modules venv and ensurepip (Debian: apt install python3 python3-venv))
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/python -m pip $(PIP_INSTALL) -r requirements/models.txt
	$(@D)/bin/python -m pip $(PIP_INSTALL) --no-deps -r requirements/models-data.txt
	touch $@

# Optional: the benchmark says when these models are left out.
$(BENCH_MODELS): requirements/bench-models.txt | $(BIN)/python
	rm -rf $(@D); mkdir -p $(@D)
	if $(BIN)/python -m pip $(PIP_INSTALL) --no-deps --target $(@D) -r $<; then touch $@; \
	else echo "pymicro-wakeword could not be installed: its models are left out"; fi

need = $(if $(strip $(1)),,$(error nothing fits: this needs $(2)))
