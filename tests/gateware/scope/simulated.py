"""A `Scope` in Amaranth's simulator, reached as software reaches it: time passes by accesses, and by `run`."""

import random

from amaranth import Signal
from amaranth.sim import Simulator

from device_link.device import Device
from device_link.operations import touched
from device_link.registers import register_map
from device_link.responder import BusFault, carry_out
from device_link.transport import BusError, Capability, Transport
from gateware.scope.probes import Probe
from gateware.scope.scope import LATENCY, Scope
from tests.device_link.device_model import DeviceModel

BLOCKS = ("scope", "scope_pattern", "scope_description", "scope_rows")
IDLE_STEP = 50  # cycles that pass before each look at the state

#: Name, bits, names of values: what the tests sample.
PROBES = (("link.rx.valid", 1, {}), ("link.rx.payload", 8, {}), ("manager.state", 2, {0: "IDLE", 2: "STAGING"}),
          ("fabric.outputs0.header.valid", 1, {}), ("fabric.outputs0.header.tenant", 3, {}))
BITS = sum(bits for _, bits, _ in PROBES)


def bursty(seed, *, idle=0.7):
    """Samples without end: each probe by itself changes, or stays for a while."""
    rng = random.Random(seed)
    values = [0] * len(PROBES)
    while True:
        sample = low = 0
        for place, (_, bits, _) in enumerate(PROBES):
            if rng.random() >= idle:
                values[place] = rng.getrandbits(bits)
            sample |= values[place] << low
            low += bits
        yield sample


class SimulatedScope:
    """The block and its clock. `samples[n]` is what the probes were in cycle *n*; `answers`: (cycle, address, word)."""

    def __init__(self, stimulus, rows=32, probes=PROBES):
        self.dut = Scope([Probe(name, Signal(bits), values) for name, bits, values in probes], rows)
        self.samples, self.answers = [], []
        self._stimulus, self._pending, self._answered = stimulus, [], []
        self.simulator = Simulator(self.dut)
        self.simulator.add_clock(1e-8)
        self.simulator.add_process(self._clocked)

    async def _clocked(self, ctx):
        """One round a clock; what is set here is there until the next edge, as if registers held it."""
        bus = self.dut.bus
        shown, busy = None, False
        while True:
            sample = next(self._stimulus)
            if sample != shown:
                ctx.set(self.dut.sampled, sample)
                shown = sample
            ctx.set(self.dut.cycle, len(self.samples))
            self.samples.append(sample)
            if self._pending:
                address, word = self._pending[0]
                ctx.set(bus.address, address // 4)
                ctx.set(bus.write, word is not None)
                ctx.set(bus.w_data, word or 0)
                ctx.set(bus.w_mask, 15)
            if busy != bool(self._pending):
                busy = not busy
                ctx.set(bus.valid, busy)
            _, _, ready, error, data = await ctx.tick().sample(bus.ready, bus.error, bus.r_data)
            if busy and ready:
                self.answers.append((len(self.samples) - 1, *self._pending.pop(0)))
                self._answered.append((error, data))

    def run(self, cycles):
        """Let time pass."""
        end = len(self.samples) + cycles
        while len(self.samples) < end:
            self.simulator.advance()

    def access(self, address, word=None):
        """One access; `BusFault` when it is refused."""
        return self.accesses([(address, word)])[0]

    def accesses(self, wanted):
        """Accesses (address, word or None) each in the cycle after the answer to the one before; what was read."""
        self._pending, self._answered = list(wanted), []
        start = len(self.samples)
        while self._pending:
            self.simulator.advance()
            assert len(self.samples) < start + 16 * len(wanted), f"no answer at {self._pending[0][0]:#x}"
        if any(error for error, _ in self._answered):
            raise BusFault
        return [data for _, data in self._answered]

    def armed_from(self):
        """Cycle of the first sample of the last capture: the recorder's two cycles after the answer to arming."""
        control = register_map().register("scope.control").address
        answered = [cycle for cycle, address, word in self.answers if address == control and word and word & 1][-1]
        return answered + 2 - LATENCY


class ScopedModel(DeviceModel):
    """A device at register level whose logic analyzer is the gateware's."""

    def __init__(self, scope, **arguments):
        super().__init__(**arguments)
        self.scope = scope
        blocks = [self.map.block(name) for name in BLOCKS]
        self._ranges = [range(block.address, block.address + (4 * block.memory_words or block.stride))
                        for block in blocks]
        self._status = self.map.register("scope.status").address
        self.poke("id.config2", self.peek("id.config2") | 1 << self.map.register("id.config2").fields["scope"].lsb)

    def read(self, address):
        if not any(address in covered for covered in self._ranges):
            return super().read(address)
        if address == self._status:
            self.scope.run(IDLE_STEP)
        return self.scope.access(address)

    def write(self, address, word):
        if any(address in covered for covered in self._ranges):
            self.scope.access(address, word)
            return
        super().write(address, word)


class ModelTransport(Transport):
    """Registers of a model in this process. before: is called with the number of each exchange."""

    capabilities = Capability.REGISTERS | Capability.TIME_GRANTS

    def __init__(self, model, *, before=None):
        super().__init__("model://", writer=True)
        self.model, self.before, self.exchanges = model, before, 0

    def _execute(self, operations, *, ordered):
        self.exchanges += 1
        if self.before:
            self.before(self.exchanges)
        results = []
        for index, operation in enumerate(operations):
            words, status, _ = carry_out(self.model, [operation])
            if status:
                raise BusError("model:// refused", index=index, addresses=touched(operation)[:1])
            results.append(words)
        return results

    def _advance(self, cycles):
        self.model.scope.run(cycles)
        return {"ok": True}

    def _close(self):
        pass


def device_with(stimulus, *, rows=32, before=None):
    """A device whose logic analyzer samples `stimulus`, and the block."""
    scope = SimulatedScope(stimulus, rows)
    return Device(ModelTransport(ScopedModel(scope), before=before)), scope
