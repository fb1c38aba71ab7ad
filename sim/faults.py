"""`python -m sim.faults`: the link on lines that damage, lose and repeat; nothing may be silently wrong.

The real host side against the real gateware of the link, in device time. Every exchange must complete with what it
asked for, or raise within its time-out; each write must reach the registers at most once and in order, and what a
failure reports of it (applied, not applied, unknown) must be true. What reached the registers is taken from the
device's bus. First byte by byte, with eight kinds of faults and now and then a line that is cut; then bit by bit, with
noise on the pins. Chunks with a seed each; exit code 1 when anything was wrong, with the command that repeats it.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from device_link.linked import SessionTransport
from device_link.operations import Operation, Read, ReadList, Write, WriteList, is_write, touched
from device_link.planning import plan
from device_link.registers import register_map
from gateware.config import DeviceConfig
from morphnic.errors import LinkError, LinkTimeout, MorphnicError

from .line import Line, LinePipe

SCHEMA = 1
CHUNK = 10_000  # frames
BIT_CHUNK = 1_000
CONFIG = DeviceConfig(clock_hz=1_000_000, uart_baud=125_000)  # waiting costs few cycles at a slow clock
BYTE_CYCLES = 2
TURNAROUND = 0.00004  # seconds
TIMEOUT = 0.5
EVERY = (60, 150, 400, 2_000)  # bytes to a fault, by chunk
NOISE = ((5_000, 300), (20_000, 100), (60_000, 2_000))  # cycles to a disturbance, most that it lasts; a byte has 80
BASE, WORDS = 0x2000, 64  # the part of the memory that is used
_FRAMES_SENT = register_map().register("link.frames_sent").address
_HELLOS = 4  # two to begin with, two to find out what became of a failed exchange
_CUT = 250  # exchanges to a cut of the line
_LONGEST_CUT = 3 * TIMEOUT  # seconds


@dataclass
class FaultReport:
    """What a run saw. `wrong` must be empty; times are device time."""

    seed: int
    bits: bool
    frames: int = 0
    hit: int | None = 0  # frames that a fault touched; not known bit by bit
    faults: Counter[str] = field(default_factory=Counter)
    exchanges: int = 0
    completed: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)  # of exchanges that raised
    repeated: int = 0
    slowest: float = 0.0  # of an exchange, as a share of what it may take
    wrong: list[str] = field(default_factory=list)
    interrupted: bool = False

    def add(self, other: FaultReport) -> None:
        """Add the counts of another run."""
        self.frames += other.frames
        self.hit = None if self.hit is None or other.hit is None else self.hit + other.hit
        self.faults += other.faults
        self.exchanges += other.exchanges
        self.completed += other.completed
        self.outcomes += other.outcomes
        self.repeated += other.repeated
        self.slowest = max(self.slowest, other.slowest)
        self.wrong += other.wrong


class _Run:
    """One line, one link, and what its memory must hold."""

    def __init__(self, seed: int, *, bits: bool, simulate_idle: bool = False) -> None:
        self.report = FaultReport(seed, bits)
        self._rng = random.Random(seed)
        self.line = Line(CONFIG, seed=seed, turnaround=TURNAROUND, byte_cycles=0 if bits else BYTE_CYCLES)
        if simulate_idle:
            self.line.simulate_idle()
        self._pipe = LinePipe(self.line)
        self.link = SessionTransport(self._pipe, url=f"line://{seed}", timeout=TIMEOUT, writer=True, seed=seed)
        self._memory = [0] * WORDS

    def disturb(self, on: bool) -> None:
        """Faults from now on, or none."""
        seed = self.report.seed
        if self.report.bits:
            self.line.noise(*(NOISE[seed % len(NOISE)] if on else (0, 1)))
        else:
            self.line.faults(EVERY[seed % len(EVERY)] if on else 0)

    def exchange(self) -> None:
        """One exchange, and the judgement on it."""
        operations, report = self._draw(), self.report
        writes = [pair for operation in operations for pair in _pairs(operation)]
        expected, after = self._expected(operations)
        limit = self._limit(operations)
        if self._rng.randrange(_CUT) == 0:
            self.line.cut(self._rng.uniform(0.05, _LONGEST_CUT))
        started, outcome, found = self.line.seconds, "", None
        try:
            found = self.link.session.exchange(operations, ordered=self._rng.random() < 0.7)
        except LinkTimeout as error:
            outcome = error.outcome
        except LinkError as error:
            self._wrong(f"raised {type(error).__name__}: {error}")
        share = (self.line.seconds - started) / limit
        report.exchanges += 1
        report.completed += found is not None
        if found is None:
            report.outcomes[outcome] += 1
        report.slowest = max(report.slowest, share)
        if found is None:
            self.line.run(round(4 * TIMEOUT * CONFIG.clock_hz))  # what is still on its way arrives, and every cut ends
        applied = self.line.applied()
        self._judge(applied, writes, outcome)
        if found is not None and found != expected:
            self._wrong(f"read {found} instead of {expected}")
        if share > 1:
            self._wrong(f"took {share:.2f} times what it may take")
        for address, word in applied:
            self._memory[(address - BASE) // 4] = word
        if found is not None and self._memory != after:
            self._wrong("the memory is not what was written")

    def _judge(self, applied: list[tuple[int, int]], writes: list[tuple[int, int]], outcome: str) -> None:
        if applied != writes[:len(applied)]:
            self._wrong(f"the registers took {applied} where {writes} was written")
        elif outcome in ("", "applied") and len(applied) != len(writes):
            self._wrong(f"{len(applied)} of {len(writes)} writes were applied, told as {outcome or 'done'}")
        elif outcome == "not applied" and applied:
            self._wrong(f"{len(applied)} writes were applied, told as not applied")

    def _wrong(self, text: str) -> None:
        self.report.wrong.append(f"seed {self.report.seed}, exchange {self.report.exchanges}: {text}"[:2000])

    def _limit(self, operations: Sequence[Operation]) -> float:
        """Seconds within which an exchange completes or raises: each answer, and each hello, restarts the clock."""
        flights = plan(operations, largest=512, max_words=255, mixed=False, growing=True)
        whole = sum(flight.wire_bytes for flight in flights) + 1200
        return (len(flights) + _HELLOS) * (TIMEOUT + self._pipe.wire_time(whole))

    def _expected(self, operations: Sequence[Operation]) -> tuple[list[list[int]], list[int]]:
        """What each operation reads, and the memory behind the last."""
        memory, results = list(self._memory), []
        for operation in operations:
            for address, word in _pairs(operation):
                memory[(address - BASE) // 4] = word
            results.append([] if is_write(operation) else [memory[(one - BASE) // 4] for one in touched(operation)])
        return results, memory

    def _draw(self) -> list[Operation]:
        rng = self._rng
        return [self._operation() for _ in range(1 if rng.random() < 0.9 else rng.randrange(2, 9))]

    def _operation(self) -> Operation:
        rng = self._rng
        words = rng.randrange(1, 4) if rng.random() < 0.95 else rng.randrange(4, WORDS)
        address = BASE + 4 * rng.randrange(WORDS - words + 1)
        listed = tuple(BASE + 4 * rng.randrange(WORDS) for _ in range(words * rng.choice((1, 1, 1, 3))))
        match rng.randrange(4):
            case 0:
                return Read(address, words)
            case 1:
                return ReadList(listed)
            case 2:
                return Write(address, tuple(rng.getrandbits(32) for _ in range(words)))
        return WriteList(tuple((one, rng.getrandbits(32)) for one in listed))

    def finish(self) -> FaultReport:
        """The report; without faults the link works as if nothing had been."""
        report = self.report
        self.disturb(False)
        words = [self._rng.getrandbits(32) for _ in range(WORDS)]
        self.link.write(BASE, words)
        if self.link.read(BASE, WORDS) != words:
            self._wrong("a link whose faults have ended does not work")
        frames, hit, faults = self.line.counts
        report.frames, report.repeated = frames, self.link.session.repeated
        if report.bits:
            report.hit, report.faults = None, Counter(noise=self.line.noises)
            report.frames += self.link.read(_FRAMES_SENT)[0]
        else:
            report.hit, report.faults = hit, Counter(faults)
        self.line.close()
        return report


def _pairs(operation: Operation) -> list[tuple[int, int]]:
    """What the operation writes, in order."""
    match operation:
        case Write(address, words):
            return [(address + 4 * place, word) for place, word in enumerate(words)]
        case WriteList(pairs):
            return list(pairs)
    return []


def run(frames: int, seed: int, *, bits: bool = False, simulate_idle: bool = False) -> FaultReport:
    """Exchanges over one line until the host and, byte by byte, the device have sent `frames`.

    bits: bit by bit at the pins. simulate_idle: simulate every cycle; the result is the same.
    """
    going = _Run(seed, bits=bits, simulate_idle=simulate_idle)
    going.disturb(True)
    # Bit by bit only the host's frames are counted on their way; nearly each is answered by one of the device's.
    while going.line.counts[0] * (2 if bits else 1) < frames:
        going.exchange()
    return going.finish()


def campaign(frames: int, seed: int, *, bits: bool) -> FaultReport:
    """Chunks until there were `frames`; stops at a chunk in which something was wrong, or at an interrupt."""
    total, started = FaultReport(seed, bits, hit=None if bits else 0), time.monotonic()
    chunk = seed << 20
    while total.frames < frames and not total.wrong:
        try:
            total.add(run(min(BIT_CHUNK if bits else CHUNK, frames - total.frames), chunk, bits=bits))
        except KeyboardInterrupt:
            total.interrupted = True
            return total
        chunk += 1
        rate = total.frames / (time.monotonic() - started)
        print(f"{'bits' if bits else 'bytes'}: {total.frames:,} of {frames:,} frames, {rate:,.0f} a second, "
              f"{max(frames - total.frames, 0) / rate / 60:,.0f} min left; {'WRONG' if total.wrong else 'none wrong'}",
              file=sys.stderr, flush=True)
    return total


def _show(report: FaultReport) -> None:
    hit = "" if report.hit is None else f", {report.hit:,} of them hit"
    print(f"{'bit by bit' if report.bits else 'byte by byte'}, seed {report.seed}: {report.frames:,} frames{hit}; "
          f"{report.repeated:,} requests repeated" + ("; INTERRUPTED" if report.interrupted else ""))
    print("  faults     " + ", ".join(f"{name} {count:,}" for name, count in sorted(report.faults.items())))
    print(f"  exchanges  {report.exchanges:,}: {report.completed:,} completed; raised, with the outcome of what they "
          "wrote: " + (", ".join(f"{name} {count:,}" for name, count in sorted(report.outcomes.items()) if count)
                       or "none") + f"; slowest {report.slowest:.2f} of its limit")
    print(f"  wrong      {len(report.wrong)}")
    for text in report.wrong[:5]:
        print(f"    {text}")


def main(argv: Sequence[str] | None = None) -> int:
    """Both campaigns, and what they saw."""
    parser = argparse.ArgumentParser(prog="python -m sim.faults", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--frames", type=int, default=1_000_000, help="byte by byte (default %(default)s)")
    parser.add_argument("--bit-frames", type=int, default=10_000, help="bit by bit (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="default %(default)s")
    parser.add_argument("--json", action="store_true", help="one JSON object a campaign")
    arguments = parser.parse_args(argv)
    try:
        reports = [campaign(frames, arguments.seed, bits=bits)
                   for frames, bits in ((arguments.frames, False), (arguments.bit_frames, True)) if frames > 0]
    except MorphnicError as error:
        print(f"morphnic: {error}", file=sys.stderr)
        return error.exit_code
    for report in reports:
        if arguments.json:
            print(json.dumps({"schema": SCHEMA, **vars(report)}))
        else:
            _show(report)
    if any(report.interrupted for report in reports):
        return 130
    return int(any(report.wrong for report in reports))


if __name__ == "__main__":
    sys.exit(main())
