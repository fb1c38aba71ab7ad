"""Cocotb drivers that the benches share: clock and reset, stream sources and sinks with pauses, a register bus.

Inputs change while the clock is low; handshakes are looked at just before it rises. Every driver is one coroutine that
takes one step a cycle, so a run depends on its seed and parameters alone.
"""

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, ReadOnly

BUS_CYCLES = 16  # the contract of the register bus


async def reset(dut, *cleared):
    """Start the clock, set the ports `cleared` to zero, and reset. A name that ends in `__` is a prefix of ports."""
    cocotb.start_soon(Clock(dut.clk, 10, unit="ns").start())
    dut.rst.value = 1
    inputs = [handle._name for handle in dut] if any(name.endswith("__") for name in cleared) else []
    for name in cleared:
        for port in [one for one in inputs if one.startswith(name)] if name.endswith("__") else [name]:
            getattr(dut, port).value = 0
    for _ in range(3):
        await FallingEdge(dut.clk)
    dut.rst.value = 0


class Source:
    """Offers `words` on the stream `name`, one after another; before each it pauses while `idle()`.

    taken: how many were transferred. gaps: cycles without an offer before each word.
    """

    def __init__(self, dut, name, idle=lambda: False):
        self.dut, self.idle = dut, idle
        self.valid, self.ready, self.payload = (getattr(dut, f"{name}__{port}")
                                                for port in ("valid", "ready", "payload"))
        self.words, self.taken, self.gaps = [], 0, []
        self.valid.value = 0
        cocotb.start_soon(self._run())

    @property
    def done(self):
        return self.taken == len(self.words)

    async def _run(self):
        offered, gap = False, 0
        while True:
            await FallingEdge(self.dut.clk)
            if not offered and self.taken < len(self.words):
                offered = not self.idle()
                gap += not offered
                if offered:
                    self.payload.value = self.words[self.taken]
                    self.gaps.append(gap)
                    gap = 0
            self.valid.value = int(offered)
            await ReadOnly()
            if offered and int(self.ready.value) and not int(self.dut.rst.value):
                self.taken += 1
                offered = False


class Sink:
    """Takes words from the stream `name`, except in cycles in which `busy()`; checks that offers are held.

    words: what was transferred. stalls: cycles for which each was held back. cycles: when each was transferred.
    """

    def __init__(self, dut, name, busy=lambda: False):
        self.dut, self.name, self.busy = dut, name, busy
        self.valid, self.ready, self.payload = (getattr(dut, f"{name}__{port}")
                                                for port in ("valid", "ready", "payload"))
        self.words, self.stalls, self.cycles = [], [], []
        self.ready.value = 0
        cocotb.start_soon(self._run())

    async def _run(self):
        held, stall, cycle = None, 0, 0
        while True:
            await FallingEdge(self.dut.clk)
            ready = not self.busy()
            self.ready.value = int(ready)
            await ReadOnly()
            offer = int(self.payload.value) if int(self.valid.value) else None  # of one bit, it is no array
            assert held is None or offer == held, f"{self.name}: an offer changed before it was taken"
            held = None
            if offer is not None and ready:
                self.words.append(offer)
                self.stalls.append(stall)
                self.cycles.append(cycle)
                stall = 0
            elif offer is not None:
                held, stall = offer, stall + 1
            cycle += 1


class Bus:
    """Initiator of the register bus on the ports `name`."""

    def __init__(self, dut, name="bus"):
        self.dut = dut
        self._port = lambda port: getattr(dut, f"{name}__{port}")
        self._port("valid").value = 0

    async def access(self, address, write, data=0, mask=15):
        """One access at a byte address; the word, and whether it was answered with an error."""
        for port, value in (("valid", 1), ("address", address // 4), ("write", int(write)), ("w_data", data),
                            ("w_mask", mask)):
            self._port(port).value = value
        for _ in range(BUS_CYCLES):
            await ReadOnly()
            if int(self._port("ready").value):
                answer = self._port("r_data").value.to_unsigned(), bool(int(self._port("error").value))
                await FallingEdge(self.dut.clk)
                self._port("valid").value = 0
                await FallingEdge(self.dut.clk)
                return answer
            await FallingEdge(self.dut.clk)
        raise AssertionError(f"no answer at {address:#x} within {BUS_CYCLES} cycles")

    async def write(self, address, data, mask=15):
        _, error = await self.access(address, True, data, mask)
        assert not error, f"write to {address:#x} refused"

    async def read(self, address):
        word, error = await self.access(address, False)
        assert not error, f"read from {address:#x} refused"
        return word


async def until(dut, done, limit, what):
    """Run until `done()`; fail after `limit` cycles."""
    for _ in range(limit):
        await FallingEdge(dut.clk)
        if done():
            return
    raise AssertionError(f"{what} not done within {limit} cycles")
