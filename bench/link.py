"""What share of the wire a serial link turns into payload: the real gateware, bit by bit, and the real host side.

Serial port and bridge of the device run in cycle-accurate simulation at 100 MHz; the host's session engine runs in
device time, with a modelled turnaround between a byte's arrival and the host's reading it. The limit is four bytes a
word, all the time, in the direction that carries the words. Scattered: lists of 64 addresses that lie apart, pipelined.
Bulk: blocks of 250 words. Snapshots: pushed windows of 16 tenants, as many as the line takes. Time counts to the last
byte's arrival. Beside it, from its wire format: LiteX's UARTBone, single reads where addresses lie apart, and bursts of
255 words read or 8 written (its client's most), one exchange at a time.
"""

import random
import struct

from _figures import Figure, arguments, machine, progress, report

from device_link.linked import SessionTransport
from device_link.operations import Read, ReadList, Write
from gateware.config import DeviceConfig
from sim.line import Line, LinePipe

BITS = 10  # a byte on the wire: 8N1
BAUDS = (115_200, 1_000_000, 3_000_000, 12_000_000)
TURNAROUNDS = (0.0, 0.001, 0.016)
KINDS = ("scattered", "bulk read", "bulk write", "snapshot")
BLOCK, LIST = 250, 64  # words of an operation
FIRST, SPACE = 0x2000, 0x1_0000  # byte addresses of the memory that stands for registers
WINDOW_WORDS = 8 + 16 * 16
#: UARTBone: command, length, address, then data, no acknowledge: (words read, words written) of each exchange.
UARTBONE = {"scattered": [(1, 0)], "bulk read": [(255, 0)], "bulk write": [(0, 8)],
            "snapshot": [(255, 0), (WINDOW_WORDS - 255, 0)]}
UARTBONE_HEADER = 6  # bytes


def uartbone(kind: str, baud: int, turnaround: float) -> float:
    """UARTBone's share of the limit, from its wire format: nothing overlaps, each exchange waits for the host."""
    exchanges = UARTBONE[kind]
    words = sum(read + written for read, written in exchanges)
    seconds = (UARTBONE_HEADER * len(exchanges) + 4 * words) * BITS / baud + turnaround * len(exchanges)
    return 4 * words * BITS / baud / seconds


def share(line: Line, kind: str, words: int) -> float:
    """Share of the limit that `kind` of transfer reaches over about `words` words."""
    rng = random.Random(1)
    transport = SessionTransport(LinePipe(line), url="bench://line", timeout=5.0, writer=True, seed=1)
    started = line.seconds
    if kind == "scattered":
        lists = [ReadList(tuple(rng.sample(range(FIRST, SPACE, 4), LIST))) for _ in range(-(-words // LIST))]
        transport.session.exchange(lists, ordered=False)
        done = LIST * len(lists)
    elif kind == "snapshot":
        return snapshots(line, transport, words)
    else:
        block = Read(FIRST, BLOCK) if kind == "bulk read" else Write(FIRST, tuple(range(BLOCK)))
        count = -(-words // BLOCK)
        # Straight to the engine of requests: `Transport.write_many` waits for each request before the next.
        transport.session.exchange([block] * count, ordered=False)
        done = BLOCK * count
    if transport.session.repeated:
        raise RuntimeError(f"{kind}: {transport.session.repeated} requests were repeated on a line without faults")
    return 4 * done / (line.last_byte - started) / line.bytes_per_second


def snapshots(line: Line, transport: SessionTransport, words: int) -> float:
    """Pushed windows, made as often as the limit would carry them: a few more than there is room for."""
    transport.write(4 * 0x100, [1])  # link.control.push
    every = round(4 * WINDOW_WORDS * line.hz / line.bytes_per_second)
    count = -(-words // WINDOW_WORDS)
    line.windows(WINDOW_WORDS, every, count)
    started = line.seconds + every / line.hz
    found: list[bytes] = []
    while more := transport.session.windows(3 * every / line.hz + line.turnaround):
        found += more
    words_sent = struct.pack(f"<{WINDOW_WORDS}I", *range(WINDOW_WORDS))
    if any(window[:24] + window[28:] != words_sent[:24] + words_sent[28:] for window in found):
        raise RuntimeError("a pushed window is not what the device sent")  # but for word 6, which counts the skipped
    took = max(line.last_byte - started, count * every / line.hz)  # a last one that is skipped shortens nothing
    return 4 * WINDOW_WORDS * len(found) / took / line.bytes_per_second


def main() -> None:
    """Measure each kind at each rate and turnaround."""
    options = arguments(
        __doc__.splitlines()[0],
        words={"type": int, "default": 30_000, "help": "of a transfer at 12 M baud; fewer below (default %(default)s)"},
        bauds={"type": int, "nargs": "+", "default": BAUDS, "help": "rates of the line"},
        kinds={"choices": KINDS, "nargs": "+", "default": KINDS, "help": "of transfers"})
    config = DeviceConfig()
    found = []
    for baud in options.bauds:
        for turnaround in TURNAROUNDS:
            for kind in options.kinds:
                progress(f"{baud} baud, host turnaround {turnaround * 1e3:g} ms, {kind}")
                line = Line(config, baud=baud, turnaround=turnaround)
                words = max(1_000, round(options.words * baud / 12e6))
                value = share(line, kind, words)
                line.close()
                name = f"link.{kind.split()[0]}_over_wire"
                conditions = {"kind": kind, "baud": baud, "turnaround_ms": turnaround * 1e3, "words": words,
                              "in_flight": 64, **machine()}
                peer = {"uartbone": uartbone(kind, baud, turnaround)}
                found.append(Figure(name, value, "of the wire", peer, (">=", 0.95), conditions))
                if options.json:  # a run takes long: what is known is told
                    report(found[-1:], as_json=True)
    if not options.json:
        report(found, as_json=False)


if __name__ == "__main__":
    main()
