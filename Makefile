# `make` lists the targets. CI runs `.ci/run`, which is `make test` and `make verify`.
# ARGS goes to the program behind a target:  make e2e ARGS=collision   make demo ARGS=--help

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-builtin-rules --no-print-directory
.DEFAULT_GOAL := help

CARGO  ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
ARGS   ?=

# Every command works on the whole workspace: with one set of packages there is one set of features, and nothing is built twice.
# The rungs of the test ladder differ only in which test targets they pick.
picked    = $(patsubst %.rs,%,$(notdir $(wildcard $(1))))
SCENARIOS := --test=scenarios $(addprefix --test=,$(call picked,e2e/harness/tests/*.rs))
# Every other test program, as a file or as a folder with a main.rs: a new one runs without being named here.
folders   = $(notdir $(patsubst %/main.rs,%,$(wildcard $(1))))
beside    = $(filter-out $(call picked,e2e/harness/tests/*.rs),$(call picked,e2e/*/tests/*.rs))
OTHERS    := $(addprefix --test=,$(sort $(filter-out chart scenarios real_node,\
	$(call picked,tests/*.rs) $(beside) $(call folders,e2e/*/tests/*/main.rs))))

DENY_VERSION := 0.20.2
CACHE        := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/ennote-agent
DENY         := $(CACHE)/cargo-deny-$(DENY_VERSION)/bin/cargo-deny
SUPPLY_CHAIN := e2e/supply-chain
DIST         := $(TARGET)/dist

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# ---- for a newcomer --------------------------------------------------------------------------------------------------

.PHONY: demo
demo: build tools ## A control plane, the cloud, the chart and the agent on this machine; stays up until Ctrl-C
	@exec $(TARGET)/debug/demo $(ARGS)

.PHONY: test
test: needs ## Everything CI runs; ends with one line of counts
	@.ci/test

.PHONY: bench
bench: needs tools ## Latency and memory against a bare client on the same API server (ARGS=--help)
	$(CARGO) build --release --locked -p ennote-agent
	$(CARGO) build --profile quick --locked -p ennote-devcloud -p ennote-scenarios --bin ennote-devcloud --bin bench
	@install $(TARGET)/release/ennote-agent $(TARGET)/quick/
	@exec $(TARGET)/quick/bench $(ARGS)

.PHONY: verify
verify: needs $(DENY) gitops supply-chain ## Licences, sources and bans of all dependencies; documentation; lock file; gitops; supply chain
	$(DENY) --workspace check licenses bans sources
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --locked

.PHONY: gitops
gitops: needs ## A binding in every state, judged by kstatus and by Argo CD's own code (builds that first: once, 4 min)
	@$(CARGO) build --workspace --locked --bin ennote-tools
	@"$$($(TARGET)/debug/ennote-tools gitops)" examples/argocd/argocd-cm.yaml e2e/gitops/bindings

.PHONY: supply-chain
supply-chain: workflows signatures reproducible ## Workflows linted, a release built twice alike, signed, and refused when altered

.PHONY: workflows
workflows: needs ## actionlint and zizmor over .github/workflows (builds actionlint and cosign first: once, 4 min)
	@$(SUPPLY_CHAIN)/workflows.sh

.PHONY: dist
dist: needs ## The files of a release in target/dist: static binary, SBOM, image from scratch, chart (about 6 min)
	@$(SUPPLY_CHAIN)/build.sh $(DIST) $(TARGET)/dist-tree
	@$(SUPPLY_CHAIN)/assemble.sh $(DIST)

.PHONY: signatures
signatures: dist ## Sign and verify them with a key, by a registry on this machine; altered ones are refused
	@$(SUPPLY_CHAIN)/signatures.sh $(DIST)

.PHONY: reproducible
reproducible: dist ## Build them once more in another folder and compare (about 6 min)
	@$(SUPPLY_CHAIN)/reproducible.sh $(DIST)

# ---- the rungs of `make test` ----------------------------------------------------------------------------------------

.PHONY: fmt
fmt: ## Format all Rust code
	$(CARGO) fmt --all

.PHONY: fmt-check
fmt-check: ## Check the formatting
	$(CARGO) fmt --all --check

.PHONY: clippy
clippy: ## Lints, on all code and all tests; warnings are errors
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

.PHONY: unit
unit: ## Unit and property tests, layers, generated files, protocol vectors
	$(CARGO) test --workspace --locked --no-fail-fast --lib --bins $(OTHERS) -- $(ARGS)

.PHONY: chart
chart: $(if $(HELM),,tools) ## The chart, rendered by real helm over many values
	HELM="$${HELM:-$$($(TARGET)/debug/ennote-tools helm)}" $(CARGO) test --workspace --locked --test=chart -- $(ARGS)

.PHONY: e2e
e2e: build tools promtool ## Scenarios: each promise on a real control plane (ARGS=name for one)
	@test -n "$(SCENARIOS)" || { echo "there is no scenario in e2e/scenarios/tests" >&2; exit 1; }
	$(CARGO) test --workspace --locked --no-fail-fast $(SCENARIOS) -- --test-threads=4 $(ARGS)

.PHONY: node
node: build tools ## Scenarios: what only a real pod can prove, on a real kubelet and containerd (Linux, root; ARGS=name for one)
	$(CARGO) test --workspace --locked --test=real_node -- $(ARGS)

# ---- pieces ----------------------------------------------------------------------------------------------------------

.PHONY: build
build: needs ## Build the workspace (development profile)
	$(CARGO) build --workspace --locked

.PHONY: tools
tools: needs ## Build etcd, the Kubernetes control plane, KWOK, kubectl and helm (once, about 6 minutes; kept in ~/.cache)
	@$(CARGO) build --workspace --locked --bin ennote-tools
	@$(TARGET)/debug/ennote-tools > /dev/null

.PHONY: promtool
promtool: tools ## Build promtool, which runs the alerts of the scenarios (once, about 2 minutes; kept in ~/.cache)
	@$(TARGET)/debug/ennote-tools promtool > /dev/null

.PHONY: generate
generate: tools ## Write crds/ and the chart's copy from src/crd.rs, and the policies for a platform team from the chart
	@$(CARGO) run --quiet --package ennote-agent --bin ennote-agent -- crd > $(TARGET)/crd.yaml
	@for to in crds charts/ennote-agent/files; do cp $(TARGET)/crd.yaml $$to/ennotesecretbindings.yaml; done
	@"$$($(TARGET)/debug/ennote-tools helm)" template ennote-agent charts/ennote-agent --namespace ennote \
		--set rollouts.argo=true \
		--api-versions admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy --show-only templates/admission-policy.yaml > $(TARGET)/admission-policy.yaml
	@{ sed -n '/^#/!q;p' examples/platform/admission-policy.yaml; \
		awk '/^# Source/ { next } /^  labels:/ { skip = 1; next } skip && /^    / { next } { skip = 0; print }' \
		$(TARGET)/admission-policy.yaml; } > $(TARGET)/platform.yaml
	@cp $(TARGET)/platform.yaml examples/platform/admission-policy.yaml
	@git --no-pager diff --stat -- crds charts/ennote-agent/files examples/platform 2> /dev/null || true

.PHONY: advisories
advisories: needs $(DENY) ## Known vulnerabilities of the dependencies (needs GitHub)
	$(DENY) --workspace check advisories

.PHONY: clean
clean: ## Remove what was built here; the built control plane stays in ~/.cache/ennote-agent
	$(CARGO) clean

$(DENY):
	@echo "installing cargo-deny $(DENY_VERSION) (once, about 3 minutes)"
	$(CARGO) install --locked --root $(CACHE)/cargo-deny-$(DENY_VERSION) cargo-deny@$(DENY_VERSION)

# What cannot be installed from here, and what to do about it.
.PHONY: needs
needs:
	@missing=0; \
	need() { if ! command -v "$$1" > /dev/null; then echo "missing: $$1. $$2" >&2; missing=1; fi; }; \
	need $(CARGO) "Install Rust: https://rustup.rs (rust-toolchain.toml picks the version, rustfmt and clippy)"; \
	need cc "Install a C compiler (for ring): apt install gcc libc6-dev, dnf install gcc, or xcode-select --install"; \
	need go "Install Go 1.26 or newer, or any from 1.21 on, which fetches it: https://go.dev/doc/install"; \
	need git "Install git: apt install git"; \
	exit $$missing
