"""A storm of commits under traffic at line rate: what it does, and one reproducible run of it.

The commits are driven in C++ (`sim/board/commits.hpp`), the traffic is loaded from here in stretches: every input is
offered `LOAD` of its line, small and middle packets of sixteen tenants, and no output is offered more than it can
carry, so that old packets leave within some hundred cycles and the next commit can come.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import numpy as np

from device_link.registers import register_map
from gateware.config import DeviceConfig
from morphnic.errors import MorphnicError

from .board import FAULT_NAMES, PACKET, Array, Board
from .build import Model
from .control import drop_counters

LOAD = 0.9
STRETCH = 40_000        # cycles of traffic loaded at once
COMMITS_A_CALL = 50
PROCESS = 15
TOKEN = 1
VLAN_BASE = 100
#: (input, destination, share of the input's packets). Frames of a network port: by VLAN, a tenant each.
MATRIX = {0: [(1, 0.43), (2, 0.43), (PROCESS, 0.14)], 1: [(2, 0.5), (0, 0.5)], 2: [(1, 0.5), (0, 0.5)]}


OUTCOME = ("commits", "at_once", "confirmed", "rolled_back", "expired", "busy", "fenced", "checked_words", "wrong",
           "cycles", "first_wrong")


class Plan(ctypes.Structure):
    """`StormPlan` of sim/board/commits.hpp."""

    _fields_ = [(name, ctypes.c_uint64) for name in ("commits", "seed")] + [
        (name, ctypes.c_uint32) for name in (
            "tenants", "ports", "slots", "pages", "gap", "confirm", "token", "command", "status", "token_at",
            "base_epoch", "active", "confirm_within", "staging", "active_rows")]


class Outcome(ctypes.Structure):
    """`StormResult` of sim/board/commits.hpp."""

    _fields_ = [(name, ctypes.c_uint64) for name in OUTCOME]


@dataclass
class StormReport:
    """Sums of a run. `wrong` counts answers and words other than expected; `faults` what the scoreboard found."""

    seed: int
    commits: int = 0
    at_once: int = 0
    confirmed: int = 0
    rolled_back: int = 0
    expired: int = 0
    busy: int = 0
    fenced: int = 0
    checked_words: int = 0
    wrong: int = 0
    cycles: int = 0
    packets: int = 0
    delivered: int = 0
    dropped: int = 0
    lost: int = 0
    faults: int = 0

    @property
    def clean(self) -> bool:
        """Nothing lost, nothing wrong."""
        return not (self.wrong or self.lost or self.faults)

    def add(self, outcome: Outcome) -> None:
        """Count one call's figures."""
        for name in OUTCOME:
            if name != "first_wrong":
                setattr(self, name, getattr(self, name) + getattr(outcome, name))


def plan(config: DeviceConfig, commits: int, seed: int, *, gap: int = 60, confirm: int = 200) -> Plan:
    """A storm on a device of `config`, with the addresses of the register map."""
    def word(name: str) -> int:
        return register_map().register(name).address // 4

    return Plan(commits=commits, seed=seed, tenants=config.tenants, ports=config.ports, slots=config.slots,
                pages=config.pages, gap=gap, confirm=confirm, token=TOKEN, command=word("rm.command"),
                status=word("rm.status"), token_at=word("rm.token"), base_epoch=word("rm.base_epoch"),
                active=word("rm.active"), confirm_within=word("rm.confirm_within"),
                staging=word("staging[0].weight"), active_rows=word("active[0].weight"))


def classify(board: Board) -> None:
    """Entries for the frames of `frames`: a VLAN a tenant, a destination each."""
    config, base = board.config, register_map().register("classifier[0].action").address // 4
    for entry in range(min(config.classifier_entries, config.tenants)):
        port, destination = _frame_route(entry, config)
        board.write(base + 4 * entry, 1 | 1 << 1 | port << 4 | entry << 8 | destination << 16 | 1 << 20)
        board.write(base + 4 * entry + 1, VLAN_BASE + entry)


def _frame_route(tenant: int, config: DeviceConfig) -> tuple[int, int]:
    """Network port that the frames of a tenant enter, and where they go."""
    port = 1 + (tenant >= config.tenants // 2)
    return port, MATRIX[port][tenant % 2][0]


def traffic(config: DeviceConfig, rng: np.random.Generator, cycles: int) -> Array:
    """Packets of every input for so many cycles, at `LOAD` of its line."""
    parts = []
    for port, routes in MATRIX.items():
        lengths = rng.choice([24, 64, 96, 200, 256], size=cycles // 6)
        beats = -(-lengths // config.beat_bytes)
        arrival = np.cumsum(beats / LOAD)
        rows = np.zeros(int(np.searchsorted(arrival, cycles)), PACKET)
        rows["arrival"], rows["length"] = arrival[:len(rows)], lengths[:len(rows)]
        rows["seed"] = rng.integers(0, 1 << 62, len(rows), dtype=np.uint64)
        rows["request"] = rng.integers(0, 1 << 62, len(rows), dtype=np.uint64)
        rows["offset"], rows["port"], rows["flow_class"] = -1, port, 1
        if port == 0:
            rows["tenant"] = rng.integers(0, config.tenants, len(rows))
            rows["destination"] = rng.choice([d for d, _ in routes], size=len(rows), p=[share for _, share in routes])
            rows["flow_class"] = np.where(rows["destination"] == PROCESS, 8, 1)
        else:
            half = config.tenants // 2
            rows["tenant"] = rng.integers(0, half, len(rows)) + half * (port - 1)
            rows["destination"] = [MATRIX[port][tenant % 2][0] for tenant in rows["tenant"]]
            rows["vlan"] = VLAN_BASE + rows["tenant"]
        parts.append(rows)
    joined = np.concatenate(parts)
    return joined[np.argsort(joined["arrival"], kind="stable")]


class Storm:
    """A board under traffic, of which every input is fed as long as it lasts."""

    def __init__(self, board: Board, seed: int) -> None:
        config = board.config
        if config.ports != 4 or config.tenants < 2:
            raise MorphnicError(f"a storm needs a device of 4 ports and at least 2 tenants, not {config!r}")
        self.board, self.report = board, StormReport(seed)
        self._rng = np.random.default_rng(seed)
        self._calls, self._loaded = 0, board.cycle
        classify(board)
        board.write(register_map().register("rm.owner_token").address // 4, TOKEN)

    def feed(self) -> None:
        """Load traffic for the next stretch, if it is not there yet."""
        while self._loaded < self.board.cycle + STRETCH:
            self.board.load(traffic(self.board.config, self._rng, STRETCH), at=self._loaded)
            self._loaded += STRETCH

    def commits(self, count: int) -> None:
        """So many transactions, or fewer if something is wrong."""
        end = self.report.commits + count
        while self.report.commits < end and not self.report.wrong:
            self.feed()
            outcome = Outcome()
            part = min(COMMITS_A_CALL, end - self.report.commits)
            self.board.storm(plan(self.board.config, part, (self.report.seed << 24) + self._calls), outcome)
            self.report.add(outcome)
            self._calls += 1

    def finish(self) -> StormReport:
        """Let the device run empty, and account for every packet."""
        board, report = self.board, self.report
        board.drain(50 * STRETCH)
        board.settle_drops()
        dropped, cut = drop_counters(board)
        account = board.account(dropped=dropped, cut=cut)
        report.packets, report.delivered, report.dropped, report.lost = (
            account.taken, account.delivered, dropped, account.lost + cut)
        report.faults = sum(board.stats()[name] for name in FAULT_NAMES)
        return report


def run(config: DeviceConfig, commits: int, seed: int, *, model: Model | None = None) -> StormReport:
    """So many commits under traffic on a board of its own; the same arguments give the same run."""
    with Board(config, model=model, log_inputs=False) as board:
        storm = Storm(board, seed)
        storm.commits(commits)
        return storm.finish()
