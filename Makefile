# `make help` tells what there is. Every target installs what it needs first (scripts/install.sh).
SHELL := /bin/bash
.DEFAULT_GOAL := help
CARGO ?= cargo
# Two tests at a time on two cores: more only make servers' starts time out.
TEST_THREADS ?= 2
TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))

.PHONY: help install build lint test matrix demo bench clean

help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-8s %s\n", $$1, $$2}'

install: ## the packages that tests, demo and benchmarks need (as root or with sudo)
	@scripts/install.sh

build: ## the release binary: target/release/walpost
	$(CARGO) build --release --bin walpost

lint: ## formatting, clippy, documentation and shell scripts, warnings as errors
	@scripts/install.sh lint
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings -A rustdoc::private_intra_doc_links' $(CARGO) doc --workspace --no-deps --document-private-items --quiet
	@scripts/shellcheck.sh

test: install ## the whole suite, on private servers
	$(CARGO) build --release --bin walpost
	$(CARGO) test --workspace --no-run
	$(CARGO) test --workspace --lib --bins
	$(CARGO) test --workspace --doc
	WALPOST_BIN_RELEASE="$(TARGET)/release/walpost" scripts/sandboxed.sh \
		$(CARGO) test --workspace --test it -- --test-threads $(TEST_THREADS)

# The tests whose outcome depends on the server's version, by module.
MATRIX_TESTS := certified:: failover:: first_start:: guard:: init:: kill:: large:: lost_slot:: marking:: patience:: \
	$(addprefix publish_on::,calls:: changed:: predecessor:: rights:: tables:: values:: wrong::) recovery:: retention:: shards:: shutdown:: slot_danger:: store:: survives:: thaw:: tls::postgres:: tls::scram:: trouble:: undelivered::
PG ?= 14 15 16 17 18
# Those whose outcome depends on RabbitMQ's, by the Debian that has it.
RABBITMQ_TESTS := brokers::rabbitmq:: kill:: refusals:: trouble::
RABBITMQ ?= trixie sid

matrix: ## what is promised, on each version of PostgreSQL and RabbitMQ; PG="14 18" RABBITMQ=trixie for some of them
	@scripts/install.sh matrix
	$(CARGO) build --release --bin walpost
	$(CARGO) test --workspace --no-run
	@WALPOST_BIN_RELEASE="$(TARGET)/release/walpost" TEST_THREADS=$(TEST_THREADS) scripts/matrix.sh $(PG) -- $(MATRIX_TESTS)
	@WALPOST_BIN_RELEASE="$(TARGET)/release/walpost" TEST_THREADS=$(TEST_THREADS) scripts/matrix-rabbitmq.sh $(RABBITMQ) -- $(RABBITMQ_TESTS)

demo: ## rows committed in PostgreSQL arrive in RabbitMQ, before your eyes, for half a minute
	@scripts/install.sh demo
	@echo 'building (some minutes the first time)'
	@$(CARGO) build --quiet --release --workspace --bin walpost --bin demo
	@scripts/sandboxed.sh $(TARGET)/release/demo

bench: install ## the benchmarks, as ratios beside absolute figures; ONLY=start|drain|marking|publishing|rabbitmq|activemq|artemis|latency
	@$(CARGO) build --quiet --release --workspace --bins
	@scripts/sandboxed.sh $(TARGET)/release/walpost-bench $(ONLY)

clean: ## what was built
	$(CARGO) clean
