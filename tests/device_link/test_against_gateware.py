"""The host's protocol engine against the real device, simulated, over a line that damages bytes, in device time."""

import random

import pytest

from device_link.device import Device
from device_link.linked import SessionTransport
from device_link.pipe import ByteChannel, FramedPipe
from gateware.config import DeviceConfig
from tests.device_link.line import Faults

CYCLES_PER_SECOND = 2_000_000  # of the host's clock: a line of 500 kBd, whose time-outs cost few cycles to simulate
UNKNOWN_COMMAND = 15
CYCLES_PER_BYTE = 40

#: Building the model waits for others that build the same one.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


class BoardChannel(ByteChannel):
    """The serial line of a simulated board, a byte each `CYCLES_PER_BYTE` cycles and way, with faults."""

    def __init__(self, board, *, seed, rate):
        self.board = board
        self.to_device, self.to_host = Faults(seed, rate), Faults(seed + 1, rate)

    @property
    def bytes_per_second(self):
        return CYCLES_PER_SECOND / CYCLES_PER_BYTE

    def write(self, data):
        self.board.link_write(self.to_device.apply(data))

    def read(self, timeout):
        end = self.board.cycle + max(1, int(timeout * CYCLES_PER_SECOND))
        while not (data := self.board.link_read()) and self.board.cycle < end:
            self.board.advance(min(2_000, end - self.board.cycle))
        return self.to_host.apply(data)

    def greet(self):
        """The byte stream has no rate."""

    def close(self):
        pass


class BoardPipe(FramedPipe):
    """A framed pipe on the board's clock."""

    def __init__(self, channel):
        super().__init__(channel)
        self._board = channel.board

    def now(self):
        return self._board.cycle / CYCLES_PER_SECOND


@pytest.fixture(scope="module")
def board():
    from sim.board import Board

    with Board(DeviceConfig()) as made:
        made.link_mode(cycles_per_byte=CYCLES_PER_BYTE)
        yield made


def connect(board, *, seed, rate):
    channel = BoardChannel(board, seed=seed, rate=rate)
    link = SessionTransport(BoardPipe(channel), url="board://", timeout=2.0, writer=True, seed=seed)
    return Device(link), channel


@pytest.mark.parametrize(("seed", "rate", "most"), [
    (1, 0.0, 120), (2, 0.0005, 120), (3, 0.001, 60), (4, 0.004, 20), (5, 0.01, 6)])
def test_every_exchange_completes_and_nothing_is_written_twice(board, seed, rate, most):
    """The worse the line, the shorter the lists: what damages nearly every frame can only time out."""
    rng = random.Random(seed)
    dev, channel = connect(board, seed=seed, rate=rate)
    handles = [dev.objective[tenant].slo for tenant in range(16)]
    held = {handle.address: int(value) for handle, value in zip(handles, dev.read(handles), strict=True)}
    refused = int(dev.rm.refused.read())
    for _ in range(60):
        kind = rng.choice(["write", "read", "command"])
        if kind == "write":
            addresses = rng.choices(list(held), k=rng.randrange(1, most + 1))
            pairs = [(address, rng.getrandbits(32)) for address in addresses]
            dev.transport.write_many(pairs)
            held.update(pairs)
        elif kind == "command":
            dev.rm.command.write(op=UNKNOWN_COMMAND)  # not idempotent: each one that is applied is counted
            refused += 1
        else:
            addresses = rng.choices(list(held), k=rng.randrange(1, 2 * most + 1))
            assert dev.transport.read_many(addresses) == [held[address] for address in addresses]
    channel.to_device.rate = channel.to_host.rate = 0.0
    assert int(dev.rm.refused.read()) == refused
    assert dev.transport.session.repeated > 0 or not rate


def test_bulk_and_scattered_access_fill_the_line(board):
    dev, _ = connect(board, seed=1, rate=0.0)
    start = board.cycle
    dev.histogram.words(0, 4096)
    bulk = 4 * 4096 * CYCLES_PER_BYTE / (board.cycle - start)
    start = board.cycle
    dev.transport.read_many([0x1000 + 4 * (index % 20) for index in range(2000)])
    scattered = 4 * 2000 * CYCLES_PER_BYTE / (board.cycle - start)
    assert bulk > 0.9
    assert scattered > 0.9
