# Every chore has its target here; `make` lists them. Needs a Rust toolchain (with a C compiler to link, as Rust does),
# make, bash, and for the servers under test a Debian machine; no root.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

CARGO ?= cargo
# .cargo/config.toml names the target, so that what is built is in a folder of that name.
HOST := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
BINARY := $(abspath $(or $(CARGO_TARGET_DIR),target))/$(HOST)/release/valkeeper
ROLLING := $(dir $(BINARY))examples/rolling_restart
VALKEY := $(CURDIR)/target/valkey
SCRIPTS := .ci/run $(wildcard scripts/*.sh)

# Tests, benches and the testbed have threads, children and a real clock of their own, and a test that is wrong about
# its own premises should panic. The program itself keeps every rule of clippy.toml and of [workspace.lints].
IN_TESTS := disallowed_methods disallowed_types unwrap_used expect_used panic indexing_slicing print_stdout print_stderr
ALLOW_IN_TESTS := $(IN_TESTS:%=--allow clippy::%)

.PHONY: help
help: ## List the targets (default)
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: demo
demo: valkey build ## See a cluster form itself on this machine, and its pods restarted under clients that write
	$(CARGO) build --release --package testbed --example rolling_restart
	VALKEEPER='$(BINARY)' VALKEY_BIN='$(VALKEY)/9.1/bin' ROLLING_RESTART='$(ROLLING)' scripts/demo.sh

# The release binary is built first: one test looks at it.
.PHONY: test
test: valkey build ## Run all tests, on every version of the server
	VALKEEPER_RELEASE_BINARY='$(BINARY)' scripts/summarise-tests.sh \
	    scripts/run-tests.sh $(CARGO) --workspace --exclude containers --all-features

# Inside, there is no network to fetch anything from.
.PHONY: test-containers
test-containers: valkey build ## Run the image, the compose file and the chart's pod with a Docker engine; takes root
	$(CARGO) test --package containers --no-run
	scripts/fetch-helm.sh
	VALKEEPER_RELEASE_BINARY='$(BINARY)' RUST_TEST_THREADS=1 RUST_TEST_NOCAPTURE=1 scripts/summarise-tests.sh \
	    scripts/with-docker.sh scripts/run-tests.sh $(CARGO) --offline --package containers

.PHONY: test-chart
test-chart: build ## Render the chart with Helm 3 and 4, and check what comes out of it
	scripts/fetch-helm.sh
	VALKEEPER='$(BINARY)' target/chart/venv/bin/python -B tests/chart/run.py

# Where images are pushed to: REPOSITORY=registry.example/team
REPOSITORY ?= valkeeper
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p;T;q' Cargo.toml)
REVISION = $(shell git rev-parse --verify --quiet HEAD || echo 0)
# The Dockerfile takes BuildKit, which older engines have and do not use unless told to.
build_image = DOCKER_BUILDKIT=1 docker build --file docker/Dockerfile --build-arg VERSION=$(VERSION) \
    --build-arg REVISION=$(REVISION) --target $(1) --tag '$(REPOSITORY)/$(1):$(VERSION)' .

.PHONY: image
image: ## Build the image of valkeeper, and a Valkey image that begins with it, tagged as the chart asks for them
	$(call build_image,valkeeper)
	$(call build_image,valkey)

.PHONY: binary
binary: ## Say where the release binary is
	@echo '$(BINARY)'

.PHONY: lint
lint: ## Formatting, clippy, rustdoc; shellcheck where it is installed
	$(CARGO) fmt --all --check
	$(CARGO) clippy --package valkeeper --lib --bins --no-deps -- --deny warnings
	$(CARGO) clippy --package valkeeper --lib --bins --no-deps --no-default-features -- --deny warnings
	$(CARGO) clippy --workspace --all-targets --all-features --no-deps -- --deny warnings $(ALLOW_IN_TESTS)
	RUSTDOCFLAGS='--deny warnings' $(CARGO) doc --workspace --all-features --no-deps
	@if command -v shellcheck >/dev/null; then set -x; shellcheck --external-sources $(SCRIPTS); \
	    else echo 'shellcheck is not installed: the scripts are not checked'; fi

.PHONY: deny
deny: ## Check licences, origins and advisories of what is linked, with cargo-deny
	scripts/check-dependencies.sh target/tools

.PHONY: fuzz
fuzz: ## Try every reader of what comes from outside for FUZZ_SECONDS each (600), two at a time
	VALKEEPER_FUZZ_SECONDS='$(or $(FUZZ_SECONDS),600)' $(CARGO) test --all-features --test fuzz -- --nocapture

.PHONY: sbom
sbom: ## List what is in the binary, as CycloneDX, in target/valkeeper.cdx.json
	$(CARGO) run --quiet --package testbed --example sbom >target/valkeeper.cdx.json
	@echo target/valkeeper.cdx.json

.PHONY: bench
bench: valkey ## Measure what is promised about speed
	$(CARGO) bench --package valkeeper --no-fail-fast

.PHONY: docs
docs: build ## Write docs/cli.md from --help, the table of values of the chart, and the API documentation
	scripts/help-to-markdown.sh '$(BINARY)' >docs/cli.md.new
	mv docs/cli.md.new docs/cli.md
	scripts/fetch-helm.sh
	target/chart/venv/bin/python scripts/chart-readme.py
	$(CARGO) doc --workspace --all-features --no-deps

.PHONY: docs-check
docs-check: build ## Check that docs/cli.md says what --help says
	@scripts/help-to-markdown.sh '$(BINARY)' | diff --unified docs/cli.md - || \
	    { echo 'docs/cli.md is behind the program: run `make docs`' >&2; exit 1; }

.PHONY: valkey
valkey: ## Unpack Valkey 8.0, 8.1 and 9.1 into target/valkey, where they are missing
	scripts/fetch-valkey.sh 8.0 8.1 9.1

.PHONY: fixtures
fixtures: valkey ## Capture anew what real servers say, for the tests of the parser
	$(CARGO) run --package testbed --example capture_fixtures

.PHONY: build
build: ## Build the static release binary
	$(CARGO) build --release --package valkeeper
	@echo '$(BINARY)'

.PHONY: fmt
fmt: ## Format the code
	$(CARGO) fmt --all

.PHONY: clean
clean: ## Remove everything that was built, and the servers in target/valkey
	$(CARGO) clean
