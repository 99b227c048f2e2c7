# The commands of the README. What is longer than a line or two is in a script beside what it serves.
#
# Everything uses one cargo profile and one choice of packages for the binaries, so that the dependencies
# are compiled once for lint, test, conformance, demo and bench together.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory
.PHONY: run test build demo lint conformance ci bench sim cluster rocksdb
.DEFAULT_GOAL := build

# A shell that was open before rustup's installation does not have its folder in the path yet.
export PATH := $(PATH):$(or $(CARGO_HOME),$(HOME)/.cargo)/bin
TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
export HOLDFAST_BIN := $(TARGET)/release/holdfast
DATA_DIR ?= ./holdfast-data

run: build ## serve on 127.0.0.1:7233 with durable data in DATA_DIR
	@echo "data: $(abspath $(DATA_DIR))"
	@exec $(HOLDFAST_BIN) server start --data-dir "$(DATA_DIR)"

test: build ## every test
	cargo test --release --workspace
	api/tests/python/run.sh

build: rocksdb ## the release binary
	cargo build --release -p holdfast-api -p holdfast-benches --bins

demo: build ## one workflow on a throw-away server
	$(dir $(HOLDFAST_BIN))demo

bench: build ## the table of benches/RESULTS.md
	$(dir $(HOLDFAST_BIN))bench

lint: rocksdb
	cargo fmt --all --check
	cargo lint

conformance: ## the golden kit, held against api/tests/conformance.passing
	@if [ -d ../shared/conformance ]; then $(MAKE) build && api/tests/conformance.sh; \
	else echo "conformance: ../shared/conformance is absent, nothing to compare with"; fi

ci:
	@times=; trap 'echo "ci:$$times; $$SECONDS s in all"' EXIT; \
	for phase in rocksdb lint test conformance; do \
		began=$$SECONDS; ok=; $(MAKE) $$phase && ok=1; \
		times+="  $$phase $$((SECONDS - began)) s"; [ $$ok ] || { times+=" FAILED"; exit 1; }; \
	done

# The choice of packages is that of `test`, so that the dependencies are compiled once.
sim: rocksdb ## many seeds of the simulator; prints the seed of any failure
	cargo build --profile dist -p holdfast-sim
	@exec $(TARGET)/dist/holdfast-sim swarm --minutes $(or $(MINUTES),5) $(if $(SEEDS),--seeds $(SEEDS)) $(if $(SCENARIO),--scenario $(SCENARIO))

cluster:
	@echo "cluster: will start three nodes on this machine as one cluster (not built yet)"

rocksdb: ## RocksDB and libclang, once per machine
	@storage/rocksdb/build.sh >/dev/null
