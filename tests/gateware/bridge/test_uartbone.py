"""The UARTBone personality of the link against a model of its wire format, over random commands, idle and stalls."""

import random

import pytest

from device_link.registers import register_map
from gateware.bridge.uartbone import REFUSED, UartBone
from gateware.config import DeviceConfig
from tests.device_link.line import RegisterModel
from tests.gateware.simulation import simulate

SILENCE = 400  # cycles; longer than the bench ever pauses within a command
HOLE = range(0x400, 0x4_0000)  # byte addresses that no register answers
WRITE, READ, WRITE_SAME, READ_SAME = 1, 2, 3, 4


def command(number, address, words, count=None):
    """Bytes of a command; `address` is that of a word, `words` those to write."""
    return (bytes([number, len(words) if count is None else count]) + address.to_bytes(4, "big")
            + b"".join(word.to_bytes(4, "big") for word in words))


class Model:
    """What a UARTBone bridge does with bytes; `silent` is called where they stop for long."""

    def __init__(self, registers):
        self.registers, self.sent, self.pending = registers, b"", b""
        self.counts = {"frames_received": 0, "frames_sent": 0, "framing_errors": 0, "bus_errors": 0}

    def silent(self):
        self.counts["framing_errors"] += bool(self.pending)
        self.pending = b""

    def feed(self, data):
        for byte in data:
            self.pending += bytes([byte])
            self._look()

    def _look(self):
        data = self.pending
        if len(data) < 6:
            return
        number, count, address = data[0], data[1], int.from_bytes(data[2:6], "big")
        if len(data) == 6:
            known = WRITE <= number <= READ_SAME
            self.counts["frames_received" if known else "framing_errors"] += 1
        step = number in (WRITE, READ)
        if number in (WRITE, WRITE_SAME) and count:
            if len(data) > 6 and (len(data) - 6) % 4 == 0:
                done = (len(data) - 6) // 4
                self._write(address + step * (done - 1), int.from_bytes(data[-4:], "big"))
                if done == count:
                    self.pending = b""
            return
        if number in (READ, READ_SAME) and count:
            for index in range(count):
                self.sent += self._read(address + step * index).to_bytes(4, "big")
            self.counts["frames_sent"] += 1
        self.pending = b""

    def _write(self, address, word):
        if address >> 16 or 4 * address in HOLE:
            self.counts["bus_errors"] += 1
        else:
            self.registers.write(4 * address, word)

    def _read(self, address):
        if address >> 16 or 4 * address in HOLE:
            self.counts["bus_errors"] += 1
            return REFUSED
        return self.registers.read(4 * address)


class Bench:
    """Sends `chunks` of bytes, with a silence behind each chunk of which `pauses` says so, and answers the bus."""

    def __init__(self, chunks, pauses, expected, *, seed=0, busy=0.0, stalls=0.0, latency=0):
        self.dut = UartBone(DeviceConfig(), silence=SILENCE)
        self.registers = RegisterModel(hole=HOLE)
        self.sent, self.counts = b"", {}
        self._chunks, self._pauses, self._expected = chunks, pauses, expected
        self._rng, self._busy, self._stalls, self._latency = random.Random(seed), busy, stalls, latency

    def run(self):
        simulate(self.dut, self._send, background=[self._receive, self._serve])
        return self

    async def _send(self, ctx):
        rx = self.dut.rx
        for chunk, pause, answered in zip(self._chunks, self._pauses, self._expected, strict=True):
            for byte in chunk:
                while self._rng.random() < self._busy:
                    await ctx.tick()
                ctx.set(rx.payload, byte)
                ctx.set(rx.valid, 1)
                await ctx.tick().until(rx.ready)
                ctx.set(rx.valid, 0)
            for _ in range(200_000):  # as a host does: the next command when this one is answered
                if len(self.sent) >= answered:
                    break
                await ctx.tick()
            assert len(self.sent) == answered, f"{len(self.sent)} bytes of {answered} came"
            await ctx.tick().repeat(SILENCE + 20 if pause else 1)  # counted from the end of an access
        await ctx.tick().repeat(100)
        await self._read_counts(ctx)

    async def _read_counts(self, ctx):
        registers = self.dut.registers
        for name in ("frames_received", "frames_sent", "framing_errors", "bus_errors"):
            ctx.set(registers.address, register_map().register(f"link.{name}").address // 4)
            ctx.set(registers.valid, 1)
            found, = await ctx.tick().sample(registers.r_data).until(registers.ready)
            ctx.set(registers.valid, 0)
            self.counts[name] = int(found)
            await ctx.tick()

    async def _receive(self, ctx):
        tx, held = self.dut.tx, None
        while True:
            ready = self._rng.random() >= self._stalls
            ctx.set(tx.ready, ready)
            _, _, valid, payload = await ctx.tick().sample(tx.valid, tx.payload)
            assert held is None or (valid and payload == held), "what is offered changed before it was taken"
            held = payload if valid and not ready else None
            if valid and ready:
                self.sent += bytes([payload])

    async def _serve(self, ctx):
        bus = self.dut.bus
        while True:
            _, _, valid, address, write, data, mask = await ctx.tick().sample(
                bus.valid, bus.address, bus.write, bus.w_data, bus.w_mask)
            if not valid:
                continue
            for _ in range(self._rng.randrange(self._latency + 1)):
                _, _, *still = await ctx.tick().sample(bus.valid, bus.address, bus.write, bus.w_data, bus.w_mask)
                assert still == [valid, address, write, data, mask], "an access changed before its end"
            refused = 4 * address in HOLE
            result = 0xDEAD_BEEF
            if write and not refused:
                assert mask == 0b1111
                self.registers.write(4 * address, data)
            elif not refused:
                result = self.registers.read(4 * address)
            ctx.set(bus.r_data, result)
            ctx.set(bus.error, refused)
            ctx.set(bus.ready, 1)
            await ctx.tick()
            ctx.set(bus.ready, 0)


def against_model(chunks, pauses=None, **options):
    """Drive bench and model with the same bytes; both must agree in answers, accesses in order, and counts."""
    pauses = pauses or [False] * len(chunks)
    model, answered = Model(RegisterModel(hole=HOLE)), []
    for chunk, pause in zip(chunks, pauses, strict=True):
        model.feed(chunk)
        answered.append(len(model.sent))
        if pause:
            model.silent()
    bench = Bench(chunks, pauses, answered, **options).run()
    assert bench.sent == model.sent
    assert bench.registers.log == model.registers.log
    assert bench.counts == model.counts
    return bench


def random_chunks(rng, count):
    """Commands of every kind, some unknown, cut off (with a silence behind), empty or where no register is."""
    chunks, pauses = [], []
    for _ in range(count):
        number = rng.choice([WRITE, READ, WRITE_SAME, READ_SAME, WRITE, READ, rng.choice([0, 5, 0x80, 0xFF])])
        address = rng.choice([rng.randrange(64), rng.randrange(64), 0xF8 + rng.randrange(16), 0xFFFF,
                              rng.getrandbits(32), 1 << 16 | rng.randrange(64)])
        size = rng.choice([0, 1, 1, 2, 3, 8, rng.randrange(30)])
        writes = number in (WRITE, WRITE_SAME)
        data = command(number, address, [rng.getrandbits(32) for _ in range(size if writes else 0)], size)
        cut = rng.random() < 0.15
        # A cut read that is whole would be answered: only the command is cut.
        chunks.append(data[:rng.randrange(1, max(2, len(data) - 1))] if cut else data)
        pauses.append(cut)
    return chunks, pauses


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "busy", "stalls", "latency"), [
    (1, 0.0, 0.0, 0), (2, 0.5, 0.0, 15), (3, 0.0, 0.7, 3), (4, 0.4, 0.4, 8)])
def test_random_commands_do_what_the_wire_format_says(seed, busy, stalls, latency):
    print(f"seed {seed}")
    chunks, pauses = random_chunks(random.Random(seed), 80)
    bench = against_model(chunks, pauses, seed=seed, busy=busy, stalls=stalls, latency=latency)
    assert min(bench.counts.values()) > 5


def test_consecutive_words_are_written_and_read_most_significant_byte_first():
    words = [0x01020304, 0xFFEEDDCC, 0]
    bench = against_model([command(WRITE, 0x10, words), command(READ, 0x10, [], 3)])
    assert bench.registers.log == [(0x40, words[0]), (0x44, words[1]), (0x48, words[2])]
    assert bench.sent == bytes([1, 2, 3, 4, 0xFF, 0xEE, 0xDD, 0xCC, 0, 0, 0, 0])


def test_same_word_is_written_and_read_again_and_again():
    bench = against_model([command(WRITE_SAME, 0x10, [1, 2, 3]), command(READ_SAME, 0x10, [], 4)])
    assert bench.registers.log == [(0x40, 1), (0x40, 2), (0x40, 3)]
    assert bench.sent == 4 * bytes([0, 0, 0, 3])


def test_longest_read_is_whole():
    assert len(against_model([command(READ, 0, [], 255)]).sent) == 4 * 255


@pytest.mark.parametrize("address", [0x100, 0xFFFF, 0x1_0010, 0x8000_0010])
def test_refused_address_reads_all_ones_writes_nothing_and_is_counted(address):
    """An address beyond the space is not taken for the one that its lower bits name."""
    bench = against_model([command(WRITE, address, [5]), command(READ, address, [], 1), command(READ, 0x10, [], 1)])
    assert bench.registers.log == []
    assert bench.sent == b"\xff\xff\xff\xff" + bytes(4)
    assert bench.counts["bus_errors"] == 2


def test_refused_word_does_not_end_its_command():
    bench = against_model([command(READ, 0xFF, [], 2), command(WRITE, 0xFE, [1, 2, 3, 4]), command(READ, 0xFE, [], 2)])
    assert bench.registers.log == [(0x3F8, 1), (0x3FC, 2)]
    assert bench.sent == bytes(4) + b"\xff" * 4 + bytes([0, 0, 0, 1, 0, 0, 0, 2])


@pytest.mark.parametrize("length", range(1, 10))
def test_command_that_stops_arriving_is_forgotten_after_the_silence(length):
    """Whatever part of it came: the next command is understood, and nothing of the first was written."""
    cut = command(WRITE, 0x10, [0x02020202])[:length]
    bench = against_model([cut, command(READ, 0x11, [], 1)], [True, False])
    assert bench.registers.log == []
    assert bench.counts["framing_errors"] == 1


def test_pause_shorter_than_the_silence_does_not_end_a_command():
    """Each byte comes long after the one before, all of them together much later than the silence."""
    dut = UartBone(DeviceConfig(), silence=SILENCE)
    written = []

    async def bench(ctx):
        ctx.set(dut.bus.ready, 1)
        for byte in command(WRITE, 0x10, [7]):
            await ctx.tick().repeat(SILENCE - 5)
            ctx.set(dut.rx.payload, byte)
            ctx.set(dut.rx.valid, 1)
            await ctx.tick().until(dut.rx.ready)
            ctx.set(dut.rx.valid, 0)
        for _ in range(5):
            if ctx.get(dut.bus.valid):
                written.append((ctx.get(dut.bus.address), ctx.get(dut.bus.w_data)))
            await ctx.tick()

    simulate(dut, bench)
    assert written == [(0x10, 7)]


def test_windows_are_taken_and_go_nowhere():
    dut = UartBone(DeviceConfig(), silence=SILENCE)

    async def bench(ctx):
        ctx.set(dut.telemetry.valid, 1)
        for _ in range(20):
            assert ctx.get(dut.telemetry.ready)
            assert not ctx.get(dut.tx.valid)
            await ctx.tick()

    simulate(dut, bench)


def test_silence_is_a_tenth_of_a_second_of_the_devices_clock():
    assert UartBone(DeviceConfig(clock_hz=80_000_000)).silence == 8_000_000
    with pytest.raises(ValueError, match="silence must be at least 1, not 0"):
        UartBone(DeviceConfig(), silence=0)

