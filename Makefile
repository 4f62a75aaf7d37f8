# What a contributor needs. `make` alone lists the targets.

.DEFAULT_GOAL := help
.PHONY: help build check deps generate test proof bench fuzz load figures replicas screenshots demo clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

build: ## bin/signet and the samples bin/orders, bin/storefront and bin/notes, static
	CGO_ENABLED=0 go build -trimpath -o bin/ -ldflags '-s -w' ./cmd/signet ./cmd/orders ./cmd/storefront ./cmd/notes

generate: ## the Go code of the templates
	go tool templ generate -path templates -log-level warn

check: ## format, vet, staticcheck, who imports whom, generated code, known vulnerabilities
	@.ci/check

deps:
	@.ci/deps

# Those that take longest begin, so that nothing waits for them at the end. Three
# at a time, for two leave processors idle while they wait for servers.
longest = ./conformance/proof ./web ./provider ./conformance/cluster ./cmd/signet

test: deps check ## everything, under the race detector, on both databases
	@go run ./storage/storagetest/pg -nosync -- \
		go run ./.ci/gotest -race -count=1 -timeout 30m -p 3 $(longest) ./... ./.ci/gotest -- \
			-C .ci/deploy -count=1 -timeout 15m ./...

proof: deps ## the claims about running servers, at length: 1,000 rounds of 64 at once, 500 kills
	@go run ./storage/storagetest/pg -- go test -p 1 ./conformance/proof ./conformance/cluster -long -v -timeout 3h

bench: ## the benchmarks of docs/performance.md
	go run ./storage/storagetest/pg -- go test -run '^$$' -bench . -benchmem ./...

FUZZTIME = 1m

fuzz: ## every fuzz target for a while: make fuzz FUZZTIME=10m
	@grep -rnoE --include='*_test.go' --exclude-dir=.cache '^func Fuzz[A-Za-z0-9]+' . | while IFS=: read -r file _ name; do \
		echo "$${name#func }"; go test "$${file%/*}" -run '^$$' -fuzz "^$${name#func }\$$" -fuzztime $(FUZZTIME) || exit 1; \
	done

load: ## load on a running server: make load ARGS='--issuer URL …'
	go run ./conformance/load $(ARGS)

screenshots: deps ## the pictures of docs/pages.md, taken anew
	go test ./conformance/browser -count=1 -run 'Pages$$' -screenshots $(CURDIR)/docs/screenshots

figures: deps ## the table of docs/performance.md, measured on this machine
	@conformance/load/figures.sh

replicas: deps ## what one, two and three replicas cost over one PostgreSQL
	@conformance/load/replicas.sh

demo: ## a provider, a shop and its API to try, gone when it ends
	go run ./cmd/signet demo

clean: ## what the other targets made
	rm -rf bin .cache conformance/browser/node_modules conformance/proof/node_modules conformance/clients/npm/node_modules
