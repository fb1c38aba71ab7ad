"""The link bit by bit, gateware and host together: full speed, another rate, windows in between, a cut."""

from __future__ import annotations

import random

import pytest

from device_link.framing import encode_frame
from device_link.linked import SessionTransport
from device_link.operations import Hello, Read, ReadList, Request, Write, WriteList, encode_operations
from gateware.config import DeviceConfig
from morphnic.errors import LinkTimeout
from sim.line import IDLE_CYCLES, Line, LinePipe

pytestmark = pytest.mark.slow  # builds a model of the link

CONFIG = DeviceConfig(uart_baud=12_000_000)
BASE, SPACE = 0x2000, 0x1_0000
PUSH = 0x400


def connect(line, *, seed=1, timeout=1.0):
    return SessionTransport(LinePipe(line), url="line://test", timeout=timeout, writer=True, seed=seed)


@pytest.fixture
def line(request):
    made = Line(CONFIG, **getattr(request, "param", {}))
    yield made
    made.close()


@pytest.mark.parametrize("line", [{"turnaround": seconds} for seconds in (0.0, 0.001, 0.016)], indirect=True)
def test_lists_fill_the_line_and_overrun_nothing_at_any_turnaround(line):
    link = connect(line)
    lists = [ReadList(tuple(random.Random(i).sample(range(BASE, SPACE, 4), 64))) for i in range(200)]
    started = line.seconds
    link.session.exchange(lists, ordered=False)
    assert link.session.repeated == 0
    assert 4 * 64 * 200 / (line.last_byte - started) / line.bytes_per_second > 0.95


@pytest.mark.long
@pytest.mark.parametrize("baud", [57_600, 921_600, 3_000_000, 8_000_000])
def test_host_of_another_rate_is_understood_after_its_greeting(baud):
    """The device begins at 12 M baud, and follows; a second host at another rate is followed again."""
    line = Line(CONFIG, baud=baud)
    link = connect(line, timeout=2.0)
    link.write(BASE, [baud, 2])
    assert link.read(BASE, 2) == [baud, 2]
    line.set_baud(2_000_000)
    again = connect(line, seed=2, timeout=2.0)
    assert again.read(BASE, 2) == [baud, 2]
    line.close()


def test_windows_between_answers_disturb_neither(line):
    link = connect(line)
    link.write(PUSH, [1])
    line.windows(words=264, every=120_000)
    words = [random.Random(3).getrandbits(32) for _ in range(8_000)]
    link.write(BASE, words)
    assert link.read(BASE, len(words)) == words
    windows = link.session.windows(1.0)
    assert len(windows) > 10
    assert all(len(window) == 4 * 264 for window in windows)


def test_windows_made_as_fast_as_the_line_carries_their_words_fill_it(line):
    """Frames take a little longer than their words: a few windows find no room, and the line is not idle for them."""
    link = connect(line)
    link.write(PUSH, [1])
    every = round(4 * 264 * line.hz / line.bytes_per_second)
    line.windows(words=264, every=every, count=25)
    started = line.seconds + every / line.hz
    windows = []
    while more := link.session.windows(3 * every / line.hz):
        windows += more
    assert 4 * 264 * len(windows) / (line.last_byte - started) / line.bytes_per_second > 0.95


def test_line_that_is_cut_in_a_block_of_writes_tells_what_became_of_it(line):
    link = connect(line, timeout=0.3)
    link.write(BASE, [0] * 500)
    line.noise(1, 1 << 40)  # nothing is understood any more
    with pytest.raises(LinkTimeout) as caught:
        link.session.exchange([Write(BASE, tuple(range(1, 251))), Write(BASE + 1000, tuple(range(250)))], ordered=False)
    assert caught.value.outcome in ("unknown", "not applied")
    line.noise(0, 1)
    line.run(2_000_000)
    assert link.session.exchange([Read(BASE, 2)], ordered=True)[0] in ([0, 0], [1, 2])


@pytest.mark.parametrize("operations", [
    [Write(BASE, (0xFFFFFFFF,) * 125)],
    [WriteList(tuple((BASE + 4 * index, 0xFFFFFFFF) for index in range(84)))],
    [WriteList(((BASE, 1),))] * 63,
], ids=["block", "list", "lists"])
def test_link_is_never_silent_for_as_long_as_counts_for_idle(operations):
    """The longest requests that write: behind the header of the answer nothing is sent until all is written."""
    line = Line(CONFIG, byte_cycles=2)
    line.simulate_idle()
    line.write(b"\0" + encode_frame(Hello(7).encode()))
    line.run(1_000)
    line.read(1e-9)
    body = encode_operations(operations)
    assert len(body) > 500
    line.write(encode_frame(Request(7, 0, body).encode()))
    silences, started = [], line.cycle
    while line.cycle < started + 6_000:
        before = line.cycle
        if line.read(6_000 / line.hz):
            silences.append(line.cycle - before)
    assert 1_000 < max(silences[1:]) < IDLE_CYCLES, silences
    line.close()
