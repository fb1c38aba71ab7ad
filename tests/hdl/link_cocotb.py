"""cocotb: the link bridge against the host's own codec, with a memory behind its bus."""

import random

import cocotb
from cocotb.triggers import FallingEdge, ReadOnly, RisingEdge

from device_link.framing import FrameDecoder, encode_frame
from device_link.operations import (
    Hello,
    HelloResponse,
    Read,
    ReadList,
    Reject,
    RejectReason,
    Request,
    Response,
    Status,
    Write,
    WriteList,
    decode_message,
    encode_operations,
)
from tests.hdl.bench import Bench, parameters
from tests.hdl.cover import CoverGroup
from tests.hdl.stimulus import reset

NONCE = 0xC0FFEE11
HOLE = 0x3000  # word addresses from here on answer an error


def build(tenants):
    from gateware.bridge.link import LinkBridge
    from gateware.config import DeviceConfig

    return LinkBridge(DeviceConfig(tenants=tenants))


BENCH = Bench(__name__, build, model={"tenants": (4,)},
              traffic={"offer": (0.8, 0.2, 1.0), "take": (0.7, 0.2, 1.0), "bus_cycles": (3, 1, 16)},
              also=[{"offer": 1.0, "take": 0.2, "bus_cycles": 16}])

SIZES = {"1": range(1, 2), "2..7": range(2, 8), "8..": range(8, 100)}
COVER = CoverGroup("link: requests", {"written at once": SIZES, "listed": SIZES, "read": SIZES},
                   crosses=[("written at once", "read")])


class Link:
    """Bytes in and out of the bridge, and a memory on its bus that takes a random number of cycles."""

    def __init__(self, dut, rng):
        self.dut, self.rng = dut, rng
        self.memory, self.writes = {}, []
        self.outgoing, self.decoder, self.answers = [], FrameDecoder(), []

    async def start(self):
        await reset(self.dut, "rx__valid", "rx__payload", "tx__ready", "bus__ready", "bus__error", "bus__r_data",
                    "registers__valid", "telemetry__valid", "telemetry__payload")
        self.dut.boot_nonce.value = NONCE
        cocotb.start_soon(self._run())

    async def _run(self):
        dut, wait, given = self.dut, 0, parameters()
        while True:
            offered = bool(self.outgoing) and self.rng.random() < given["offer"]
            dut.rx__valid.value = int(offered)
            if offered:
                dut.rx__payload.value = self.outgoing[0]
            dut.tx__ready.value = int(self.rng.random() < given["take"])
            access = int(dut.bus__valid.value) and wait == 0
            dut.bus__ready.value = int(bool(access))
            if access:
                address = dut.bus__address.value.to_unsigned()
                dut.bus__error.value = int(address >= HOLE)
                dut.bus__r_data.value = self.memory.get(address, 0)
            await ReadOnly()
            taken = offered and int(dut.rx__ready.value)
            if int(dut.tx__valid.value) and int(dut.tx__ready.value):
                self.answers += self.decoder.feed(bytes([dut.tx__payload.value.to_unsigned()]))
            if access and int(dut.bus__write.value) and not int(dut.bus__error.value):
                pair = dut.bus__address.value.to_unsigned(), dut.bus__w_data.value.to_unsigned()
                self.writes.append(pair)
                self.memory[pair[0]] = pair[1]
            await RisingEdge(dut.clk)
            if taken:
                self.outgoing.pop(0)
            wait = self.rng.randrange(given["bus_cycles"]) if access else max(wait - 1, 0)
            await FallingEdge(dut.clk)

    async def exchange(self, data):
        """Send bytes; the next answer."""
        self.outgoing += list(data)
        for _ in range(20_000):
            if self.answers:
                answer = self.answers.pop(0)
                assert answer is not None, "the device sent a damaged frame"
                return decode_message(answer)
            await FallingEdge(self.dut.clk)
        raise AssertionError("no answer within 20000 cycles")

    async def request(self, sequence, operations, session=7):
        message = Request(session, sequence, encode_operations(operations)).encode()
        return await self.exchange(encode_frame(message))


async def opened(dut):
    bench = Link(dut, random.Random(cocotb.RANDOM_SEED))
    await bench.start()
    hello = await bench.exchange(b"\0" + encode_frame(Hello(7).encode()))
    assert hello == HelloResponse(7, NONCE, 0, 0)
    return bench


@cocotb.test()
async def operations_reach_the_bus_in_order_and_words_come_back(dut):
    bench = await opened(dut)
    rng, model = random.Random(cocotb.RANDOM_SEED), {}
    for sequence in range(20):
        start = rng.randrange(HOLE - 40)
        words = tuple(rng.getrandbits(32) for _ in range(rng.randrange(1, 20)))
        pairs = tuple((4 * rng.randrange(HOLE), rng.getrandbits(32)) for _ in range(rng.randrange(1, 10)))
        expected = [(start + i, word) for i, word in enumerate(words)] + [(a // 4, w) for a, w in pairs]
        model.update(expected)
        COVER.sample(**{"written at once": len(words), "listed": len(pairs), "read": len(words)})
        listed = tuple(4 * rng.choice(list(model)) for _ in range(rng.randrange(1, 20)))
        answer = await bench.request(sequence, [Write(4 * start, words), WriteList(pairs), ReadList(listed),
                                                Read(4 * start, len(words))])
        read = tuple(model[a // 4] for a in listed) + tuple(model[start + i] for i in range(len(words)))
        assert answer == Response(7, sequence, read, Status.DONE, 0)
        assert bench.writes[-len(expected):] == expected


@cocotb.test()
async def a_repeated_request_writes_once(dut):
    bench = await opened(dut)
    for _ in range(3):
        answer = await bench.request(0, [Write(0x40, (1, 2, 3)), Read(0x40, 3)])
        assert answer == Response(7, 0, (1, 2, 3), Status.DONE, 0)
    assert bench.writes == [(0x10, 1), (0x11, 2), (0x12, 3)]
    assert isinstance(await bench.request(5, [Read(0)]), Reject)
    assert (await bench.request(1, [Read(0x40)])).words == (1,)


@cocotb.test()
async def what_fails_stops_the_list_and_is_named(dut):
    bench = await opened(dut)
    answer = await bench.request(0, [Write(0x40, (9,)), Read(4 * HOLE), Write(0x44, (8,))])
    assert (answer.status, answer.index) == (Status.BUS_ERROR, 1)
    assert bench.writes == [(0x10, 9)]


@cocotb.test()
async def every_corrupted_frame_is_answered_and_nothing_is_written(dut):
    bench = await opened(dut)
    rng = random.Random(cocotb.RANDOM_SEED + 1)
    frame = encode_frame(Request(7, 0, encode_operations([Write(0x40, (0x01020304, 0xFFFFFFFF))])).encode())
    for _ in range(30):
        damaged = bytearray(frame)
        at = rng.randrange(len(damaged) - 1)
        damaged[at] ^= rng.randrange(1, 256)
        if damaged[at] == 0:
            continue  # two short frames: two answers
        answer = await bench.exchange(bytes(damaged))
        assert isinstance(answer, Reject)
        assert answer.reason == RejectReason.CORRUPT
    assert bench.writes == []
    assert (await bench.exchange(frame)).status == Status.DONE
