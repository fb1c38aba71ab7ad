"""The serial port bit by bit: frames, baud error, glitches, broken stop bits, overflow, another rate."""

import math
import random
from itertools import pairwise

import pytest

from gateware.bridge.serial import SerialPort
from gateware.bridge.uart import MIN_PERIOD, period_of
from tests.gateware.simulation import simulate

pytestmark = pytest.mark.slow  # together more than `make test-fast` has time for


def levels(byte, stop=1):
    """Line levels of one byte, a bit each."""
    return [0, *(byte >> bit & 1 for bit in range(8)), stop]


class UartBench:
    """Drives `rx_pin` with (level, cycles) and records bytes, framing errors and overflows."""

    def __init__(self, divisor, waveform, *, ready=lambda cycle: True):
        self.dut = SerialPort(round(8 * divisor))
        self._divisor = divisor
        self.bytes, self.framing_errors, self.overflows = [], 0, 0
        self._waveform = waveform
        self._ready = ready

    async def _drive(self, ctx):
        cycle = 0
        await ctx.tick().repeat(3)
        time, total = 0.0, 0
        for level, cycles in [*self._waveform, (1, 3 * self._divisor)]:
            ctx.set(self.dut.rx_pin, level)
            time += cycles
            for _ in range(round(time) - total):
                ready = self._ready(cycle)
                ctx.set(self.dut.rx.ready, ready)
                _, _, valid, payload, framing, overflow = await ctx.tick().sample(
                    self.dut.rx.valid, self.dut.rx.payload, self.dut.framing_error, self.dut.overflow)
                cycle += 1
                self.framing_errors += framing
                self.overflows += overflow
                if valid and ready:
                    self.bytes.append(payload)
            total = round(time)

    def run(self):
        simulate(self.dut, self._drive)
        return self


def waveform(data, bit_cycles, gap=lambda: 0):
    """Levels and durations of `data` sent back to back, with `gap()` idle bits between bytes."""
    out = [(1, 2 * bit_cycles)]
    for byte in data:
        out += [(level, bit_cycles) for level in levels(byte)]
        out.append((1, gap() * bit_cycles))
    return out


@pytest.mark.slow
@pytest.mark.parametrize("divisor", [4, 4.125, 5, 8, 8.375, 13, 33.25, 50])
def test_bytes_back_to_back_are_received(divisor):
    data = random.Random(int(8 * divisor)).randbytes(12) + b"\0\xff\x55"
    bench = UartBench(divisor, waveform(data, divisor)).run()
    assert bytes(bench.bytes) == data
    assert (bench.framing_errors, bench.overflows) == (0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("error", [-0.03, -0.015, 0.015, 0.03])
def test_sender_with_another_rate_is_understood(error):
    divisor = 100
    data = random.Random(1).randbytes(6) + b"\0\xff"
    bench = UartBench(divisor, waveform(data, divisor * (1 + error))).run()
    assert bytes(bench.bytes) == data
    assert bench.framing_errors == 0


def test_sender_with_a_wrong_rate_is_not_silently_understood():
    data = bytes([0x55] * 6)
    bench = UartBench(50, waveform(data, 50 * 1.3)).run()
    assert bytes(bench.bytes) != data


def test_idle_between_bytes_changes_nothing():
    rng = random.Random(3)
    data = rng.randbytes(12)
    bench = UartBench(16, waveform(data, 16, gap=lambda: rng.random() * 3)).run()
    assert bytes(bench.bytes) == data


def test_glitch_shorter_than_half_a_bit_begins_nothing():
    divisor = 32
    glitches = [(1, 64), (0, 10), (1, 400), (0, 3), (1, 400), (0, 1), (1, 400)]
    bench = UartBench(divisor, glitches + waveform(b"\xa5", divisor)).run()
    assert bytes(bench.bytes) == b"\xa5"
    assert bench.framing_errors == 0


@pytest.mark.parametrize("offset", range(6, 26, 2))
def test_spike_in_a_bit_is_outvoted(offset):
    divisor = 32
    spiked = [(1, 64)]
    for level in levels(0x5A):
        spiked += [(level, offset), (1 - level, 2), (level, divisor - 2 - offset)]
    bench = UartBench(divisor, spiked).run()
    assert bytes(bench.bytes) == b"\x5a"


def test_missing_stop_bit_loses_that_byte_only():
    divisor = 16
    broken = [(level, divisor) for level in levels(0x0F, stop=0)] + [(0, 5 * divisor), (1, 2 * divisor)]
    bench = UartBench(divisor, waveform(b"\x11", divisor) + broken + waveform(b"\x22", divisor)).run()
    assert bytes(bench.bytes) == b"\x11\x22"
    assert bench.framing_errors == 1


def test_byte_that_finds_no_room_is_lost_and_told():
    divisor = 8
    data = b"\x01\x02\x03"
    start = 2 * divisor + 2 * 10 * divisor + 5 * divisor
    bench = UartBench(divisor, waveform(data, divisor), ready=lambda cycle: cycle > start).run()
    assert bytes(bench.bytes) == b"\x01\x03"
    assert bench.overflows == 1


@pytest.mark.parametrize("idle", [0, 0.5], ids=["back-to-back", "with-idle"])
@pytest.mark.parametrize("divisor", [4, 4.5, 7, 8.375, 20])
def test_bytes_are_sent_bit_by_bit_and_one_behind_the_other(divisor, idle):
    """Each edge is at the cycle after it is due: a byte that waits begins where the stop bit before it is due to end,
    so that neither a fraction of a cycle nor the hand-over slows the line; any other begins with a cycle."""
    print(f"seed {int(8 * divisor)}")
    dut, rng = SerialPort(int(8 * divisor)), random.Random(int(8 * divisor))
    data = rng.randbytes(6) + b"\0\xff"
    line = []

    async def send(ctx):
        for byte in data:
            if rng.random() < idle:
                await ctx.tick().repeat(rng.randrange(int(40 * divisor)))
            ctx.set(dut.tx.payload, byte)
            ctx.set(dut.tx.valid, 1)
            await ctx.tick().until(dut.tx.ready)
            ctx.set(dut.tx.valid, 0)
        await ctx.tick().repeat(int(25 * divisor))

    async def watch(ctx):
        while True:
            _, _, level = await ctx.tick().sample(dut.tx_pin)
            line.append(level)

    simulate(dut, send, background=[watch])
    received, due, waited = [], 0.0, 0
    while 0 in line[math.ceil(due):]:
        start = line.index(0, math.ceil(due))
        follows = start == math.ceil(due)
        waited += not follows
        due = due if follows else start
        edges = [math.ceil(due + index * divisor) for index in range(11)]
        bits = [line[begin:end] for begin, end in pairwise(edges)]
        assert all(len(set(bit)) == 1 for bit in bits), "a bit changes within its time"
        assert bits[9][0] == 1
        received.append(sum(bits[1 + index][0] << index for index in range(8)))
        due += 10 * divisor
    assert bytes(received) == data
    assert waited == 1 if idle == 0 else waited > 1, "only the first byte waits for its start"


def test_period_is_in_eighths_of_a_cycle_and_must_leave_room_for_samples():
    assert period_of(100_000_000, 12_000_000) == 67
    assert period_of(100_000_000, 25_000_000) == MIN_PERIOD
    for baud in (26_000_000, 700):
        with pytest.raises(ValueError, match=r"baud must be within 763\.\.25000000 at 100000000 Hz, not"):
            period_of(100_000_000, baud)


def test_bytes_are_understood_at_the_rate_of_the_last_greeting():
    """A break and 0x55 at each rate; what may come of the greeting itself is no part of the contract."""
    rng = random.Random(7)
    data = [b"\0" + rng.randbytes(6) for _ in range(3)]
    line = []
    for bit, part in zip([20, 6.25, 90], data, strict=True):
        line += [(1, 200), (0, 1200), (1, 200), *waveform(b"\x55", bit), (1, 20 * bit), *waveform(part, bit)]
    found = bytes(UartBench(12, line).run().bytes)
    positions = [found.find(part) for part in data]
    assert -1 not in positions
    assert positions == sorted(positions)
