"""The logic analyzer in a whole device against the simulator's own waveform: the same signals in the same cycles."""

import re
from itertools import pairwise

import numpy as np
import pytest
import pywellen

from device_link.device import Device
from device_link.linked import SessionTransport
from device_link.scope import LogicAnalyzer, State, write
from gateware.config import DeviceConfig
from sim.board import PACKET, Board
from sim.build import Variant
from sim.inprocess import BoardTransport
from tests.device_link.test_against_gateware import CYCLES_PER_BYTE, BoardChannel, BoardPipe

#: The smallest device; one build, that traces, is all that these tests need.
CONFIG = DeviceConfig(ports=2, data_width=32, tenants=2, slots=1, pages=32, classifier_entries=1, rules=1,
                      histograms=False, access_patterns=False, forecasts=False, scope_rows=256,
                      scope_probes=("fabric.outputs0", "manager.changed", "manager.allocation.epoch", "link.rx"))
BEGIN, COMMIT = 1, 3

#: Building the model takes minutes on a machine that does other things besides.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture
def board():
    with Board(CONFIG, variant=Variant.TRACE) as made:
        yield made


def load_packets(board, seed, count=60):
    """Packets of tenant 0 from the host port to itself, from soon after a capture is armed."""
    rng = np.random.default_rng(seed)
    rows = np.zeros(count, PACKET)
    rows["arrival"] = board.cycle + 12_000 + np.sort(rng.integers(0, 60 * count, count))
    rows["seed"] = rng.integers(0, 1 << 60, count, dtype=np.uint64)
    rows["offset"] = -1
    rows["length"] = rng.integers(17, 100, count)
    rows["flow_hash"] = rng.integers(0, 1 << 16, count)
    rows["flow_class"] = rng.integers(0, 4, count)
    board.load(rows)


def commit(device):
    """Begin a new allocation like the active one, and commit it without confirmation."""
    rm = device.rm
    epoch = rm.active.read().epoch
    device.write([(rm.owner_token, 7), (rm.token, 7), (rm.confirm_within, 0), (rm.base_epoch, {"epoch": epoch})])
    for op in (BEGIN, COMMIT):
        rm.command.write(op=op)
        while rm.status.read().busy or rm.status.read().state == 1:
            device.advance(16)
    assert rm.active.read().epoch == epoch + 1


def traced_name(probe):
    """A probe's signal in the waveform: `fabric.outputs0.header.tenant` is `outputs__0__header__payload.tenant`."""
    block, _, path = probe.partition(".")
    *scopes, last = re.sub(r"(?<=[a-z])(\d+)", r"__\1", path).split(".")
    joined = "__".join(scopes)
    plain = "__".join([*scopes, last])
    return f"{block}.{plain}", f"{block}.{joined}__payload.{last}"


class Waveform:
    """The simulator's VCD, by device cycle: what a signal was at the end of each."""

    def __init__(self, path):
        top = "top.board_top.dut."
        self._variables = {variable.full_name.removeprefix(top): variable
                           for variable in pywellen.Waveform(str(path)).all_vars()}
        counted = [(time, number(value)) for time, value in self._variables["cycle"].tv]
        # The counter's next value marks the end of a cycle.
        self._ends = {cycle: after for (_, cycle), (after, _) in pairwise(counted)}

    def values(self, name, cycles):
        """Values of `name` in `cycles`."""
        changes = [(time, number(value)) for time, value in self._variables[name].tv]
        times = np.array([time for time, _ in changes])
        return [changes[int(np.searchsorted(times, self._ends[cycle])) - 1][1] for cycle in cycles]

    def __contains__(self, name):
        return name in self._variables


def number(value):
    return value if isinstance(value, int) else int(str(value), 2)


def compare(board, capture, path):
    """Every probe in every cycle with the waveform of these cycles."""
    board.advance(20)
    board.waveform(path, start=capture.start - 2, cycles=capture.end - capture.start + 12)
    traced = Waveform(path)
    cycles, samples = range(capture.start, capture.end), capture.samples()
    assert len(samples) == len(cycles)
    for probe in capture.probes:
        (name,) = [one for one in traced_name(probe.name) if one in traced]
        assert [probe.extract(sample) for sample in samples] == traced.values(name, cycles), probe.name


@pytest.mark.parametrize(("before", "cycles"), [(0.25, 0), (0.5, 150)])
def test_capture_equals_the_waveform_of_the_same_cycles(board, tmp_path, before, cycles):
    device = Device(BoardTransport(board))
    scope = LogicAnalyzer(device)
    load_packets(board, seed=1)
    scope.arm("fabric.outputs0.header.valid & fabric.outputs0.header.ready & fabric.outputs0.header.length[4] times 9 "
              "then rise(fabric.outputs0.data.last)", before=before, cycles=cycles)
    scope.wait(300)
    capture = scope.read()
    assert capture.trigger is not None
    if cycles:
        assert capture.end == capture.trigger + cycles
    else:
        assert len(capture.runs) == CONFIG.scope_rows
    assert len({sample for sample, _ in capture.runs}) > 50, "something happened"
    compare(board, capture, tmp_path / "sim.vcd")


def test_commit_is_caught_in_the_cycle_that_the_manager_tells(board, tmp_path):
    device = Device(BoardTransport(board))
    scope = LogicAnalyzer(device)
    scope.arm("change(manager.allocation.epoch)", cycles=50)
    commit(device)
    scope.wait(60)
    capture = scope.read()
    epoch, changed = (next(probe for probe in capture.probes if probe.name == name)
                      for name in ("manager.allocation.epoch", "manager.changed"))
    by_cycle = dict(zip(range(capture.start, capture.end), capture.samples(), strict=True))
    assert [epoch.extract(by_cycle[capture.trigger + step]) for step in (-1, 0, 1)] == [0, 1, 1]
    assert sum(changed.extract(sample) for sample in by_cycle.values()) == 1
    assert abs(int(device.rm.changed_at.read()) - capture.trigger) <= 1
    compare(board, capture, tmp_path / "sim.vcd")


def test_capture_over_the_serial_link_is_the_one_that_the_register_port_reads(board):
    straight = LogicAnalyzer(Device(BoardTransport(board)))
    board.link_mode(cycles_per_byte=CYCLES_PER_BYTE)
    pipe = BoardPipe(BoardChannel(board, seed=1, rate=0))
    scope = LogicAnalyzer(Device(SessionTransport(pipe, url="board://", timeout=2.0, writer=True, seed=1)))
    assert scope.probes == straight.probes
    scope.arm("rise(link.rx.valid) & link.rx.ready times 3", before=0.5, cycles=300)
    while scope.status().state is not State.COMPLETE:
        board.advance(1000)
    capture = scope.read()
    assert capture == straight.read()
    probe = next(probe for probe in capture.probes if probe.name == "link.rx.valid")
    triggered, before = capture.samples()[capture.trigger - capture.start], capture.samples()[
        capture.trigger - capture.start - 1]
    assert (probe.extract(triggered), probe.extract(before)) == (1, 0)


def test_files_have_the_cycles_of_the_device(board, tmp_path):
    device = Device(BoardTransport(board))
    scope = LogicAnalyzer(device)
    load_packets(board, seed=2)
    scope.arm("fabric.outputs0.header.valid", before=0.5, cycles=100)
    scope.wait(300)
    capture = scope.read()
    for suffix in (".vcd", ".fst"):
        path = tmp_path / f"out{suffix}"
        write(path, capture)
        variables = {variable.full_name: variable for variable in pywellen.Waveform(str(path)).all_vars()}
        rises = [time for time, value in variables["scope.trigger"].tv if number(value)]
        assert rises == [capture.trigger * 10_000], "10 ns a cycle"
        valid = [time // 10_000 for time, value in variables["fabric.outputs0.header.valid"].tv if number(value)]
        assert valid[0] == capture.trigger
