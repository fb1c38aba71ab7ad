"""How long the manager takes from a window to the committed table, and what share of the window that is.

The loop runs in this process on the simulated device, with a SQLite store, and is made to decide as often as it can.
`decide` is window received to table computed, and its share of a window of one millisecond is what matters on any
link. The transaction's register accesses run through the simulator here and so take its time, not a board's: it is
reported beside, as measured.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from _figures import Figure, arguments, machine, report
from _mixture import generated
from closed_loop import CONFIG, DEFAULT, limits_of, policies

from device_link import Device
from gateware.config import DeviceConfig
from offload_manager.allocation import CREDIT_PAGES
from offload_manager.loop import ControlLoop, LoopSettings
from offload_manager.policy_file import PolicySource
from offload_manager.store import SqliteStore
from offload_manager.timing import DecisionLatency
from sim.board import Board
from sim.inprocess import BoardTransport


def decisions(config: DeviceConfig, windows: int) -> tuple[np.ndarray, np.ndarray]:
    """Nanoseconds of each decision: to the table computed, and from there to the commit answered."""
    shipped = policies(True)[DEFAULT]
    restless = shipped.spec.loop.model_copy(update={"hysteresis": 0.0, "measure_windows": 1, "min_interval_windows": 0})
    policy = replace(shipped, spec=shipped.spec.model_copy(update={"loop": restless}))
    mixture = generated(config, 0.7, windows * 100_000)
    with (tempfile.TemporaryDirectory() as folder, Board(config, log_inputs=False) as board,
          BoardTransport(board) as transport):
        device = Device(transport)
        store = SqliteStore(Path(folder) / "manager.db")
        settings = LoopSettings(DecisionLatency.parse("0"), packet_pages=CREDIT_PAGES)
        loop = ControlLoop(device, PolicySource(limits_of(device), policy=policy), store, settings)
        loop.start()
        board.load(mixture.workload.packets, at=board.cycle)
        for _ in range(windows):
            loop.step()
        timings = [record.decision.timing for record in store.records(limit=10_000)
                   if record.decision.source == "loop" and record.decision.timing.commit_cycle is not None]
        store.close()
    if not timings:
        raise RuntimeError("the loop committed nothing: there is nothing to time")
    return (np.array([timing.decide_ns for timing in timings]),
            np.array([timing.decide_ns + timing.transaction_ns for timing in timings]))


def main() -> None:
    """Measure and report."""
    options = arguments(__doc__.splitlines()[0],
                        windows={"type": int, "default": 60, "help": "default %(default)s"})
    config = CONFIG
    decide, total = decisions(config, options.windows)
    window_ns = 100_000 * 1e9 / config.clock_hz
    conditions = {"decisions": len(decide), "tenants": config.tenants, "window_us": window_ns / 1e3, **machine()}
    found = []
    for name, values in (("decide", decide), ("commit", total)):
        for percent in (50, 99):
            value = float(np.percentile(values, percent, method="higher"))
            found += [
                Figure(f"decision.{name}_p{percent}", value / 1e6, "ms", {"window_ms": window_ns / 1e6}, None,
                       conditions),
                Figure(f"decision.{name}_p{percent}_share", value / window_ns, "of the window", {}, None, conditions)]
    report(found, as_json=options.json)


if __name__ == "__main__":
    main()
