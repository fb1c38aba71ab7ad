"""The link of the gateware, driven with the codec of `device_link` and compared with its responder."""

import random
from itertools import pairwise

import pytest

from device_link.framing import FrameDecoder, encode_frame
from device_link.operations import (
    Hello,
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
from device_link.responder import BusResponder
from device_link.window import WINDOW_HEADER_WORDS, WINDOW_ROW_WORDS, Window, WindowRow
from gateware.bridge.link import LinkBridge
from gateware.config import DeviceConfig
from tests.device_link.line import RegisterModel
from tests.gateware.bridge.link_bench import BOOT_NONCE, LinkBench

pytestmark = pytest.mark.slow  # together more than `make test-fast` has time for

CONTROL = 0x400
REPEATS = 0x414


def request(sequence, operations, session=7):
    return Request(session, sequence, encode_operations(operations)).encode()


def exchange(messages, **options):
    """Answers of the gateware to `messages`, behind a hello that begins session 7."""
    bench = LinkBench([encode_frame(message) for message in [Hello(7).encode(), *messages]], **options)
    bench.run()
    return [decode_message(message) for message in bench.answers()[1:]], bench


def reference(chunks, registers, nonce=BOOT_NONCE):
    """Bytes that the software responder sends for `chunks`."""
    responder = BusResponder(registers, boot_nonce=nonce)
    decoder, sent = FrameDecoder(limit=1024), b""
    for chunk in chunks:
        for message in decoder.feed(chunk):
            sent += encode_frame(responder.corrupt() if message is None else responder.handle(message))
    return sent


def random_operations(rng, most_bytes=480):
    """Operations of every kind in a small part of the space, some of them at addresses without a register."""
    operations, size = [], 0
    while size < most_bytes:
        address = 4 * rng.randrange(32) if rng.random() < 0.95 else 0x3_0000
        count = rng.choice([1, 1, 2, 3, rng.randrange(1, 20)])
        words = tuple(rng.getrandbits(32) for _ in range(count))
        operations.append(rng.choice([
            Read(address, count), ReadList(tuple(4 * rng.randrange(64) for _ in range(count))),
            Write(address, words), WriteList(tuple((4 * rng.randrange(64), word) for word in words)),
        ]))
        size += 6 + 6 * count
        if rng.random() < 0.3:
            break
    return operations


def random_chunks(rng, count):
    """A hello, then requests: good, repeated, out of order, of another session, malformed, damaged, noise."""
    chunks, sequence, sent, session = [encode_frame(Hello(7).encode())], 0, [], 7
    for _ in range(count):
        kind = rng.choice(["good"] * 8 + ["repeat"] * 3 + ["ahead", "session", "malformed", "damaged", "noise",
                                                            "hello", "unknown", "short"])
        message = Request(session, sequence, encode_operations(random_operations(rng))).encode()
        if kind == "repeat" and sent:
            message = rng.choice(sent[-17:])
        elif kind == "ahead":
            message = bytes([1, session, (sequence + rng.randrange(1, 200)) % 256]) + message[3:]
        elif kind == "session":
            message = bytes([1, rng.choice([0, 9]), sequence]) + message[3:]
        elif kind == "malformed":
            message = message[:-1] if rng.random() < 0.5 else message + bytes([rng.randrange(256)])
        elif kind == "hello":
            session = rng.choice([0, 7, 8, session])
            message, sent = Hello(session).encode(), []
        elif kind == "unknown":
            message = bytes([rng.choice([0, 3, 0x10, 0x81, 0xFF])]) + message[1:]
        elif kind == "short":
            message = message[:rng.randrange(1, 4)]
        frame = bytearray(encode_frame(message))
        if kind == "damaged":
            frame[rng.randrange(len(frame) - 1)] ^= 1 << rng.randrange(8)
        elif kind == "noise":
            frame = bytearray(rng.choices(range(1, 256), k=rng.randrange(1, 700))) + b"\0"
        if kind in ("good", "malformed"):
            sent.append(message)
            sequence = (sequence + 1) % 256
        if kind == "hello":
            sequence = 0
        chunks.append(bytes(frame))
    return chunks


@pytest.mark.parametrize(("seed", "busy", "stalls", "latency"), [
    (1, 0.0, 0.0, 0), (2, 0.3, 0.0, 15), (3, 0.0, 0.6, 2), (4, 0.5, 0.5, 5),
])
def test_answers_match_the_responder_byte_for_byte(seed, busy, stalls, latency):
    chunks, nonce = random_chunks(random.Random(seed), 25), random.Random(seed).getrandbits(32)
    model = RegisterModel(hole=range(0x400, 0x4_0000))
    expected = reference(chunks, model, nonce)
    bench = LinkBench(chunks, seed=seed, busy=busy, stalls=stalls, latency=latency, answers=expected.count(0),
                      nonce=nonce, registers=RegisterModel(hole=range(0x400, 0x4_0000)))
    bench.run()
    assert bytes(bench.sent) == expected
    assert bench.registers.log == model.log


def compare(messages, **options):
    """Answers byte for byte as those of the software responder, and the same writes, behind a hello."""
    chunks = [encode_frame(message) for message in [Hello(7).encode(), *messages]]
    model, registers = RegisterModel(hole=()), RegisterModel(hole=())
    expected = reference(chunks, model)
    bench = LinkBench(chunks, registers=registers, **options)
    bench.run()
    assert bytes(bench.sent) == expected
    assert registers.log == model.log


@pytest.mark.parametrize("seed", range(2))
def test_every_bit_of_addresses_and_words_counts(seed):
    """Blocks and lists all over the space, read back in another order, across every carry of an address."""
    rng = random.Random(seed)
    starts = [rng.randrange(0x200, 0xFFF0) for _ in range(20)] + [(1 << bit) - 2 for bit in range(10, 16)]
    messages = []
    for start in starts:
        block = tuple(rng.getrandbits(32) for _ in range(4))
        pairs = tuple((4 * rng.randrange(0x200, 0x1_0000), rng.getrandbits(32)) for _ in range(4))
        operations = [Write(4 * start, block), WriteList(pairs), Read(4 * start, 4),
                      ReadList(tuple(address for address, _ in rng.sample(pairs, 4)))]
        messages.append(request(len(messages), operations))
    compare(messages, seed=seed, busy=0.1, stalls=0.1, latency=1)


@pytest.mark.parametrize("run", [64, 128, 252, 253, 254, 255, 506, 507, 508, 509, 510])
def test_runs_without_a_zero_of_every_length_pass_both_ways(run):
    """In the frames there is no zero but the last byte, so that long runs are cut, exactly at 254 bytes. The code of
    128 bytes is, but for its highest bit, that of none."""
    rng = random.Random(run)
    written = bytes(rng.randrange(1, 256) for _ in range(480))
    start = run % 7 + 1   # of a run of the answer, which begins behind three bytes of header
    read = bytearray(rng.randrange(1, 256) for _ in range(1020))
    read[start] = read[(start + 1 + run) % 1020] = 0
    words = tuple(int.from_bytes(written[at:at + 4], "little") for at in range(0, min(run, 480) // 4 * 4, 4))
    registers = RegisterModel()
    registers.words = {0x1000 + at: int.from_bytes(read[at:at + 4], "little") for at in range(0, 1020, 4)}
    answers, bench = exchange([request(0, [Write(0x8000, words)]), request(1, [Read(0x1000, 255)]),
                               request(2, [Read(0x8000, len(words))])], registers=registers)
    assert answers[1].words == tuple(registers.words[0x1000 + at] for at in range(0, 1020, 4))
    assert answers[2].words == words
    assert bench.registers.log == [(0x8000 + 4 * number, word) for number, word in enumerate(words)]


def test_sequence_numbers_go_round_and_counters_follow():
    """300 requests, every third of them repeated and every fifth frame damaged or malformed on the line."""
    chunks, repeats, damaged, short = [encode_frame(Hello(7).encode())], 0, 0, 0
    for number in range(300):
        message = request(number % 256, [Read(0x1000 + 4 * number)])
        chunks.append(encode_frame(message))
        if number % 3 == 0:
            chunks.append(encode_frame(message))
            repeats += 1
        if number % 5 == 0:
            frame = bytearray(encode_frame(message))
            frame[1] ^= 0x40
            chunks.append(bytes(frame))
            damaged += 1
        if number % 5 == 1:
            chunks.append(b"\2\1\0")
            short += 1
    chunks.append(encode_frame(request(300 % 256, [Read(CONTROL, 7)])))
    bench = LinkBench(chunks, latency=0)
    bench.run()
    answers = [decode_message(message) for message in bench.answers()]
    done = [answer.sequence for answer in answers[1:] if isinstance(answer, Response)]
    assert done == [number % 256 for number in range(301) for _ in range(2 if number % 3 == 0 and number < 300 else 1)]
    assert answers[-1].words == (0, 1 + 300 + repeats + 1, 1 + 300 + repeats + damaged + short, damaged, short,
                                 repeats, 0)


def test_block_is_written_and_read_back():
    words = tuple(random.Random(1).getrandbits(32) for _ in range(120))
    answers, _ = exchange([request(0, [Write(0x1000, words)]), request(1, [Read(0x1000, 120)])])
    assert answers == [Response(7, 0, (), Status.DONE, 0), Response(7, 1, words, Status.DONE, 0)]


def test_longest_answer_is_whole():
    model = RegisterModel()
    model.words = {4 * index: index * 0x01010101 for index in range(255)}
    answers, _ = exchange([request(0, [Read(0, 255), Read(0, 255)])], registers=model)
    assert answers[0].words == tuple(index * 0x01010101 for index in range(255)) * 2


def test_bus_error_stops_the_list_and_names_the_operation():
    answers, bench = exchange([request(0, [
        Write(0, (1,)), ReadList((0, 0x3_0000, 0)), Write(4, (2,))])])
    assert answers == [Response(7, 0, (1,), Status.BUS_ERROR, 1)]
    assert bench.registers.log == [(0, 1)]


@pytest.mark.parametrize(("body", "index"), [
    (bytes([5, 1, 0, 0, 0, 0]), 1),                      # unknown opcode
    (bytes([0, 1, 0, 0, 0, 0]), 1),
    (bytes([1, 0, 0, 0, 0, 0]), 1),                      # n = 0
    (bytes([1]), 1),                                     # truncated: no n
    (bytes([1, 1, 0, 0, 0]), 1),                         # truncated address
    (bytes([3, 2, 0, 0, 0, 0, 1, 2, 3, 4]), 1),          # a word short
    (bytes([4, 1, 0, 0, 1, 2, 3]), 1),
    (bytes([1, 1, 2, 0, 0, 0]), 1),                      # misaligned
    (bytes([1, 1, 0, 0, 4, 0]), 1),                      # outside the space
    (bytes([1, 2, 0xFC, 0xFF, 3, 0]), 1),                # leaves the space
    (bytes([3, 1, 0, 0, 0, 1, 1, 2, 3, 4]), 1),
    (bytes([0, 1, 0, 0, 0, 0, 0, 0]), 1),                # unknown opcodes with as many bytes as a known one has
    (bytes([5, 1, 0, 0, 0, 0, 0, 0]), 1),
    *((bytes([1 << bit | 1, 1, 0, 0, 0, 0]), 1) for bit in range(3, 8)),
])
def test_malformed_list_carries_out_nothing(body, index):
    good = encode_operations([Write(0x10, (5,))])
    answers, bench = exchange([Request(7, 0, good + body).encode(), request(1, [Read(0x10)])])
    assert answers == [Response(7, 0, (), Status.MALFORMED, index), Response(7, 1, (0,), Status.DONE, 0)]
    assert bench.registers.log == []


def test_last_word_of_the_space_is_reached():
    model = RegisterModel(hole=())
    answers, _ = exchange([request(0, [Write(0x3_FFF8, (1, 2)), Read(0x3_FFFC), ReadList((0x3_FFF8,))])],
                              registers=model)
    assert answers[0].words == (2, 1)


def test_repetition_reads_again_and_writes_nothing():
    first = request(0, [Write(0x10, (5,)), WriteList(((0x14, 6),)), Read(0x10, 2)])
    second = request(1, [Write(0x10, (9,))])
    answers, bench = exchange([first, first, second, first, second, request(2, [Read(REPEATS)])])
    assert [answer.words for answer in answers] == [(5, 6), (5, 6), (), (9, 6), (), (3,)]
    assert bench.registers.log == [(0x10, 5), (0x14, 6), (0x10, 9)]


@pytest.mark.parametrize("index", [1, 21, 42, 63, 64, 80])
def test_repetition_is_answered_with_the_remembered_failure(index):
    failed = request(0, [*[Read(0)] * index, Write(0x3_0000, (1,)), Read(0)])
    answers, _ = exchange([failed, failed])
    assert answers == [Response(7, 0, (0,) * index, Status.BUS_ERROR, index)] * 2


def test_repetition_with_other_bytes_carries_out_nothing():
    malformed = Request(7, 0, b"\5\1").encode()
    answers, bench = exchange([malformed, request(0, [Read(0), Write(0x10, (1,))]), request(1, [Read(0x20)]),
                               request(1, [Write(0x10, (1,)), Read(0, 2)]), Request(7, 1, b"\5\1").encode()])
    assert answers[:2] == [Response(7, 0, (), Status.MALFORMED, 0)] * 2
    assert answers[3] == Response(7, 1, (0, 0), Status.DONE, 0)
    assert answers[4] == Response(7, 1, (), Status.DONE, 0)
    assert bench.registers.log == []


def test_128_requests_are_remembered_and_no_more():
    messages = [request(sequence, [Write(0x10, (sequence,))]) for sequence in range(129)]
    answers, bench = exchange([*messages, messages[1], messages[0]])
    assert answers[-2] == Response(7, 1, (), Status.DONE, 0)
    assert answers[-1] == Reject(7, 0, RejectReason.OUT_OF_ORDER, 129)
    assert bench.registers.words[0x10] == 128


def test_what_came_before_the_first_request_of_a_session_is_no_repetition():
    """The number before its first, after some requests of the session: one more would have to be remembered."""
    counts = [0, 1, 2, 3, 4, 7, 8, 15, 16, 31, 32, 33, 63, 64]
    messages, expected = [], []
    for session, count in enumerate(counts, 20):
        messages += [Hello(session).encode(), *(request(number, [Read(0)], session) for number in range(count)),
                     request(255, [Read(0)], session)]
        expected.append(Reject(session, 255, RejectReason.OUT_OF_ORDER, count))
    answers, _ = exchange(messages)
    assert [answer for answer in answers if isinstance(answer, Reject)] == expected


def test_session_tells_how_far_the_one_before_it_went():
    answers, _ = exchange([request(0, [Read(0)]), request(1, [Read(0)]), Hello(9).encode(), Hello(9).encode(),
                           request(2, [Read(0)]), request(0, [Read(0)], session=9), Hello(7).encode()])
    hello = answers[2]
    assert (hello.version, hello.window, hello.largest_request, hello.boot_nonce) == (2, 128, 512, BOOT_NONCE)
    assert (hello.buffer_bytes, hello.buffer_messages) == (4096, 64)
    assert (hello.previous_session, hello.previous_expected) == (7, 2)
    assert answers[3] == hello
    assert answers[4] == Reject(7, 2, RejectReason.NO_SESSION, 0)
    assert answers[5] == Response(9, 0, (0,), Status.DONE, 0)
    assert (answers[6].previous_session, answers[6].previous_expected) == (9, 1)


def test_without_a_session_nothing_is_carried_out():
    bench = LinkBench([encode_frame(request(0, [Write(0, (1,))], session=session)) for session in (0, 7)])
    bench.run()
    assert [decode_message(message) for message in bench.messages] == [
        Reject(session, 0, RejectReason.NO_SESSION, 0) for session in (0, 7)]
    assert bench.registers.log == []


@pytest.mark.parametrize("length", [513, 600, 5000])
def test_overlong_frame_is_discarded_without_harm(length):
    body = encode_operations([Write(0, (1,))])
    long = Request(7, 0, body * (length // len(body) + 1)).encode()[:length]
    chunks = [encode_frame(Hello(7).encode()), encode_frame(long), encode_frame(request(0, [Read(0)]))]
    bench = LinkBench(chunks)
    bench.run()
    assert [decode_message(message) for message in bench.messages[1:]] == [
        Reject(7, 0, RejectReason.CORRUPT, 0), Response(7, 0, (0,), Status.DONE, 0)]


def test_longest_message_is_taken_and_one_byte_more_is_not():
    body = encode_operations([Write(0, tuple(range(124))), ReadList((0, 4))])
    longest = Request(7, 0, body + b"\1").encode()  # a list has an even length: the longest message is malformed
    assert len(longest) == 512
    answers, bench = exchange([longest, longest + b"\1", Request(7, 1, body).encode()])
    assert answers == [Response(7, 0, (), Status.MALFORMED, 2), Reject(7, 0, RejectReason.CORRUPT, 1),
                       Response(7, 1, (0, 1), Status.DONE, 0)]
    assert len(bench.registers.log) == 124


def test_message_of_any_length_is_told_from_a_damaged_one():
    """Where it waits, a damaged one has length 0."""
    lengths = sorted({length for bit in range(2, 10) for length in ((1 << bit) - 1, 1 << bit, (1 << bit) + 1)} - {513})
    answers, _ = exchange([bytes([1, 9, number]) + bytes(length - 3) for number, length in enumerate(lengths)])
    assert answers == [Reject(9, number, RejectReason.NO_SESSION, 0) for number in range(len(lengths))]


def test_eight_longest_requests_wait_while_the_line_is_stalled():
    words = tuple(range(124))
    messages = [request(sequence, [Write(0x10, words)]) for sequence in range(8)]
    answers, _ = exchange(messages, stalls=0.9, outstanding=9, latency=0)
    assert [answer.sequence for answer in answers] == list(range(8))


class Stalled(LinkBench):
    """The line has no room while all but the first `before` chunks, each of them answered, and the last are sent."""

    def __init__(self, chunks, before, **options):
        super().__init__(chunks, **options)
        self._before = before

    async def _send(self, ctx):
        for number, chunk in enumerate(self._chunks[:self._before]):
            await self._send_bytes(ctx, chunk)
            while len(self.messages) <= number:
                await ctx.tick()
        self.open = False
        for chunk in self._chunks[self._before:-1]:
            await self._send_bytes(ctx, chunk)
            await ctx.tick().repeat(self._rng.randrange(1, 20))
        self.open = True
        while len(self.messages) < self._answers - 1:
            await ctx.tick()
        await self._send_bytes(ctx, self._chunks[-1])


@pytest.mark.parametrize(("seed", "longest", "before"), [
    (1, 512, 0), (6, 9, 10),
    pytest.param(7, 125, 80, marks=pytest.mark.long), pytest.param(5, 200, 40, marks=pytest.mark.long)])
def test_message_that_finds_no_room_is_lost_whole_and_no_other_is(seed, longest, before):
    """An answer that cannot leave holds a request back; 4,096 bytes or 64 messages wait behind it, however many were
    answered before."""
    rng = random.Random(seed)
    registers = RegisterModel()
    registers.words = {0x1000 + 4 * number: rng.getrandbits(32) | 0x01010101 for number in range(510)}
    first = request(0, [Read(0x1000, 255), Read(0x1000 + 1020, 255)])

    def stranger(number):
        return bytes([1, 9, number]) + rng.randbytes(rng.randrange(1, longest - 2))

    chunks = [encode_frame(message) for message in [Hello(7).encode(), *map(stranger, range(before)), first]]
    used, count, kept = len(first), 1, []
    for number in range(120):
        message = stranger(number)
        chunks.append(encode_frame(message))
        if used + len(message) <= 4096 and count < 64:
            used, count = used + len(message), count + 1
            kept.append(Reject(9, number, RejectReason.NO_SESSION, 1))
    assert len(kept) < 120
    bench = Stalled([*chunks, encode_frame(request(1, [Read(0x1004)]))], 1 + before, seed=seed, latency=0,
                    answers=3 + before + len(kept), registers=registers, limit=60_000)
    bench.run()
    answers = [decode_message(message) for message in bench.messages[1 + before:]]
    words = tuple(registers.words[0x1000 + 4 * number] for number in range(510))
    assert answers == [Response(7, 0, words, Status.DONE, 0), *kept, Response(7, 1, words[1:2], Status.DONE, 0)]


@pytest.mark.parametrize(("last", "fits"), [(497, True), (498, False), (490, True)])
def test_room_is_filled_to_the_last_byte(last, fits):
    """15 bytes of a request that is held back, seven messages of 512, and one that just fits or is one too long."""
    first = request(0, [Read(0x1000, 255), Read(0x1000, 255)])
    messages = [bytes([1, 9, number]) + bytes(length - 3) for number, length in enumerate([*[512] * 7, last])]
    kept = [Reject(9, number, RejectReason.NO_SESSION, 1) for number in range(7 + fits)]
    chunks = [encode_frame(message) for message in [Hello(7).encode(), first, *messages, request(1, [Read(0x1004)])]]
    bench = Stalled(chunks, 1, latency=0, answers=3 + len(kept), limit=60_000)
    bench.run()
    assert [decode_message(message) for message in bench.messages[2:-1]] == kept


@pytest.mark.long
def test_counters_follow_thousands_of_frames():
    """Good ones of nobody's session, damaged ones, and reads of nothing: each is answered and counted."""
    good = encode_frame(bytes([1, 9, 1]))
    damaged = bytes([good[0], good[1] ^ 0x40, *good[2:]])
    failing = [encode_frame(request(number % 256, [Read(0x3_0000)])) for number in range(4200)]
    chunks = [encode_frame(Hello(7).encode()), *[good] * 4200, *[damaged] * 4200, *failing,
              encode_frame(request(4200 % 256, [Read(CONTROL, 8)]))]
    bench = LinkBench(chunks, latency=0, outstanding=32, limit=400_000)
    bench.run()
    assert decode_message(bench.messages[-1]).words == (0, 8402, 12601, 4200, 0, 0, 0, 4200)


def test_error_counters_tell_what_happened():
    frame = bytearray(encode_frame(request(0, [Read(0)])))
    frame[1] ^= 0x40
    broken = encode_frame(request(0, [Read(0)]))[:-3] + b"\0"
    unknown = encode_frame(bytes([0x10, 7, 0]))   # its frame is counted as received, too
    chunks = [encode_frame(Hello(7).encode()), bytes(frame), broken, b"\0\0\0", unknown,
              encode_frame(request(0, [Read(0x3_0000)])), encode_frame(request(1, [Write(0x3_0000, (1,))])),
              encode_frame(request(2, [Read(CONTROL, 8)])),
              encode_frame(request(3, [Read(CONTROL + 0x0C, 5), Read(0)] * 10))]   # they stand still between events
    bench = LinkBench(chunks, answers=8)
    bench.run()
    first, second = (decode_message(message).words for message in bench.messages[-2:])
    assert first == (0, 5, 6, 1, 2, 0, 0, 2)
    assert second == (1, 2, 0, 0, 2, 0) * 10


@pytest.mark.parametrize("seed", range(2))
def test_pushed_windows_are_those_of_the_analyzer_bit_for_bit(seed):
    """Random words, as many as there may be; the one that counts what was skipped holds what both sides skipped."""
    rng = random.Random(seed)
    lengths = [rng.choice([7, 8, 40, 127, 128, 129, 200, 263, 264]) for _ in range(300)]
    windows = [[number, *(rng.getrandbits(32) for _ in range(length - 1))] for number, length in enumerate(lengths)]
    messages = [request(0, [Write(CONTROL, (1,))])] + [request(n, [Read(0, 255)]) for n in range(1, 9)]
    messages += [request(9, [Read(CONTROL + 0x18)])]
    answers, bench = exchange(messages, windows=windows, gap=30, stalls=0.1, limit=40_000)
    pushed = [[int.from_bytes(payload[at:at + 4], "little") for at in range(0, len(payload), 4)]
              for payload in bench.pushed()]
    skipped = [words[6] - windows[words[0]][6] & 0xFFFFFFFF for words in pushed]
    for words, more in zip(pushed, skipped, strict=True):
        expected = list(windows[words[0]])
        expected[6] = expected[6] + more & 0xFFFFFFFF
        assert words == expected
    assert len(pushed) >= 3
    assert [after - before for before, after in pairwise(skipped)] == [
        after[0] - before[0] - 1 for before, after in pairwise(pushed)]
    assert skipped[-1] <= answers[-1].words[0]


class Blocked(LinkBench):
    """`snapshots` come while the line has no room and a long answer waits for it, with `gap` cycles between."""

    def __init__(self, snapshots, *, gap):
        messages = [Hello(7).encode(), request(0, [Write(CONTROL, (1,))]), request(1, [Read(0, 255)]),
                    request(2, [Read(CONTROL + 0x18)])]
        super().__init__([encode_frame(message) for message in messages], latency=0)
        self._snapshots, self._gap = snapshots, gap
        self.run()
        self.skipped, = decode_message(self.answers()[-1]).words

    async def _send(self, ctx):
        for chunk in self._chunks[:2]:
            await self._send_bytes(ctx, chunk)
        while len(self.messages) < 2:
            await ctx.tick()
        self.open = False
        await self._send_bytes(ctx, self._chunks[2])
        await ctx.tick().repeat(500)    # its answer has begun, and fills what is on the way to the line
        telemetry = self.dut.telemetry
        for words in self._snapshots:
            for position, word in enumerate(words):
                ctx.set(telemetry.payload.data, word)
                ctx.set(telemetry.payload.last, position == len(words) - 1)
                ctx.set(telemetry.valid, 1)
                await ctx.tick()
            if self._gap:
                ctx.set(telemetry.valid, 0)
                await ctx.tick().repeat(self._gap)
        ctx.set(telemetry.valid, 0)
        self.open = True
        await ctx.tick().repeat(5000)   # what was kept has left
        await self._send_bytes(ctx, self._chunks[3])


def test_thousands_of_skipped_windows_are_counted():
    """One word each: none is kept but the first, which is to leave, and the second, which waits."""
    bench = Blocked([[0]] * 9000, gap=0)
    assert len(bench.pushed()) == 2
    assert bench.skipped == 9000 - 2


@pytest.mark.parametrize(("above", "kept"), [(-1, 2), (0, 1)])
def test_snapshot_is_kept_as_long_as_the_longest_fits_behind_the_one_that_leaves(above, kept):
    longest = WINDOW_HEADER_WORDS + WINDOW_ROW_WORDS * DeviceConfig().tenants
    ring = 1 << (longest + longest // 2).bit_length()
    words = random.Random(above).choices(range(1, 1 << 32), k=longest)
    first = ring - longest + above   # words of the one that leaves
    bench = Blocked([words[:first], words], gap=3)
    assert bench.pushed() == [b"".join(word.to_bytes(4, "little") for word in snapshot)
                              for snapshot in [words[:first], words][:kept]]
    assert bench.skipped == 2 - kept


def make_window(tenants, number):
    rows = tuple(WindowRow(*(number * 1000 + tenant * 16 + column for column in range(16)))
                 for tenant in range(tenants))
    return Window(number, 0x1_0000_0000 + number, 1024, 3, 0, 77, rows)


def test_windows_are_pushed_between_answers_under_load():
    config = DeviceConfig(tenants=2)
    windows = [make_window(2, number) for number in range(100)]
    messages = [request(0, [Write(CONTROL, (1,))])]
    messages += [request(sequence, [Read(0, 40)]) for sequence in range(1, 20)]
    answers, bench = exchange(messages, config=config, windows=[window.to_words() for window in windows], gap=150)
    assert [answer.status for answer in answers] == [Status.DONE] * 20
    pushed = [Window.decode(payload) for payload in bench.pushed()]
    assert len(pushed) >= 5
    for window in pushed:
        expected = make_window(2, window.number)
        assert window.rows == expected.rows
        assert (window.start, window.active_tag) == (expected.start, 77)
    # Windows that found the line busy were skipped as a whole, and each pushed one says how many before it.
    gaps = [after.number - before.number - 1 for before, after in pairwise(pushed)]
    assert [after.skipped - before.skipped for before, after in pairwise(pushed)] == gaps
    assert bench.telemetry_stalls == 0


def test_stalled_line_never_stalls_the_telemetry():
    windows = [make_window(2, number).to_words() for number in range(200)]
    messages = [request(0, [Write(CONTROL, (1,))]), request(1, [Read(0, 60)]), request(2, [Read(CONTROL + 0x18)])]
    answers, bench = exchange(messages, config=DeviceConfig(tenants=2), windows=windows, stalls=0.85)
    assert bench.telemetry_stalls == 0
    assert answers[-1].words[0] > 3


def test_nothing_is_pushed_unless_asked_for():
    windows = [make_window(2, 1).to_words()]
    _, bench = exchange([request(sequence, [Read(0, 40)]) for sequence in range(10)],
                        config=DeviceConfig(tenants=2), windows=windows)
    assert bench.pushed() == []


def test_window_that_is_too_long_is_dropped_and_counted():
    windows = [list(range(100)), make_window(2, 5).to_words()]
    messages = [request(0, [Write(CONTROL, (1,))])] + [request(n, [Read(0, 60)]) for n in range(1, 6)]
    _, bench = exchange(messages, config=DeviceConfig(tenants=2), windows=windows, gap=100)
    assert bench.pushed()
    assert all(Window.decode(payload).number == 5 for payload in bench.pushed())
    assert Window.decode(bench.pushed()[0]).skipped > 0


def test_config_is_told():
    config = DeviceConfig(tenants=4)
    assert LinkBridge(config).config is config
