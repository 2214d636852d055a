# The commands of the project. `make demo` shows it, `make test` checks it.

CARGO ?= cargo
TARGET := x86_64-unknown-linux-gnu
ARGS ?=

.PHONY: build demo test bench interop lint deny crds fuzz soak peers clean

# The plugin must start in any root filesystem, so it is linked statically; the rest is built as usual.
build:
	$(CARGO) build --release --workspace --exclude caracal-cni
	RUSTFLAGS="-C target-feature=+crt-static" $(CARGO) build --release -p caracal-cni --target $(TARGET)
	cp target/$(TARGET)/release/caracal-cni target/release/caracal-cni

# Builds, brings a cluster up on a two-rack fabric, measures it, injects faults, takes it down.
# Installs nothing: routers that are missing are replaced by our own, and the report says so.
demo: build
	target/release/caracal lab demo $(ARGS)

# Formatting, lints and every test. Installs the routers it tests against when they are missing.
# It does not depend on `build`: tests want other features of some dependencies, and building both
# sets costs many minutes; the binaries that tests run are built with them, in the profile `quick` of Cargo.toml.
test: peers lint
	CARACAL_TEST_COMPLETE=1 $(CARGO) test --profile quick --workspace --no-fail-fast

# Measures the speaker beside BIRD, FRR, GoBGP and OpenBGPD, keeps it in docs/benchmarks.json and writes
# docs/benchmarks.md and its plot from that, after each case. All cases take hours; `make bench CASES=table,fan-out`
# measures these and leaves the results of the others as they are. To try things out, ARGS go to the bench, and with
# them nothing is kept: `make bench CASES=table ARGS=--quick`.
CASES ?=
BENCH_PEERS := bird2 frr gobgpd openbgpd iproute2
bench:
	tests/peers.sh $(BENCH_PEERS)
	$(CARGO) build --release -p caracal -p caracal-bench
	target/release/caracal-bench $(if $(ARGS),$(ARGS),--docs docs/benchmarks.md) $(if $(CASES),--cases $(CASES))

# Plays every feature with every router, compares what each side has, and writes docs/interop.md and the list of
# what routers refuse. `make interop CELLS=bird:md5,frr` plays these cells, compares and writes nothing.
CELLS ?=
interop: peers
	CARACAL_TEST_COMPLETE=1 $(if $(CELLS),CARACAL_INTEROP=$(CELLS),UPDATE_INTEROP=1) \
		$(CARGO) test --profile quick -p caracal --test interop -- --nocapture

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --profile quick --workspace --all-targets -- -D warnings

# Packages of the routers and tools that the tests use; kubectl only where there is none.
PEERS := nftables bird2 frr gobgpd openbgpd exabgp iproute2 iputils-ping procps tshark bgpdump curl python3-pip
peers:
	tests/peers.sh $(PEERS)
	tests/python.sh target/python mrtparse==2.2.0

# Writes deploy/crds from the types.
crds:
	UPDATE_CRDS=1 $(CARGO) test -p caracal-crds

# Every fuzz target for FUZZ_SECONDS of processor time each, from the seeds and what earlier runs have found; fails on a
# crash. FUZZ_TARGETS chooses some of them. See fuzz/README.md.
FUZZ_SECONDS ?= 60
fuzz:
	FUZZ_SECONDS=$(FUZZ_SECONDS) fuzz/run.sh $(FUZZ_TARGETS)

# Many speakers in virtual time under faults, a new case each, for SOAK_SECONDS from SOAK_SEED on; fails on the
# first that differs from the oracle, and prints how to see it again. See docs/reliability.md.
SOAK_SECONDS ?= 600
SOAK_SEED ?= $(shell date +%s)
soak:
	SOAK_SECONDS=$(SOAK_SECONDS) SOAK_SEED=$(SOAK_SEED) $(CARGO) test --release -p caracal-bgp-core --test simulation -- \
		--ignored --nocapture soak

# Licences and sources of the dependencies.
deny:
	cargo deny check

clean:
	$(CARGO) clean
