# The debug profile serves tests and demo alike (dependencies are optimised in it), so that one build does.
# Everything is built for the whole workspace, since building single packages unifies features anew.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup build demo up down test chaos citizen locks scale overhead bench bench-quick bench-core bench-instructions soak retention observe fuzz fmt lint-proto lint-deploy lint-alerts sbom deny clean

binaries := $(or $(CARGO_TARGET_DIR),target)/debug
releases := $(or $(CARGO_TARGET_DIR),target)/release
# Most tests wait for something; so more of them than there are cores run at once.
test_threads := 4

help: ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 26

setup: ## install what is missing: C compiler, rustfmt, clippy, RabbitMQ, PostgreSQL, promtool
	@scripts/setup

build: setup ## build all programs
	cargo build --workspace --bins --locked

demo: build ## show one archive, one unarchive and a repeat, with broker and simulator; stops all again
	@scripts/broker run -- $(binaries)/demo

up: build ## start broker, simulator and adapter in the background and print how to call them
	@scripts/up

down: ## stop what `make up` started
	@scripts/down

test: setup ## format check, clippy with warnings as errors, all tests against a private broker and database
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUST_TEST_THREADS=$(test_threads) scripts/broker run -- scripts/database run -- cargo test --workspace --locked

chaos: build ## disturb everything around the adapter, or INSTANCES of it with PARTITIONS, for SECONDS (60) by a SEED (any), then check its promises
	@$(binaries)/chaos run $(if $(SEED),--seed $(SEED)) $(if $(SECONDS),--seconds $(SECONDS)) \
	  $(if $(INSTANCES),--instances $(INSTANCES)) $(if $(PARTITIONS),--partitions $(PARTITIONS))

citizen: build ## measure outages, isolation, pace and fairness against the simulator (about 20 min; not part of `make test`)
	@$(binaries)/chaos citizen $(foreach part,$(PART),--part $(part))

locks: build ## measure what TLS and bearer tokens cost a call and a connection, side by side (not part of `make test`)
	@$(binaries)/locks

scale: build ## measure one, two and three instances, with SQLite and PostgreSQL, side by side (about 2 min; not part of `make test`)
	@scripts/broker run -- scripts/database run -- $(binaries)/scale

overhead: build ## measure what telemetry costs: off, 1 %, 100 %, a silent collector, side by side (about 5 min; not part of `make test`)
	@scripts/broker run -- $(binaries)/overhead

bench: setup ## measure the adapter beside what it is measured against, in a release build; ARGS go to it (needs 14 GB for temporary files; about 12 min; not part of `make test`)
	cargo build --release --locked -p guest-connection-adapter -p bench
	@tools/bench/python/setup
	@scripts/broker run -- scripts/database run -- $(releases)/bench run $(ARGS)

bench-quick: setup ## the main figures and ratios of `make bench` in less than two minutes, once it is built
	cargo build --release --locked -p guest-connection-adapter -p bench
	@tools/bench/python/setup
	@scripts/broker run -- $(releases)/bench run --quick $(ARGS)

bench-core: setup ## time each stage of the pure core and each step of both stores with Criterion (a release build, then about 3 min; not part of `make test`)
	@scripts/database run -- cargo bench --locked --workspace --bench core --bench store -- --warm-up-time 1 --measurement-time 3

bench-instructions: ## count instructions and allocations of each stage of the pure core with valgrind; fails if one has grown by more than 3 %; UPDATE=1 keeps the new counts (installs valgrind if missing; a release build, then about 1 min; not part of `make test`)
	@scripts/instructions

soak: build ## long and large runs, or one PART of them: drain, absence, alarm, deferral, hang (not part of `make test`)
	@$(binaries)/chaos soak $(if $(PART),--part $(PART)) $(if $(MESSAGES),--messages $(MESSAGES))

retention: build ## measure claims among ten thousand and ten million kept commands in PostgreSQL, or two SIZES (needs 12 GB of disk; about 10 min; not part of `make test`)
	@DATABASE_BUFFERS=1GB scripts/database run -- $(binaries)/retention $(SIZES)

observe: build ## show traces in Jaeger and metrics in Prometheus, with demo traffic, until Ctrl-C, or with ONCE=1 until both are checked (installs Prometheus, builds Jaeger with Go; not part of `make test`)
	@scripts/observe $(if $(ONCE),once)

fuzz: ## feed every fuzz target, or one TARGET, for SECONDS (60) each (installs nightly Rust and cargo-fuzz; not part of `make test`)
	@scripts/fuzz $(or $(SECONDS),60)

fmt: ## format the code
	cargo fmt --all

lint-proto: ## check the gRPC contract with buf (needs Node.js; not part of `make test`)
	@command -v npx >/dev/null || { echo "lint-proto: there is no npx here; install Node.js" >&2; exit 1; }
	cd proto && npx --yes --package=@bufbuild/buf@1 -- buf lint

lint-deploy: ## check the Kubernetes manifests against schemas (needs Python, Node.js, and kubectl, kustomize or Go; not part of `make test`)
	@scripts/lint-deploy

lint-alerts: ## check and test the rules of deploy/observability with promtool (also part of `make test`)
	@scripts/lint-alerts

sbom: ## write a bill of materials in CycloneDX form to target/sbom (installs cargo-cyclonedx if missing; not part of `make test`)
	@scripts/sbom

deny: ## check dependencies: bans, licences, sources (installs cargo-deny if missing; not part of `make test`)
	@cargo deny --version >/dev/null 2>&1 || cargo install --locked cargo-deny
	cargo deny --locked check bans licenses sources

clean: down ## stop what `make up` started and remove everything that was built or written
	@scripts/broker stop
	@scripts/database stop
	cargo clean
