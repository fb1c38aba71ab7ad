"""The latencies that the reference states, in cycles from the cycle of the offer, with nothing in the way."""

from gateware.pcie.completer import Completer
from gateware.pcie.dma_read import DmaReader
from gateware.pcie.dma_write import DmaWriter
from gateware.pcie.msix import MsixTable
from gateware.pcie.tlp import RequestKind
from tests.gateware.pcie.dma_model import BASE, PLACE, Guarded, command_bits, grant_all
from tests.gateware.pcie.test_msix import write_vector
from tests.gateware.pcie.tlps import SUCCESS, Tlp, beats, completion_layout, payload_bits, request, request_layout
from tests.gateware.simulation import simulate

COMMAND = {"tenant": 0, "generation": 5, "address": BASE, "length": 64, "tag": 1}


async def cycles_until(ctx, condition, limit=60):
    """Cycles from now until `condition` is seen high."""
    for cycle in range(limit):
        if ctx.get(condition):
            return cycle
        await ctx.tick()
    raise AssertionError("never")


async def offer(ctx, stream, word):
    ctx.set(payload_bits(stream), word)
    ctx.set(stream.valid, 1)


def test_a_write_request_leaves_7_cycles_and_one_for_each_region_before_its_own_after_its_command():
    dut, found = Guarded(DmaWriter(64)), []

    async def test(ctx):
        await grant_all(ctx, dut, write=True)
        ctx.set(dut.engine.data.valid, 1)
        await offer(ctx, dut.engine.commands, command_bits(COMMAND))
        found.append(await cycles_until(ctx, dut.engine.requests.valid))

    simulate(dut, test)
    assert found == [7 + PLACE]


def test_a_read_request_leaves_so_too_and_data_3_cycles_after_the_last_completion():
    dut, found = Guarded(DmaReader(64)), []

    async def test(ctx):
        engine = dut.engine
        await grant_all(ctx, dut, write=False)
        ctx.set(engine.requests.ready, 1)
        await offer(ctx, engine.commands, command_bits(COMMAND))
        found.append(await cycles_until(ctx, engine.requests.valid))
        ctx.set(engine.commands.valid, 0)
        await ctx.tick()
        answer = Tlp({"status": SUCCESS, "length": 16, "byte_count": 64, "lower_address": 0, "requester_id": 0,
                      "completer_id": 0, "tag": 0, "traffic_class": 0, "attributes": 0, "poisoned": 0, "locked": 0},
                     bytes(64))
        words = beats(answer, completion_layout(64), 64)
        for word in words[:-1]:
            await offer(ctx, engine.completions, word)
            await ctx.tick()
        await offer(ctx, engine.completions, words[-1])
        found.append(await cycles_until(ctx, engine.data.valid))

    simulate(dut, test)
    assert found == [7 + PLACE, 3]


def test_a_write_reaches_the_bus_after_2_cycles_and_a_read_after_3():
    for kind, latency in ((RequestKind.WRITE, 2), (RequestKind.READ, 3)):
        dut, found = Completer(64), []

        async def test(ctx, dut=dut, kind=kind, found=found):
            await ctx.tick()
            tlp = request(kind, 64, data=bytes(4)) if kind == RequestKind.WRITE else request(kind, 64, length=1)
            await offer(ctx, dut.requests, beats(tlp, request_layout(64), 64)[0])
            found.append(await cycles_until(ctx, dut.bus.valid))

        simulate(dut, test)
        assert found == [latency]


def test_an_interrupt_is_offered_3_cycles_after_it_was_raised():
    dut, found = MsixTable(64, 4), []

    async def test(ctx):
        ctx.set(dut.enable, 1)
        await write_vector(ctx, dut, 2, 0xFEE0_0000, 1)
        ctx.set(dut.raised, 1 << 2)
        found.append(await cycles_until(ctx, dut.requests.valid))

    simulate(dut, test)
    assert found == [3]
