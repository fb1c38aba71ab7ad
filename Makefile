# Everything a newcomer types. Each target sets up the project's own environment first; none needs root.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export MORPHNIC_DATA ?= $(wildcard ../shared/data)

.PHONY: demo test test-fast test-long lint bench bench-boards registers recordings models regress prove netlist mutate soak link-faults corners guest clean setup

$(STAMP): pyproject.toml constraints.txt deploy/check_system.py
	$(PYTHON) deploy/check_system.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

setup: $(STAMP)

demo: $(STAMP)  ## the closed loop on the simulated device, with a report
	$(BIN)/morphnic demo

models: $(STAMP)  ## build the simulated devices that tests and demo use (once)
	$(BIN)/python -m sim

test: $(STAMP) lint models  ## every test that CI runs
	$(BIN)/pytest -n 2 -m 'not long' $(PYTEST_ARGS)

test-long: $(STAMP) models  ## the tests that CI has no time for
	$(BIN)/pytest -n 2 -m long $(PYTEST_ARGS)

test-fast: $(STAMP) models  ## under 90 seconds once built
	$(BIN)/pytest -n 2 -m 'not slow and not long' $(PYTEST_ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy

registers: $(STAMP)  ## remake everything derived from the register map
	$(BIN)/python -m rtl.registers.generate

recordings: $(STAMP) models  ## remake the recorded session of the simulated device, after a change of the register map
	$(BIN)/python -m tests.hil.record

bench: $(STAMP)  ## every figure, side by side with its reference
	set -e; for script in $(filter-out bench/boards.py bench/mutation.py,$(wildcard bench/[a-z]*.py)); do $(BIN)/python $$script; done

bench-boards: $(STAMP)  ## timing and size on real parts; minutes a seed
	$(BIN)/python bench/boards.py $(BENCH_ARGS)

MINUTES ?= 30
JOBS ?= 2
regress: $(STAMP)  ## random configurations and seeds for MINUTES, with coverage; keeps what failed
	$(BIN)/python -m tests.regression --minutes $(MINUTES) --jobs $(JOBS) $(REGRESS_ARGS)

prove: $(STAMP)  ## every proof, the long ones included
	$(BIN)/python -m pytest tests/formal --prove -n 2 -o timeout=3600 $(PYTEST_ARGS)

netlist: $(STAMP)  ## benches on the post-synthesis netlists of their blocks; minutes of synthesis, once
	$(BIN)/python -m pytest tests/hdl/test_benches.py --netlist -o timeout=3600 $(PYTEST_ARGS)

MUTANTS ?= 200
mutate: $(STAMP)  ## do the tests notice a wrong design? some ten minutes a block: make mutate MUTANTS=50 BLOCK=manager
	$(BIN)/python bench/mutation.py --mutants $(MUTANTS) $(if $(BLOCK),--block $(BLOCK)) --jobs $(JOBS) $(MUTATE_ARGS)

soak: $(STAMP) models  ## random commits under traffic: make soak COMMITS=1000000 SEED=1; may be interrupted and goes on
	$(BIN)/python -m sim.soak --commits $(or $(COMMITS),1000000) --seed $(or $(SEED),1)

link-faults: $(STAMP)  ## faults on the serial link, byte by byte and bit by bit: make link-faults FRAMES=1000000 BIT_FRAMES=10000 SEED=1
	$(BIN)/python -m sim.faults --frames $(or $(FRAMES),1000000) --bit-frames $(or $(BIT_FRAMES),10000) --seed $(or $(SEED),1)

corners: $(STAMP)  ## the fabric at the corners of its parameters, the largest included; minutes
	$(BIN)/pytest tests/gateware/fabric/test_corners.py -n 2 $(PYTEST_ARGS)

guest: $(STAMP)  ## fetch QEMU and a kernel (Debian, no root), boot a guest, and drive the simulated device in it as a card
	$(BIN)/python -m sim.guest.packages
	$(BIN)/pytest tests/e2e/test_guest.py tests/morphnic/test_doctor.py -k 'guest or probe' -s $(PYTEST_ARGS)

clean:
	rm -rf $(VENV) build dist sim_build
