# The two commands of a newcomer are `make run` and `make test`; `make` lists the rest.
# On Debian 12, as root, with Go, gcc 12, CMake and ninja; the Debian packages it needs it installs.

BUILD := build/release
JOBS ?= $(shell nproc)

.DEFAULT_GOAL := help
PREFIX ?= /usr/local

.PHONY: install uninstall help packages build run test check-unit check-syscalls check-oci check-programs check-cri check-critest check-kubelet e2e-cluster fuzz bench bench-cri stress-cri format check-style clean

help:
	@sed -n 's/^\([a-z0-9-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 22

packages:
	@scripts/install-packages.sh build

build: packages ## build the four programs and the tests' own into build/release
	@[ -f $(BUILD)/build.ninja ] || cmake --preset release
	cmake --build --preset release -j $(JOBS)

run: build ## run a pod of two containers in the sandbox and show what it sees (KEEP=1: leave moatd running)
	@scripts/run-demo.sh

test: build ## run every test: unit, guest syscalls natively and in the sentry, OCI, CRI, critest, kubelet, a cluster
	@scripts/install-packages.sh test
	@scripts/run-suites.py unit syscalls-linux syscalls-sentry syscalls-traced oci cri critest kubelet cluster

check-unit: build ## run the unit tests
	@scripts/run-suites.py unit

check-syscalls: build ## run the guest syscall tests natively and in the sentry
	@scripts/run-suites.py syscalls-linux syscalls-sentry syscalls-traced

check-oci: build ## run moat by its command line on OCI bundles
	@scripts/install-packages.sh test
	@scripts/run-suites.py oci

check-cri: build ## run pods by crictl and by the library that kubelet uses
	@scripts/install-packages.sh test
	@scripts/run-suites.py cri

check-programs: build ## run PostgreSQL, Redis, SQLite, nginx, node and Python servers in the sandbox
	@scripts/install-packages.sh test
	@scripts/run-suites.py programs

check-kubelet: build ## run kubelet with static pods on moatd (SLOW=1: image collection by threshold and age too, 11 min)
	@scripts/install-packages.sh test
	@scripts/run-suites.py kubelet

e2e-cluster: build ## run a cluster of one node: control plane, kubelet, kube-proxy, CoreDNS, kubectl (FAST=1; WRITE=1: docs/cluster.md)
	@scripts/install-packages.sh test
	@FAST=$(FAST) e2e/cluster/run.py $(if $(WRITE),--write) $(TESTS)

check-critest: build ## run the CRI's conformance tests on both handlers (WRITE=1: the README's table; REFERENCE=1: containerd instead)
	@scripts/install-packages.sh test
	@e2e/critest/run.py $(if $(REFERENCE),--reference) $(if $(WRITE),--write) $(if $(HANDLER),--handler $(HANDLER))

fuzz: packages ## run the fuzzers of what clients of moatd send (RUNS=n: each that often; NAME=requests: that one)
	@scripts/install-packages.sh fuzz
	@scripts/run-fuzzers.sh $(or $(RUNS),200000) $(NAME)

bench: build ## time native, runc and moat in one run (PEERS=1: gVisor's runsc too; WRITE=1: docs/bench.md)
	@scripts/install-packages.sh bench
	@e2e/bench/bench.py $(if $(PEERS),--peers) $(if $(WRITE),--write)

bench-cri: build ## time critest's benchmarks on containerd and both handlers, in one run (PASSES=n; WRITE=1: docs/bench-cri.md)
	@scripts/install-packages.sh test
	@e2e/critest/bench.py $(if $(PASSES),--passes $(PASSES)) $(if $(WRITE),--write)

stress-cri: build ## make and remove N pods (200) by CLIENTS (16) at once on both handlers and containerd (WRITE=1: docs/bench-cri.md)
	@scripts/install-packages.sh test
	@e2e/cri/stress.py --pods $(or $(N),200) --clients $(or $(CLIENTS),16) $(if $(WRITE),--write)

check-style: ## check the arrows between folders and the formatting
	@scripts/check-includes.py --self-test
	@scripts/check-includes.py
	@scripts/format.sh --check

format: ## format every source file (clang-format 14)
	@scripts/format.sh

install: ## install into DESTDIR and PREFIX (/usr/local); starts and restarts nothing
	DESTDIR=$(DESTDIR) cmake --install $(BUILD) --prefix $(PREFIX)

uninstall: ## remove what `make install` with the same DESTDIR and PREFIX put there
	rm -f $(addprefix $(DESTDIR)$(PREFIX)/,bin/moat lib/systemd/system/moatd.service \
		$(addprefix lib/moat/,moatd moat-sentry moat-gofer) $(addprefix share/moat/,moatd.toml crictl.yaml runtimeclass.yaml))
	-rmdir $(DESTDIR)$(PREFIX)/lib/moat $(DESTDIR)$(PREFIX)/share/moat

clean: ## remove what was built; downloads and tools in build/cache and build/tools stay
	rm -rf build/release build/dev build/results build/test-logs
