"""What share of a 1 M baud wire the link turns into payload: the real gateware, bit by bit, and the real host side.

The simulated device's pins are driven by a serialiser model; the host's session engine runs in device time, with a
modelled turnaround between a byte's arrival and the host's reading it. The limit is 4 bytes of every 4 bytes on the
wire in the direction that carries the words: 25,000 words a second at 1 M baud. Beside it, computed from its wire
format: LiteX's UARTBone, one exchange at a time.
"""

import random

from _figures import Figure, arguments, machine, progress, report

from device_link.linked import SessionTransport
from device_link.operations import Write
from device_link.pipe import ByteChannel, FramedPipe
from gateware.config import DeviceConfig
from sim.board import Board, Stop

BITS = 10  # a byte on the wire: 8N1
HISTOGRAM, GUARANTEES = 0x10000, 0x1800  # byte addresses
#: UARTBone: command, length and address before the data, no acknowledge: bytes there and back of one exchange.
UARTBONE = {"scattered": (6, 4, 1), "bulk read": (6, 4 * 8, 8), "bulk write": (6 + 4 * 8, 0, 8)}


class BoardLine(ByteChannel):
    """The serial line of a board, bit by bit, in device time; `turnaround` seconds pass before bytes are seen."""

    def __init__(self, board: Board, baud: int, turnaround: float) -> None:
        self._board, self._hz = board, board.config.clock_hz
        self._baud, self._turnaround = baud, turnaround
        board.link_mode(pins=True, divisor=self._hz // baud)

    @property
    def bytes_per_second(self) -> float:
        """Rate of the line."""
        return self._baud / BITS

    @property
    def seconds(self) -> float:
        """Device time."""
        return self._board.cycle / self._hz

    def write(self, data: bytes) -> None:
        """Queue bytes for the device; the line takes its time."""
        self._board.link_write(data)

    def read(self, timeout: float) -> bytes:
        """Let time pass until bytes come, then for the turnaround; what arrived by then."""
        self._board.advance(max(round(timeout * self._hz), 1), Stop.LINK)
        if self._turnaround:
            self._board.advance(round(self._turnaround * self._hz))
        return self._board.link_read()

    def close(self) -> None:
        """Nothing to let go of."""


class DeviceTimePipe(FramedPipe):
    """Frames over a `BoardLine`, whose clock is the device's."""

    def __init__(self, line: BoardLine) -> None:
        super().__init__(line)
        self._line = line

    def now(self) -> float:
        """Device time."""
        return self._line.seconds


def uartbone(kind: str, baud: int, turnaround: float) -> float:
    """UARTBone's share of the limit, from its wire format: nothing overlaps, each exchange waits for the host."""
    there, back, words = UARTBONE[kind]
    seconds = (there + back) * BITS / baud + turnaround
    return 4 * words * BITS / baud / seconds


def share(config: DeviceConfig, kind: str, words: int, turnaround: float) -> float:
    """Share of the limit that `kind` of access reaches over about `words` words."""
    rng = random.Random(1)
    with Board(config, log_inputs=False) as board:
        line = BoardLine(board, config.uart_baud, turnaround)
        transport = SessionTransport(DeviceTimePipe(line), url="bench://line", timeout=5.0, writer=True, seed=1)
        rows = [0x3000 + 32 * rng.randrange(config.tenants) + 4 * rng.randrange(7) for _ in range(words)]
        started = line.seconds
        if kind == "scattered":
            transport.read_many(rows)
        elif kind == "bulk read":
            transport.read(HISTOGRAM, words)
        else:
            # The largest block that may always be written, again and again; straight to the engine of requests,
            # since `Transport.write` takes one block and `write_many` waits for each request.
            block = Write(GUARANTEES, tuple(range(2 * config.tenants)))
            transport.session.exchange([block] * (words // len(block.words)), ordered=False)
        return 4 * words / (line.seconds - started) / line.bytes_per_second


def main() -> None:
    """Measure each kind at each turnaround."""
    options = arguments(__doc__.splitlines()[0], words={"type": int, "default": 2048, "help": "default %(default)s"})
    config = DeviceConfig()
    found = []
    for turnaround in (0.0, 0.001):
        for kind in ("scattered", "bulk read", "bulk write"):
            progress(f"{kind}, host turnaround {turnaround * 1e3:g} ms")
            value = share(config, kind, options.words, turnaround)
            peer = uartbone(kind, config.uart_baud, turnaround)
            name = "link.scattered_over_wire" if kind == "scattered" else "link.bulk_over_wire"
            conditions = {"kind": kind, "baud": config.uart_baud, "turnaround_ms": turnaround * 1e3,
                          "words": options.words, **machine()}
            found.append(Figure(name, value, "of the wire", {"uartbone": peer}, (">=", 0.9), conditions))
    report(found, as_json=options.json)


if __name__ == "__main__":
    main()
