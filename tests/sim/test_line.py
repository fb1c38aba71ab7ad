"""The link bit by bit, gateware and host together: full speed, a noisy line, another rate, windows in between."""

from __future__ import annotations

import random

import pytest

from device_link.linked import SessionTransport
from device_link.operations import Read, ReadList, Write
from gateware.config import DeviceConfig
from morphnic.errors import LinkTimeout
from sim.line import Line, LinePipe

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


def frames(line, link, seed, exchanges):
    """Random exchanges against a model of the memory; how many raised. None may be wrong, or applied twice."""
    rng = random.Random(seed)
    known: dict[int, int] = {}
    raised = 0
    for _ in range(exchanges):
        addresses = rng.sample(range(BASE, BASE + 0x400, 4), rng.randrange(1, 16))
        try:
            if rng.random() < 0.5:
                pairs = [(address, rng.getrandbits(32)) for address in addresses]
                link.write_many(pairs)
                known |= dict(pairs)
            else:
                assert link.read_many(addresses) == [known.get(address, 0) for address in addresses]
        except LinkTimeout as error:
            raised += 1
            if error.outcome == "applied":
                known |= dict(pairs)
            elif error.outcome == "unknown":  # find out
                line.noise(0, 1)
                now = link.read_many(range(BASE, BASE + 0x400, 4))
                known = dict(zip(range(BASE, BASE + 0x400, 4), now, strict=True))
                line.noise(NOISE[0], NOISE[1])
    return raised


#: Once in so many cycles each direction is inverted, for up to so many cycles: two or three bytes at 12 M baud.
NOISE = (60_000, 200)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(4))
def test_noise_on_the_pins_is_never_silently_wrong(seed):
    """With the retries of its losses this is more than 10,000 frames over all seeds."""
    print(f"seed {seed}")
    line = Line(CONFIG, seed=seed)
    link = connect(line, seed=seed, timeout=2.0)
    line.noise(*NOISE)
    frames(line, link, seed, 1_300)
    assert line.noises > 300
    assert link.session.repeated > 50
    line.noise(0, 1)
    link.write(BASE, [7, 8, 9])
    assert link.read(BASE, 3) == [7, 8, 9]
    line.close()


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
