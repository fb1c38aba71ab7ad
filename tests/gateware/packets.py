"""Packets on packet ports in Amaranth's simulator: send and take them, with idle cycles and back-pressure."""

import random
from dataclasses import dataclass, field
from typing import Any

from amaranth.lib.data import Layout
from amaranth.sim import Simulator

from gateware.config import DeviceConfig


@dataclass
class Packet:
    """One packet: header fields by name, and its bytes."""

    payload: bytes
    fields: dict[str, int] = field(default_factory=dict)

    def header(self) -> dict[str, int]:
        return {"length": len(self.payload), **self.fields}


@dataclass
class Pace:
    """How often a stream is idle, or a sink not ready: a probability each cycle."""

    probability: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)

    def pauses(self) -> bool:
        return self._rng.random() < self.probability


def beats_of(payload: bytes, config: DeviceConfig, filler: int = 0xEE) -> list[tuple[int, int, int]]:
    """(data, empty, last) of each beat; unused bytes hold `filler`, so that one who uses them is caught."""
    size = config.beat_bytes
    beats = []
    for start in range(0, len(payload), size):
        part = payload[start:start + size]
        word = int.from_bytes(part.ljust(size, bytes([filler])), "little")
        beats.append((word, size - len(part), int(start + size >= len(payload))))
    return beats


async def send_beats(ctx: Any, stream: Any, packets: list[bytes], config: DeviceConfig, pace: Pace) -> None:
    for payload in packets:
        for word, empty, last in beats_of(payload, config):
            while pace.pauses():
                await ctx.tick()
            ctx.set(stream.payload, {"data": word, "empty": empty, "last": last})
            ctx.set(stream.valid, 1)
            await ctx.tick().until(stream.ready)
            ctx.set(stream.valid, 0)


async def send_headers(ctx: Any, stream: Any, packets: list[Packet]) -> None:
    for packet in packets:
        ctx.set(stream.payload, packet.header())
        ctx.set(stream.valid, 1)
        await ctx.tick().until(stream.ready)
        ctx.set(stream.valid, 0)


def add_source(simulator: Simulator, port: Any, packets: list[Packet], config: DeviceConfig,
               pace: Pace | None = None, after: int = 1) -> None:
    """Send `packets` into `port` from cycle `after` on; a header is offered as soon as the one before was taken."""
    async def headers(ctx: Any) -> None:
        for _ in range(after):
            await ctx.tick()
        await send_headers(ctx, port.header, packets)

    async def beats(ctx: Any) -> None:
        for _ in range(after):
            await ctx.tick()
        await send_beats(ctx, port.data, [packet.payload for packet in packets], config, pace or Pace())

    simulator.add_testbench(headers, background=True)
    simulator.add_testbench(beats, background=True)


class Sink:
    """Takes packets from `port` and checks the contract: a header no later than its first beat, stable offers."""

    def __init__(self, simulator: Simulator, port: Any, config: DeviceConfig, pace: Pace | None = None):
        self.packets: list[Packet] = []
        self.cycles: list[int] = []  # in which each packet's last beat passed
        self._port, self._config, self._pace = port, config, pace or Pace()
        self._headers: list[dict[str, int]] = []
        self._bodies: list[bytes] = []
        self._body = b""
        simulator.add_testbench(self._run, background=True)

    async def _run(self, ctx: Any) -> None:
        header, data = self._port.header, self._port.data
        held: list[Any] = [None, None]  # what was offered and not taken
        cycle = 0
        while True:
            ready = [not self._pace.pauses(), not self._pace.pauses()]
            ctx.set(header.ready, ready[0])
            ctx.set(data.ready, ready[1])
            _, _, header_valid, fields, data_valid, beat = await ctx.tick().sample(
                header.valid, header.payload, data.valid, data.payload)
            for index, (valid, offer) in enumerate([(header_valid, fields), (data_valid, beat)]):
                now = offer.as_bits() if valid else None
                assert held[index] in (None, now), "an offer changed before it was taken"
                held[index] = None if ready[index] else now
            if data_valid:
                assert len(self._headers) + header_valid > len(self._bodies), "a beat came before its header"
            if header_valid and ready[0]:
                self._headers.append({name: int(getattr(fields[name], "value", fields[name]))
                                      for name, _ in Layout.cast(fields.shape())})
            if data_valid and ready[1]:
                self._take(beat, cycle)
            while self._headers and self._bodies:
                self.packets.append(Packet(self._bodies.pop(0), self._headers.pop(0)))
            cycle += 1

    def _take(self, beat: Any, cycle: int) -> None:
        assert beat.last or beat.empty == 0, "empty bytes before the last beat"
        size = self._config.beat_bytes
        self._body += beat.data.to_bytes(size, "little")[:size - beat.empty]
        if beat.last:
            self.cycles.append(cycle)
            self._bodies.append(self._body)
            self._body = b""


def run_until(simulator: Simulator, done: Any, limit: int = 100_000) -> None:
    """Run until `done()`; fail after `limit` cycles."""
    async def wait(ctx: Any) -> None:
        for _ in range(limit):
            await ctx.tick()
            if done():
                return
        raise AssertionError(f"not done within {limit} cycles")

    simulator.add_testbench(wait)
    simulator.run()
