"""Captures as VCD and FST, read back by an implementation of both formats that shares no code with the writers."""

import random

import pytest
import pywellen

from device_link.scope import Capture, Probe, write
from device_link.scope.files import FORMATS
from morphnic.errors import InputError

PROBES = (Probe("fabric.outputs0.header.valid", 0, 1, {}), Probe("manager.state", 1, 3, {0: "IDLE", 5: "DRAINING"}),
          Probe("fabric.outputs0.data.data", 4, 70, {}), Probe("fabric.outputs0.data.last", 74, 1, {}))
BITS = 75
PERIOD = 10_000  # picoseconds


def random_capture(seed, trigger):
    """A capture with equal runs in a row, and long ones; `trigger` is the place of its row, or None."""
    rng = random.Random(seed)
    runs = [(rng.getrandbits(BITS), rng.choice([1, 1, 2, 65536])) for _ in range(40)]
    runs.insert(7, (runs[6][0], 3))
    start = rng.getrandbits(40)
    cycles = [length for _, length in runs]
    return Capture(PROBES, tuple(runs), start + sum(cycles),
                   None if trigger is None else start + sum(cycles[:trigger]), 100_000_000)


def read_back(path):
    """Name to [(time in picoseconds, value)] of a file."""
    wave = pywellen.Waveform(str(path))
    assert (wave.timescale.factor, str(wave.timescale.unit)) == (1, "ps")
    variables = {variable.full_name: variable for variable in wave.all_vars()}
    return {name: [(time, int(str(value), 2)) for time, value in changes_of(variable)]
            for name, variable in variables.items()}, variables


def changes_of(variable):
    """Times and values, as bits."""
    return [(time, f"{value:b}" if isinstance(value, int) else value) for time, value in variable.tv]


def at(changes, time):
    """The value at `time`."""
    return [value for when, value in changes if when <= time][-1]


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("trigger", [None, 0, 7, 20, 40])
@pytest.mark.parametrize("seed", range(2))
def test_file_has_every_probe_in_every_cycle(tmp_path, seed, trigger, suffix):
    print(f"seed={seed}")
    capture = random_capture(seed, trigger)
    path = tmp_path / f"out{suffix}"
    write(path, capture)
    found, variables = read_back(path)
    assert {name: variable.bitwidth for name, variable in variables.items()} == {
        **{probe.name: probe.width for probe in PROBES}, "scope.trigger": 1}
    cycle = capture.start
    for sample, cycles in capture.runs:
        for one in {cycle, cycle + 1, cycle + cycles - 1} & set(range(cycle, cycle + cycles)):
            for probe in PROBES:
                assert at(found[probe.name], one * PERIOD) == probe.extract(sample), (probe.name, one)
            assert at(found["scope.trigger"], one * PERIOD) == (one == capture.trigger), one
        cycle += cycles
    for probe in PROBES:
        times = [time for time, _ in found[probe.name]]
        assert times[0] == capture.start * PERIOD
        assert all(time % PERIOD == 0 and time < capture.end * PERIOD for time in times)


def test_names_of_enums_are_in_the_fst(tmp_path):
    write(tmp_path / "out.fst", random_capture(1, 3))
    _, variables = read_back(tmp_path / "out.fst")
    assert variables["manager.state"].enum_type[1] == [("000", "IDLE"), ("101", "DRAINING")]
    assert variables["fabric.outputs0.data.last"].enum_type is None


@pytest.mark.parametrize("suffix", FORMATS)
def test_capture_without_rows_is_refused(tmp_path, suffix):
    with pytest.raises(InputError, match="the capture has no rows"):
        write(tmp_path / f"out{suffix}", Capture(PROBES, (), 1000, None, 100_000_000))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "message"), [
    ("out.txt", "a capture is written as .vcd or .fst, not as 'out.txt'"),
    ("no/out.vcd", "no/out.vcd: the folder does not exist"),
])
def test_file_that_cannot_be_written_is_refused(tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        write(tmp_path.joinpath(name).relative_to(tmp_path), random_capture(1, 3))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", FORMATS)
def test_nothing_is_left_of_a_file_whose_writing_failed(tmp_path, suffix):
    kept = tmp_path / f"out{suffix}"
    kept.write_text("older")
    broken = Capture(PROBES, ((1 << 80, 1), (0, "no number")), 1000, None, 100_000_000)
    with pytest.raises(TypeError):
        write(kept, broken)
    assert [path.name for path in tmp_path.iterdir()] == [kept.name]
    assert kept.read_text() == "older"
