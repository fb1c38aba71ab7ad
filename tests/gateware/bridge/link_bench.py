"""A bench around `LinkBridge`: byte streams with idle and back-pressure, a register bus, a telemetry source."""

import random

from amaranth.sim import Simulator

from device_link.framing import FrameDecoder
from gateware.bridge.link import LinkBridge
from gateware.config import DeviceConfig
from gateware.csr.regmap import word_ranges
from tests.device_link.line import RegisterModel

BOOT_NONCE = 0xC0FFEE01
LINK_RANGE = word_ranges(["link"])[0]


class LinkBench:
    """Sends `chunks` (bytes, one frame or some noise each), keeping at most `outstanding` of them unanswered.

    busy: probability of a cycle without a byte on `rx`; stalls: of one without room on `tx`; latency: most cycles
    that a register takes. windows: lists of words, sent one after another over and over with `gap` cycles between.
    `open` is whether `tx` has room at all.
    """

    def __init__(self, chunks, *, seed=0, busy=0.0, stalls=0.0, latency=3, outstanding=8, windows=(), gap=0,
                 registers=None, config=None, answers=None, nonce=BOOT_NONCE, limit=200_000):
        self.dut = LinkBridge(config or DeviceConfig())
        self.registers = registers or RegisterModel()
        self.sent = bytearray()
        self.telemetry_stalls = 0
        self.cycles = 0
        self._chunks = list(chunks)
        self._rng = random.Random(seed)
        self._busy, self._stalls, self._latency = busy, stalls, latency
        self._outstanding = outstanding
        self._windows, self._gap, self._nonce = windows, gap, nonce
        self._answers = len(self._chunks) if answers is None else answers
        self._limit = limit
        self._frames_out = 0
        self._decoder = FrameDecoder()
        self.messages = []
        self.open = True
        self._answered = 0

    def run(self):
        """Run until every chunk is answered; the messages that came back."""
        simulator = Simulator(self.dut)
        simulator.add_clock(1e-8)
        simulator.add_testbench(self._send)
        simulator.add_testbench(self._serve, background=True)
        simulator.add_testbench(self._receive)
        if self._windows:
            simulator.add_testbench(self._telemetry, background=True)
        simulator.run()
        return self.messages

    def answers(self):
        """Messages but pushed windows."""
        return [message for message in self.messages if message[0] != 0x83]

    def pushed(self):
        """Payloads of pushed windows."""
        return [message[3:] for message in self.messages if message[0] == 0x83]

    async def _send(self, ctx):
        ctx.set(self.dut.boot_nonce, self._nonce)
        for number, chunk in enumerate(self._chunks):
            while number - self._answered >= self._outstanding:
                await ctx.tick()
            await self._send_bytes(ctx, chunk)

    async def _send_bytes(self, ctx, chunk):
        for byte in chunk:
            while self._rng.random() < self._busy:
                await ctx.tick()
            ctx.set(self.dut.rx.payload, byte)
            ctx.set(self.dut.rx.valid, 1)
            _, _, ready = await ctx.tick().sample(self.dut.rx.ready)
            assert ready, "a serial line cannot wait"
            ctx.set(self.dut.rx.valid, 0)

    async def _receive(self, ctx):
        tx = self.dut.tx
        held = None
        while self._answered < self._answers:
            ready = self.open and self._rng.random() >= self._stalls
            ctx.set(tx.ready, ready)
            _, _, valid, payload = await ctx.tick().sample(tx.valid, tx.payload)
            self.cycles += 1
            assert self.cycles < self._limit, f"{len(self.messages)} answers after {self.cycles} cycles"
            if held is not None:
                assert valid, "valid fell before the transfer"
                assert payload == held, "payload changed before the transfer"
            held = payload if valid and not ready else None
            if valid and ready:
                self.sent.append(payload)
                for message in self._decoder.feed(bytes([payload])):
                    assert message is not None, "the device sent a damaged frame"
                    self.messages.append(message)
                    self._answered += message[0] != 0x83

    async def _serve(self, ctx):
        bus, link = self.dut.bus, self.dut.registers
        while True:
            _, _, valid, address, write, data, mask = await ctx.tick().sample(
                bus.valid, bus.address, bus.write, bus.w_data, bus.w_mask)
            if not valid:
                continue
            if address in LINK_RANGE:
                ctx.set(link.address, address)
                ctx.set(link.write, write)
                ctx.set(link.w_data, data)
                ctx.set(link.w_mask, mask)
                ctx.set(link.valid, 1)
                done = False
                while not done:
                    _, _, done, result, error = await ctx.tick().sample(link.ready, link.r_data, link.error)
                ctx.set(link.valid, 0)
            else:
                for _ in range(self._rng.randrange(self._latency + 1)):
                    await ctx.tick()
                result, error = self._access(4 * address, write, data)
                assert mask == 0b1111
            ctx.set(bus.r_data, result)
            ctx.set(bus.error, error)
            ctx.set(bus.ready, 1)
            await ctx.tick()
            ctx.set(bus.ready, 0)

    def _access(self, address, write, data):
        if address in self.registers.hole:
            return 0xDEAD_BEEF, 1
        if write:
            self.registers.write(address, data)
            return 0, 0
        return self.registers.read(address), 0

    async def _telemetry(self, ctx):
        telemetry = self.dut.telemetry
        while True:
            for words in self._windows:
                for position, word in enumerate(words):
                    ctx.set(telemetry.payload.data, word)
                    ctx.set(telemetry.payload.last, position == len(words) - 1)
                    ctx.set(telemetry.valid, 1)
                    _, _, ready = await ctx.tick().sample(telemetry.ready)
                    while not ready:
                        self.telemetry_stalls += 1
                        _, _, ready = await ctx.tick().sample(telemetry.ready)
                ctx.set(telemetry.valid, 0)
                for _ in range(self._gap):
                    await ctx.tick()
