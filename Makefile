# pointsman: `make help` lists what can be made.

VERSION := $(shell cat VERSION)

# Go is often unpacked where no PATH points.
ifeq ($(shell command -v go),)
export PATH := $(PATH):/usr/local/go/bin
endif

# The program is static; only the race detector needs cgo. Nothing of the
# builder's paths or repository goes into it, so that it can be rebuilt alike.
GO_BUILD := CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$(VERSION)"

RACE := $(if $(shell command -v gcc),-race)

# What runs on routers. Flags as for the packages, so that both share a cache.
CROSS := mips,GOMIPS=softfloat mipsle,GOMIPS=softfloat arm,GOARM=7 arm64

# Sessions of tests share processors and addresses: one target at a time.
.NOTPARALLEL:

.PHONY: all
all: ## build bin/pointsman
	$(GO_BUILD) -o bin/pointsman ./cmd/pointsman

.PHONY: run
run: all ## watch it work: simulated nodes on loopback, and failovers
	bin/pointsman demo

.PHONY: test
test: ## install what is missing, then run every test (root; some minutes)
	scripts/install-test-packages
	$(MAKE) --no-print-directory lint test-unit test-cross test-package test-e2e e2e-kine

.PHONY: test-quick
test-quick: ## unit tests only; seconds, no privileges
	go test -short -p 4 -timeout 1m ./... # they wait more than they work

.PHONY: test-unit
test-unit: # with the race detector, and then at full speed what depends on it
	go test $(RACE) -timeout 5m ./...
	RELAY_FUZZ=30s go test $(RACE) -count=1 -timeout 5m -run StreamFuzz ./balancer/relay
	RELAY_FUZZ=30s go test -count=1 -timeout 5m ./balancer/relay
	for f in Identify Reply ErrorResponse; do go test -run '^$$' -fuzz Fuzz$$f -fuzztime 10s ./balancer/pgwire || exit 1; done
	go test -run '^$$' -fuzz FuzzImport -fuzztime 10s ./config/haproxy
	SOAK_SESSIONS=20000 go test -count=1 -timeout 5m -run Soak ./cmd/pointsman

.PHONY: soak
soak: ## a million short sessions; about five minutes
	SOAK_SESSIONS=$(or $(SOAK_SESSIONS),1000000) go test -count=1 -timeout 1h -v -run Soak ./cmd/pointsman

.PHONY: fuzz
fuzz: ## streams and openings of random bytes, pauses and ends, for RELAY_FUZZ (10m)
	RELAY_FUZZ=$(or $(RELAY_FUZZ),10m) go test -count=1 -timeout 0 -v -run 'StreamFuzz|OpeningFuzz' ./balancer/relay

.PHONY: mutants
mutants: ## break each guard of the data plane, and see its test fail; some minutes
	go test -tags mutants -count=1 -timeout 30m -v -run Mutants ./balancer/relay

.PHONY: test-cross
test-cross: # vet compiles the tests too
	@for target in $(CROSS); do \
		echo "vet for $$target"; \
		env CGO_ENABLED=0 GOARCH=$$(echo $$target | sed 's/,/ /') go vet -trimpath -tags e2e,package,mutants ./... || exit 1; \
	done

.PHONY: test-package
test-package: # the packages read back, and their programs run under qemu-user
	go test -tags package -count=1 -timeout 10m -v ./openwrt/mkpackage

.PHONY: test-e2e
test-e2e: e2e-clients # a real Patroni cluster in network namespaces
	go test -tags e2e -count=1 -timeout 15m -v -skip 'Kine|Chaos|Hints|Pools|TLS' ./e2e
	go test -tags e2e -count=1 -timeout 10m -v -run 'Pools|TLS' ./e2e
	go test -tags e2e -count=1 -timeout 12m -v -run Chaos ./e2e

.PHONY: chaos
chaos: ## FAULTS (36) random faults of SEED on a real cluster; half a minute each (root)
	go test -tags e2e -count=1 -timeout 0 -v -run Chaos ./e2e -faults $(or $(FAULTS),36) -seed $(or $(SEED),0)

.PHONY: e2e-kine
e2e-kine: e2e-clients ## kine's writes and watch during a switchover (root)
	go test -tags e2e -count=1 -timeout 10m -v -run Kine ./e2e

# What the clients are made of is not what pointsman is made of: they are a
# module of their own. Its vet builds it, a minute or two where nothing is cached.
.PHONY: e2e-clients
e2e-clients:
	CGO_ENABLED=0 go vet -C e2e/clients ./...
	staticcheck=$$(go tool -n staticcheck) && cd e2e/clients && CGO_ENABLED=0 $$staticcheck ./...

.PHONY: bench
bench: ## measure it beside HAProxy, nginx and the kernel (root; 25 minutes)
	scripts/install-test-packages
	go run ./bench

.PHONY: package
package: ## build the OpenWrt packages into dist/
	go run ./openwrt/mkpackage -version $(VERSION) -out dist

.PHONY: lint
lint: ## gofmt, go vet, staticcheck, shellcheck
	scripts/lint

.PHONY: generate
generate: ## write what is generated: docs/configuration.md
	go test ./config -run Reference -count=1 -update

.PHONY: clean
clean: ## remove what was built
	rm -rf bin dist

.PHONY: help
help: ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' Makefile | expand -t 14
