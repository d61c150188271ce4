# gpuqd. `make` lists what there is.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# A shell that was not logged in may not have Go's directory on its PATH.
export PATH := $(PATH):/usr/local/go/bin

GO ?= go
# The ledger of make up: auto (MongoDB where there is a mongod), sqlite, mongodb.
LEDGER ?= auto
# No test package takes longer, on two slow and busy cores.
TEST_TIMEOUT ?= 35m
# The seeds of make simulate.
FROM ?= 0
TO ?= 1000000
# The seed of make campaign; 0 draws one.
SEED ?= 0
# Flags of make bench: gpuq-bench run --help.
BENCH ?=
# What make test runs: PKG=./daemon/job for one package.
PKG ?= ./...
# make up MONITORING=1 adds Prometheus, Alertmanager, Loki and Promtail; empty or 0 does not.
MONITORING ?=
override MONITORING := $(filter-out 0,$(MONITORING))
# What make e2e runs: RUN=TestPowerCut for some of it.
RUN ?= .

# Tools of the checks, pinned in a module of their own.
TOOL := $(GO) tool -modfile=test/tools/go.mod

# A checkout that git refuses to read, or none, is no reason not to build.
VCS := $(shell git rev-parse --verify --quiet HEAD >/dev/null 2>&1 && echo true || echo false)
# For the builds that tests make.
export GOFLAGS := $(strip $(GOFLAGS) $(if $(filter false,$(VCS)),-buildvcs=false))
BUILD := $(GO) build -trimpath -buildvcs=$(VCS)

SOURCES := $(shell find . -path ./bin -prune -o -path ./dist -prune -o -path './.*' -prune -o -name '*.go' ! -name '*_test.go' -print) go.mod go.sum
SCRIPTS := $(shell find . -path ./bin -prune -o -path ./dist -prune -o -path ./.git -prune -o -path ./.gpuq -prune -o -type f -name '*.sh' -print) .ci/run \
	$(wildcard packaging/deb/* packaging/rpm/*)
PLAYBOOKS := $(filter-out requirements.yml,$(notdir $(wildcard ansible/*.yml)))
# Those with tests: nfpm's only pins a program.
MODULES := $(sort $(dir $(wildcard test/tools/*/*_test.go)))

STATIC := bin/gpuqd bin/gpuqctl bin/gpuqd-shim bin/gpuq-cluster
PROGRAMS := $(STATIC) bin/gpuqd-device

.PHONY: help
help: ## List these targets
	@awk -F ':.*## ' '/^[a-z0-9\/-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: up
up: deps build $(if $(MONITORING),deps/monitoring) ## Install what is missing, build, start a cluster here, run the example (LEDGER=auto|sqlite|mongodb MONITORING=1)
	@bin/gpuq-cluster up --ledger '$(LEDGER)' $(if $(MONITORING),--monitoring)

.PHONY: deps/monitoring
deps/monitoring:
	@packaging/install-deps.sh monitoring
	@packaging/thirdparty/build.sh --programs --check loki promtail >/dev/null 2>&1 || \
		echo "Loki and Promtail are built from their sources: about 15 minutes on two idle cores, once"
	@packaging/thirdparty/build.sh --programs loki promtail >/dev/null

.PHONY: down
down: bin/gpuq-cluster ## End that cluster and its jobs, and remove its files
	@bin/gpuq-cluster down

.PHONY: status
status: bin/gpuq-cluster ## Show what runs of it
	@bin/gpuq-cluster status

.PHONY: deps
deps: ## Install the Debian packages that are missing
	@packaging/install-deps.sh

.PHONY: build
build: $(PROGRAMS) ## Build all programs into bin/

bin/gpuqd: PACKAGE := ./daemon
bin/gpuqctl: PACKAGE := ./ctl
bin/gpuqd-shim: PACKAGE := ./daemon/shim
bin/gpuq-cluster: PACKAGE := ./test/cluster/gpuq-cluster

# The only program that links C: NVML. The others run on any Linux. Its symbols are
# bound when they are called, after NVML was loaded; not all compilers do so unasked.
bin/gpuqd-device: PACKAGE := ./daemon/nvml
bin/gpuqd-device: $(SOURCES)
	@echo "build $@"
	@CGO_ENABLED=1 $(BUILD) -ldflags '-extldflags=-Wl,-z,lazy' -o $@ $(PACKAGE)
	@touch $@

$(STATIC): $(SOURCES)
	@echo "build $@"
	@CGO_ENABLED=0 $(BUILD) -o $@ $(PACKAGE)
	@touch $@

.PHONY: packages
packages: deps/packages ## Build gpuqd and gpuqctl as .deb and .rpm into dist/, and check them
	@packaging/build.sh
	@packaging/check.sh

.PHONY: deps/packages
deps/packages:
	@packaging/install-deps.sh packages

.PHONY: packages/build
packages/build: ## Build them alone, unchecked (VERSION=1.2.3 OUT=dist)
	@packaging/build.sh

.PHONY: packages/check
packages/check: deps/packages ## Check those in dist/: contents, linters, and a second build
	@packaging/check.sh

.PHONY: bundle
bundle: ## Collect what a site without internet needs, with digests, in dist/bundle; make packages first (EXTRA=DIR, PRODUCTS=...)
	@packaging/bundle.sh

.PHONY: packages/thirdparty
packages/thirdparty: ## Build Loki and Promtail as .deb into dist/thirdparty, 15 minutes the first time
	@packaging/thirdparty/build.sh loki promtail

.PHONY: dashboards
dashboards: ## Write Grafana's dashboards anew, after a change in test/tools/dashboards or docs/runbooks
	@cd test/tools/dashboards && $(GO) run .

.PHONY: test
test: deps build ## Run all tests (PKG=./some/package for some)
	$(GO) test -count=1 -timeout $(TEST_TIMEOUT) $(PKG)
	@$(if $(filter ./... ./test/sim,$(PKG)),$(MAKE) --no-print-directory test/planted)
	@for module in $(if $(filter ./...,$(PKG)),$(MODULES)); do \
		echo "$(GO) test $$module"; \
		(cd "$$module" && $(GO) test -count=1 -timeout $(TEST_TIMEOUT) ./...); \
	done

# The first run makes base systems, which takes some minutes more.
.PHONY: e2e
e2e: deps/hosts ## Boot Debian hosts and test gpuqd on them, as root, 20 minutes (RUN=TestPowerCut for some)
	GPUQ_HOSTS=1 $(GO) test -count=1 -timeout 75m -v -run '$(RUN)' ./test/hosts

# From bare hosts to a site, by the playbooks of ansible/.
.PHONY: e2e/site
e2e/site: deps/site ## Run the playbooks on Debian hosts booted here, as root, half an hour
	GPUQ_SITE=1 $(GO) test -count=1 -timeout 75m -v ./test/site

# Real Prometheus, Alertmanager, Loki and Promtail on a local cluster.
.PHONY: e2e/monitoring
e2e/monitoring: deps deps/monitoring ## Test monitoring end to end on a local cluster, and alerts by real faults, 20 minutes (UPDATE=1)
	GPUQ_WATCH=1 $(GO) test -count=1 -timeout $(TEST_TIMEOUT) -p 1 -v ./test/watch ./test/dashboards

.PHONY: deps/site
deps/site:
	@packaging/install-deps.sh hosts site

.PHONY: deps/hosts
deps/hosts:
	@packaging/install-deps.sh hosts

# Needs a GPU, and of the host it runs on nothing but its driver: copy
# bin/{gpuq-gpu-check,gpuq-gpu-payload,gpuqd-device,gpuqd-shim} there.
.PHONY: gpu-check
gpu-check: gpu-check/build ## Try devices, jobs on them and what those leave behind on this machine's NVIDIA GPUs
	@bin/gpuq-gpu-check

.PHONY: gpu-check/build
gpu-check/build: bin/gpuqd-device bin/gpuqd-shim bin/gpuq-gpu-payload ## Build what it takes, for another host to run bin/gpuq-gpu-check
	@CGO_ENABLED=0 $(BUILD) -o bin/gpuq-gpu-check ./test/gpucheck/gpuq-gpu-check

bin/gpuq-gpu-payload: test/gpucheck/payload/payload.c
	@echo "build $@"
	@mkdir -p $(@D)
	@$(CC) -O2 -Wall -Wextra -Werror -o $@ $< -ldl

.PHONY: test/planted
test/planted: ## Plant each known mistake in the agent, and see that the simulation catches it
	$(GO) test -count=1 -timeout $(TEST_TIMEOUT) -tags planted -run TestPlantedBugsAreCaught ./test/sim

.PHONY: simulate
simulate: ## Run histories of the simulation by seed, resumable (FROM=0 TO=1000000, multiples of 1000)
	@$(GO) test -c -trimpath -o bin/simulate.test ./test/sim
	@$(GO) run ./test/sim/gpuq-simulate --from $(FROM) --to $(TO)

.PHONY: campaign
campaign: deps build ## 100 random real faults under 500 jobs, about half an hour (SEED=, LEDGER=sqlite|mongodb)
	@$(BUILD) -o bin/gpuq-campaign ./test/campaign/gpuq-campaign
	@bin/gpuq-campaign run --seed $(SEED) --ledger $(if $(filter mongodb,$(LEDGER)),mongodb,sqlite) --evidence .simulated/campaign --result .simulated/campaign.json

.PHONY: campaign/report
campaign/report: ## Write docs/reliability.md from the results in test/campaign/results
	@$(GO) run ./test/campaign/gpuq-campaign report $$(ls -r test/campaign/results/*.json)

.PHONY: bench
bench: deps build bench/programs ## Measure how fast it is, a quarter of an hour or more, and write docs/performance.md (BENCH=--rounds=3)
	@bin/gpuq-bench run --dir .simulated --result test/bench/results/sqlite.json $(BENCH)
	@$(MAKE) --no-print-directory bench/report

.PHONY: bench/programs
bench/programs:
	@for name in gpuq-bench gpuq-stamp gpuq-floor-shim; do CGO_ENABLED=0 $(BUILD) -o bin/$$name ./test/bench/$$name; done

.PHONY: bench/report
bench/report: ## Write docs/performance.md from the result in test/bench/results
	@$(GO) run ./test/bench/gpuq-bench report test/bench/results/sqlite.json

.PHONY: test/race
test/race: deps build ## Run all tests with the race detector
	CGO_ENABLED=1 $(GO) test -race -count=1 -timeout $(TEST_TIMEOUT) $(PKG)

.PHONY: lint
lint: deps/lint ## Check form and find mistakes: gofumpt, go vet, staticcheck, shellcheck, promtool, yamllint, ansible-lint
	@echo gofumpt; unformed=$$($(TOOL) gofumpt -l .); \
		[ -z "$$unformed" ] || { echo "make fmt would change:"; echo "$$unformed"; exit 1; }
	@echo go vet; $(GO) vet ./... && $(GO) vet -tags planted ./daemon/... ./test/sim/...
	@echo staticcheck; $(TOOL) staticcheck ./... && $(TOOL) staticcheck -tags planted ./daemon/agent ./daemon/ledger ./test/sim
	@for module in $(MODULES); do echo "go vet $$module"; (cd "$$module" && $(GO) vet ./...); done
	@echo shellcheck; shellcheck $(SCRIPTS)
	@echo promtool; promtool check rules --lint=all --lint-fatal ansible/roles/prometheus/files/rules/*.yml >/dev/null
	@echo yamllint; cd ansible && yamllint --strict .
	@echo ansible-lint; cd ansible && ansible-lint --offline -q
	@echo ansible-playbook --syntax-check; cd ansible && for playbook in $(PLAYBOOKS); do \
		ansible-playbook --inventory inventory.example --syntax-check $$playbook >/dev/null || exit 1; \
	done

.PHONY: deps/lint
deps/lint:
	@packaging/install-deps.sh lint

.PHONY: fmt
fmt: ## Format all Go code
	@$(TOOL) gofumpt -w .

.PHONY: clean
clean: ## Remove the built programs and packages (make down removes the cluster)
	rm -rf bin dist
