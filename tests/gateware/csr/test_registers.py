"""Register blocks against a model made from the map: masks, access, strobes, external blocks."""

import random

import pytest
from amaranth import Cat

from gateware.csr import regmap
from gateware.csr.registers import RegisterBlock
from tests.gateware.csr.initiator import access, outputs
from tests.gateware.simulation import simulate

BLOCKS = {"id": None, "rm": None, "generator": None, "slot": 3, "classifier": 2}
LIMITS = {"slot": 3, "classifier": 2}


def registers_of(names):
    """Byte address -> (prefix, register) of everything that must answer."""
    found = {}
    for name in names:
        block = regmap.node(name)
        for index in range(LIMITS.get(name, 1)):
            base = name if block.count is None else f"{name}_{index}"
            for register in block.registers:
                found[block.address + index * block.stride + register.offset] = (
                    f"{base}_{register.name}", register)
    return found


class Model:
    """What the block must hold and answer."""

    def __init__(self, names):
        self.registers = registers_of(names)
        self.values = {f"{prefix}_{field.name}": field.reset if field.writable else 0
                       for prefix, register in self.registers.values() for field in register.fields}
        self.pulses = {f"{prefix}_{field.name}" for prefix, register in self.registers.values()
                       for field in register.fields if field.singlepulse}

    def access(self, address, value, mask):
        """(error, word read, strobes and pulses raised)"""
        if address not in self.registers:
            return 1, 0, {}
        prefix, register = self.registers[address]
        if value is not None and not register.writable:
            return 1, 0, {}
        word, raised = 0, {}
        bits = sum(0xFF << 8 * byte for byte in range(4) if mask >> byte & 1)
        for field in register.fields:
            name = f"{prefix}_{field.name}"
            if name not in self.pulses:
                word |= self.values[name] << field.lsb
            if value is None or not field.writable:
                continue
            enabled = bits >> field.lsb & (1 << field.width) - 1
            new = self.values[name] & ~enabled | value >> field.lsb & enabled
            if enabled:
                raised[f"{prefix}_written"] = 1
            if name in self.pulses:
                raised[name] = new
            else:
                self.values[name] = new
        return 0, word if value is None else None, raised


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_random_accesses_match_the_map(seed):
    rng = random.Random(seed)
    dut = RegisterBlock(BLOCKS)
    model = Model(BLOCKS)
    inputs = {f"{prefix}_{field.name}" for prefix, register in model.registers.values()
              for field in register.fields if not field.writable}
    strobes = {f"{prefix}_written" for prefix, register in model.registers.values() if register.writable}
    ports = {name: getattr(dut, name) for name in {*model.values, *strobes} - inputs}
    flag_names = sorted(strobes | model.pulses)
    flags = Cat(ports[name] for name in flag_names)
    around = [address + step for address in model.registers for step in (0, 0, 0, 4, 8)]
    around += [regmap.node("slot").address + 32 * 3, regmap.node("link").address, 0x3FFFC]

    async def test(ctx):
        for name in sorted(inputs):
            model.values[name] = rng.getrandbits(len(getattr(dut, name)))
            ctx.set(getattr(dut, name), model.values[name])
        for _ in range(400):
            address = rng.choice(around)
            value = rng.getrandbits(32) if rng.random() < 0.6 else None
            mask = rng.choice([0xF, 0xF, 0, rng.randrange(16)])
            expected_error, expected_word, raised = model.access(address, value, mask)
            error, word, cycles, watched = await access(ctx, dut.bus, address, value, mask, watch=flags)
            assert watched == sum(raised.get(name, 0) << bit for bit, name in enumerate(flag_names)), hex(address)
            assert (error, cycles) == (expected_error, 3), hex(address)
            if value is None and not error:
                assert word == expected_word, hex(address)
            # Strobes and pulses were in the cycle of the answer; now only the values are left.
            assert outputs(ctx, ports) == {name: 0 if name in strobes | model.pulses else model.values[name]
                                           for name in ports}
            await ctx.tick().repeat(rng.choice([1, 1, 4]))

    simulate(dut, test)


def test_written_and_pulse_are_high_with_the_new_value_for_one_cycle():
    dut = RegisterBlock(("generator",))
    seen = []

    async def watch(ctx):
        ctx.set(dut.bus.valid, 1)
        ctx.set(dut.bus.write, 1)
        ctx.set(dut.bus.address, 0x9000 // 4)
        ctx.set(dut.bus.w_data, 3)
        ctx.set(dut.bus.w_mask, 1)
        for cycle in range(7):
            seen.append((ctx.get(dut.bus.ready), ctx.get(dut.generator_control_enable),
                         ctx.get(dut.generator_control_clear), ctx.get(dut.generator_control_written)))
            await ctx.tick()
            if cycle == 2:
                ctx.set(dut.bus.valid, 0)

    simulate(dut, watch)
    assert seen == [(0, 0, 0, 0), (0, 0, 0, 0), (1, 1, 1, 1), (0, 1, 0, 0), (0, 1, 0, 0), (0, 1, 0, 0), (0, 1, 0, 0)]


@pytest.mark.parametrize("mask", [0b0010, 0b1100, 0])
def test_write_without_a_byte_of_the_command_is_no_command(mask):
    dut = RegisterBlock(("rm",))
    strobes = []

    async def test(ctx):
        await access(ctx, dut.bus, 0x1000, 3)
        ctx.set(dut.bus.valid, 1)
        ctx.set(dut.bus.w_mask, mask)
        for _ in range(3):
            await ctx.tick()
            strobes.append(ctx.get(dut.rm_command_written))
        assert ctx.get(dut.rm_command_op) == 3

    simulate(dut, test)
    assert strobes == [0, 0, 0]


def test_back_to_back_accesses_take_three_cycles_each():
    dut = RegisterBlock(("rm",))

    async def test(ctx):
        ctx.set(dut.bus.valid, 1)
        ctx.set(dut.bus.write, 1)
        ctx.set(dut.bus.w_mask, 0xF)
        for number, address in enumerate((0x1008, 0x100C, 0x1020)):
            ctx.set(dut.bus.address, address // 4)
            ctx.set(dut.bus.w_data, number + 1)
            readies = []
            for _ in range(3):
                readies.append(ctx.get(dut.bus.ready))
                await ctx.tick()
            assert readies == [0, 0, 1]
        assert ctx.get(dut.rm_token_value) == 1
        assert ctx.get(dut.rm_owner_token_value) == 2
        assert ctx.get(dut.rm_stall_timeout_cycles) == 3

    simulate(dut, test)


def test_ready_is_low_while_valid_is_low():
    dut = RegisterBlock({"rm": None, "guarantee": 4})

    async def test(ctx):
        ctx.set(dut.guarantee.ready, 1)
        for address in (0x1000, 0x1800, 0x5000):
            ctx.set(dut.bus.address, address // 4)
            for _ in range(3):
                assert not ctx.get(dut.guarantee.valid)
                await ctx.tick()
                if address != 0x1800:
                    assert not ctx.get(dut.bus.ready)

    simulate(dut, test)


def test_external_block_gets_absolute_addresses_and_answers_in_its_own_time():
    dut = RegisterBlock({"rm": None, "guarantee": 4, "histogram": 16})
    rng = random.Random(1)
    served = []

    def target(port, base):
        async def serve(ctx):
            while True:
                while not ctx.get(port.valid):
                    await ctx.tick()
                for _ in range(rng.randrange(6)):
                    await ctx.tick()
                address, write, data, mask = (ctx.get(signal) for signal in (
                    port.address, port.write, port.w_data, port.w_mask))
                served.append((address * 4, write, data, mask))
                ctx.set(port.ready, 1)
                ctx.set(port.r_data, address * 4 ^ 0xABCD0000)
                ctx.set(port.error, address * 4 == base + 8)
                await ctx.tick()
                ctx.set(port.ready, 0)
        return serve

    async def test(ctx):
        for base, end in ((0x1800, 0x1800 + 32), (0x10000, 0x10000 + 64)):
            for address in (base, base + 8, end - 4) * 4:
                mask = rng.randrange(16)
                error, word, _ = await access(ctx, dut.bus, address, 5, mask)
                assert served.pop() == (address, 1, 5, mask)
                assert error == (address == base + 8)
                # An own register right after it, whatever the target's latency was.
                assert (await access(ctx, dut.bus, 0x1008, address))[::2] == (0, 3)
                assert await access(ctx, dut.bus, 0x1008) == (0, address, 3)
                error, word, _ = await access(ctx, dut.bus, address)
                assert served.pop()[:2] == (address, 0)
                assert word == address ^ 0xABCD0000
            for address in (base - 4, end):
                assert (await access(ctx, dut.bus, address))[0] == 1
                assert not served
        assert (await access(ctx, dut.bus, 0x1008, 9))[::2] == (0, 3)
        assert not served

    simulate(dut, test, background=[target(dut.guarantee, 0x1800), target(dut.histogram, 0x10000)])


@pytest.mark.parametrize(("names", "error", "message"), [
    ((), ValueError, "names must be at least one block"),
    ("rm", TypeError, "names must be a sequence"),
    (("nobody",), ValueError, "block must be one of"),
    ({"slot": 17}, ValueError, "count of slot must be in 1..16, not 17"),
    ({"slot": 0}, ValueError, "count of slot must be in 1..16, not 0"),
    ({"rm": 2}, ValueError, "count of rm must be in 1..1, not 2"),
])
def test_constructor_refuses(names, error, message):
    with pytest.raises(error, match=message):
        RegisterBlock(names)


def test_every_block_of_the_map_elaborates():
    dut = RegisterBlock({block.name: min(block.elements, 2) for block in regmap.nodes()})

    async def test(ctx):
        assert await access(ctx, dut.bus, 0x28) == (0, 0, 3)

    simulate(dut, test)
