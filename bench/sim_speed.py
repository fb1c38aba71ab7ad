"""How fast the device is simulated: the C++ board, cocotb on Verilator and pyverilator, same device, same traffic.

Each simulator steps the whole device, with the host port saturated and its sink always ready; the beats that come back
are counted, so that a simulator that moves nothing cannot win. Three builds of a large design: the first run is long.
"""

import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import numpy as np
from _figures import Figure, arguments, machine, progress, report
from _speed_traffic import LENGTH, WARM_UP, Source, beat, header
from cocotb_tools.runner import get_results, get_runner

from gateware.config import DeviceConfig
from sim.board import PACKET, Board
from sim.harness import device_verilog
from sim.repl import SignalSim
from sim.toolchain import find_toolchain
from tests.hdl.harness import Variant, built


def board_speed(config: DeviceConfig, cycles: int) -> tuple[float, int]:
    """Cycles a second of the C++ board in one batch, and beats that came back."""
    with Board(config, log_inputs=False) as board:
        packets = np.zeros(cycles * 8 // LENGTH + 2, PACKET)
        packets["length"], packets["offset"] = LENGTH, -1
        board.load(packets)
        board.advance(WARM_UP)
        started = time.perf_counter()
        board.advance(cycles)
        seconds = time.perf_counter() - started
        return cycles / seconds, len(board.completions()) * LENGTH // 8


def pyverilator_speed(config: DeviceConfig, cycles: int) -> tuple[float, int]:
    """Cycles a second of pyverilator, driven and sampled pin by pin, and beats that came back."""
    sim = SignalSim(device_verilog(config, progress), progress=progress)
    for name in sim.ports:
        if name.endswith("ready") and sim.ports[name].direction == "in":
            sim[name] = 1
    sim["host_rx__header__payload"], sim["host_rx__data__valid"] = header(), 1
    source, received, started = Source(), 0, 0.0
    for cycle in range(cycles + WARM_UP):
        if cycle == WARM_UP:
            started = time.perf_counter()
        sim["host_rx__header__valid"] = int(source.header_offered)
        sim["host_rx__data__payload"] = beat(source.index)
        sim.settle()
        header_goes = source.header_offered and sim["host_rx__header__ready"]
        beat_goes = sim["host_rx__data__ready"]
        received += sim["host_tx__data__valid"] if cycle >= WARM_UP else 0
        sim.step()
        if header_goes:
            source.header_taken()
        if beat_goes:
            source.beat_taken()
    return cycles / (time.perf_counter() - started), received


def cocotb_speed(config: DeviceConfig, cycles: int) -> tuple[float, int]:
    """Cycles a second of a cocotb test that does the same, and beats that came back."""
    tools = find_toolchain()
    # stdout carries figures only.
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr), mock.patch.dict(
            os.environ, tools.environment()):
        result, report_file = Path(folder) / "result.json", Path(folder) / "results.xml"
        get_runner("verilator").test(
            test_module="_speed_cocotb", hdl_toplevel="top", hdl_toplevel_lang="verilog", test_dir=folder,
            build_dir=built(device_verilog(config), Variant.OPTIMISED, tools), results_xml=str(report_file),
            log_file=Path(folder) / "log", extra_env={"CYCLES": str(cycles), "RESULT": str(result)})
        if get_results(report_file) != (1, 0):
            raise RuntimeError("the cocotb side of the bench failed: " + (Path(folder) / "log").read_text()[-2000:])
        found = json.loads(result.read_text())
    return cycles / found["seconds"], found["received"]


def main() -> None:
    """Measure the three in turn, several rounds, and report medians."""
    options = arguments(__doc__.splitlines()[0],
                        cycles={"type": int, "default": 200_000, "help": "of the board (default %(default)s)"},
                        rounds={"type": int, "default": 3, "help": "default %(default)s"})
    config = DeviceConfig()
    slow_cycles = max(options.cycles // 40, 1000)
    ways = {"board": (board_speed, options.cycles), "cocotb": (cocotb_speed, slow_cycles),
            "pyverilator": (pyverilator_speed, slow_cycles)}
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    shares: dict[str, float] = {}
    sys.path.insert(0, str(Path(__file__).parent))  # cocotb finds its test module there
    for turn in range(options.rounds):
        for name, (measure, cycles) in ways.items():
            progress(f"round {turn + 1} of {options.rounds}: {name}")
            speed, received = measure(config, cycles)
            speeds[name].append(speed)
            shares[name] = received / cycles
            if shares[name] < 0.8:
                raise RuntimeError(f"{name} moved {shares[name]:.2f} beats a cycle: not the same traffic")
    median = {name: statistics.median(found) for name, found in speeds.items()}
    conditions = {**machine(), "board_cycles_per_s": median["board"], "rounds": options.rounds,
                  **{f"{name}_beats_per_cycle": share for name, share in shares.items()}}
    report([
        Figure("sim_speed.board_over_cocotb", median["board"] / median["cocotb"], "ratio",
               {"cocotb_cycles_per_s": median["cocotb"]}, (">=", 20.0), conditions),
        Figure("sim_speed.board_over_pyverilator", median["board"] / median["pyverilator"], "ratio",
               {"pyverilator_cycles_per_s": median["pyverilator"]}, None, conditions),
    ], as_json=options.json)


if __name__ == "__main__":
    main()
