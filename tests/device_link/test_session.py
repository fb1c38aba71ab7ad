"""The host's protocol engine over a model of a line: every exchange completes or raises, never wrongly."""

import random

import pytest

from device_link.linked import SessionTransport
from device_link.operations import HelloResponse, Read, ReadList, Write, WriteList, decode_message
from device_link.outcome import History, Mark
from device_link.session import DeviceReset
from device_link.transport import BusError
from morphnic.errors import LinkError, LinkTimeout
from tests.device_link.line import LineModel, ModelPipe


def open_line(line, *, timeout=1.0, seed=1):
    return SessionTransport(ModelPipe(line), url="test://line", timeout=timeout, writer=True, seed=seed)


def test_block_written_is_read_back_over_several_requests():
    line = LineModel()
    link = open_line(line)
    words = [random.Random(1).getrandbits(32) for _ in range(2000)]
    link.write(0x1000, words)
    assert link.read(0x1000, 2000) == words
    assert link.read_many([0x1000 + 4 * 7, 0x1000]) == [words[7], words[0]]


def test_pipelined_reads_fill_the_line():
    line = LineModel()
    link = open_line(line)
    start = line.time
    link.read(0, 8000)
    assert 8000 * 4 * 10 / 1_000_000 / (line.time - start) > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("baud", [115_200, 1_000_000, 3_000_000, 12_000_000])
@pytest.mark.parametrize("turnaround", [0.0, 0.001, 0.016])
@pytest.mark.parametrize("kind", ["bulk read", "bulk write", "scattered"])
def test_window_in_flight_covers_the_turnaround_and_never_overruns_the_device(kind, turnaround, baud):
    line = LineModel(baud=baud, turnaround=turnaround)
    link = open_line(line)
    count, start = 60_000, line.time
    if kind == "bulk read":
        link.session.exchange([Read(0, 250)] * (count // 250), ordered=False)
    elif kind == "bulk write":
        block = Write(0, tuple(range(250)))
        link.session.exchange([block] * (count // 250), ordered=False)
    else:
        lists = [ReadList(tuple(random.Random(i).sample(range(0, 0x8000, 4), 64))) for i in range(count // 64)]
        link.session.exchange(lists, ordered=False)
    share = count * 4 * 10 / baud / (line.time - start - turnaround)
    assert (share > 0.95, line.overflows) == (True, 0), share


@pytest.mark.parametrize("turnaround", [0.0, 0.016])
def test_slower_device_that_pushes_windows_is_not_overrun(turnaround):
    """Its clock is 2 % slower, and a window of 1 KiB stands between answers every 20 ms."""
    line = LineModel(baud=1_000_000, turnaround=turnaround, skew=0.02)
    link = open_line(line)
    lists = [ReadList(tuple(random.Random(i).sample(range(0, 0x8000, 4), 64))) for i in range(600)]
    pushing = iter(range(1, 1000))
    answers = line._answer

    def answer_between_windows(message):
        if line.time > 0.02 * line.pushed:
            line.pushed = next(pushing)
            answers(bytes([0x83, 0, 0]) + bytes(1056))
        answers(message)

    line.pushed, line._answer = 0, answer_between_windows
    link.session.exchange(lists, ordered=False)
    assert line.pushed > 50
    assert line.overflows == 0
    assert link.session.repeated == 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40))
def test_every_exchange_completes_or_raises_on_a_bad_line(seed):
    rng = random.Random(seed)
    line = LineModel(seed=seed, rate=rng.choice([0.0005, 0.002, 0.01]))
    link = open_line(line, timeout=5.0, seed=seed)
    for step in range(60):
        addresses = rng.sample(range(0, 0x800, 4), rng.randrange(1, 60))
        before, expected = len(line.registers.log), dict(line.registers.words)
        try:
            if rng.random() < 0.5:
                pairs = [(address, rng.getrandbits(32)) for address in addresses]
                outcome = "applied"
                try:
                    link.write_many(pairs)
                except LinkTimeout as error:
                    outcome = error.outcome
                applied = line.registers.log[before:]
                # Each write was applied once and in order, whatever was repeated, and the outcome says so.
                assert applied == pairs[:len(applied)], step
                assert outcome == "unknown" or len(applied) == {"applied": len(pairs), "not applied": 0}[outcome], step
            else:
                assert link.read_many(addresses) == [expected.get(address, 0) for address in addresses], step
        except LinkTimeout:
            assert line.to_device.rate == 0.01, "only the worst line may give up"
    assert line.to_device.count + line.to_host.count > 0


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("seed", range(20))
def test_mixed_lists_keep_their_order_on_a_bad_line(seed, ordered):
    rng = random.Random(seed)
    line = LineModel(seed=seed, rate=0.004)
    link = open_line(line, timeout=30.0, seed=seed)
    model = {}
    for _ in range(30):
        operations, expected = [], []
        for _ in range(rng.randrange(1, 12)):
            address = 4 * rng.randrange(8)
            if rng.random() < 0.5:
                word = rng.getrandbits(32)
                operations.append(rng.choice([Write(address, (word,)), WriteList(((address, word),))]))
                model[address] = word
                expected.append([])
            else:
                operations.append(rng.choice([Read(address), ReadList((address,))]))
                expected.append([model.get(address, 0)])
        assert link.session.exchange(operations, ordered=ordered) == expected


def test_lost_answers_repeat_requests_without_writing_twice():
    line = LineModel()
    link = open_line(line)
    line.to_host.rate = 1.0
    original, line.to_host.apply = line.to_host.apply, lambda data: b""
    with pytest.raises(LinkTimeout) as raised:
        link.write_many([(0x10, 1), (0x14, 2)])
    assert raised.value.outcome == "unknown"
    assert line.registers.log == [(0x10, 1), (0x14, 2)]
    assert line.responder.repeats > 0
    line.to_host.apply, line.to_host.rate = original, 0.0
    assert link.read(0x10, 2) == [1, 2]
    assert line.registers.log == [(0x10, 1), (0x14, 2)]


def _drop_requests(line):
    """Lose every request but let hellos through, in both directions."""
    handle = line.responder.handle
    line.responder.handle = lambda message: handle(message) if message[0] == 2 else b"\x83\0\0"
    return handle


def test_write_that_never_arrived_is_reported_as_not_applied():
    line = LineModel()
    link = open_line(line)
    link.write(0x10, 5)
    handle = _drop_requests(line)
    with pytest.raises(LinkTimeout, match="not applied") as raised:
        link.write(0x10, 6)
    assert raised.value.outcome == "not applied"
    line.responder.handle = handle
    assert link.read(0x10) == [5]


def test_write_whose_answer_was_lost_is_reported_as_applied():
    line = LineModel()
    link = open_line(line)
    handle = line.responder.handle

    def swallow(message):
        answer = handle(message)
        return answer if message[0] == 2 else b"\x83\0\0"

    line.responder.handle = swallow
    with pytest.raises(LinkTimeout) as raised:
        link.write(0x10, 6)
    assert raised.value.outcome == "applied"
    assert line.registers.words[0x10] == 6


def test_partly_applied_block_is_reported_as_unknown_with_the_count():
    line = LineModel()
    link = open_line(line)
    handle = line.responder.handle
    seen = []

    def first_only(message):
        if message[0] == 2:
            return handle(message)
        if not seen or seen[0] == message:
            seen.append(message)
            handle(message)
        return b"\x83\0\0"

    line.responder.handle = first_only
    with pytest.raises(LinkTimeout, match="1 of 3") as raised:
        link.write(0x10, list(range(300)))
    assert raised.value.outcome == "unknown"


def test_list_of_which_only_the_first_request_was_sent_is_not_told_as_applied():
    """An ordered list waits for the answer of its first request: that one was carried out, the rest never sent."""
    line = LineModel()
    link = open_line(line)
    handle = line.responder.handle
    line.responder.handle = lambda message: handle(message) if message[0] == 2 else handle(message) and b"\x83\0\0"
    pairs = [(4 * index, 1) for index in range(200)]
    with pytest.raises(LinkTimeout, match="1 of 3 requests that write were carried out") as raised:
        link.write_many(pairs)
    assert raised.value.outcome == "unknown"
    assert 0 < len(line.registers.log) < len(pairs)


def test_list_whose_first_request_was_answered_is_not_told_as_not_applied():
    line = LineModel()
    link = open_line(line)
    handle = line.responder.handle
    answered = []

    def first_only(message):
        if message[0] == 1 and answered:
            return b"\x83\0\0"
        answered.extend([message] * (message[0] == 1))
        return handle(message)

    line.responder.handle = first_only
    with pytest.raises(LinkTimeout, match="1 of 3 requests that write were carried out") as raised:
        link.write_many([(4 * index, 1) for index in range(200)])
    assert raised.value.outcome == "unknown"


def test_request_is_settled_by_its_mark_as_long_as_the_device_knows_its_session():
    """Also by another host, as after one that was killed; not after a reset."""
    line = LineModel()
    first = open_line(line, seed=1)
    done = first.session.mark()
    first.write(0x10, 5)
    pending = first.session.mark()
    assert [first.session.outcome(mark) for mark in (done, pending)] == ["applied", "not applied"]
    second = open_line(line, seed=2)
    assert [second.session.outcome(mark) for mark in (done, pending)] == ["applied", "not applied"]
    third = open_line(line, seed=3)
    assert third.session.outcome(done) == "unknown", "only the session before is known to a device"
    assert second.session.outcome(done) == "applied", "this host has heard it before"
    line.responder.reset(0x9999)
    with pytest.raises(DeviceReset):
        second.read(0)
    assert second.session.outcome(Mark(0x9999, done.session, done.sequence)) == "unknown"


def test_session_number_that_comes_again_settles_no_mark_of_its_first_use():
    history, mark = History(), Mark(7, 3, 5)
    history.learn(HelloResponse(4, 7, 3, 6))
    assert history.carried_out(mark) is True
    history.learn(HelloResponse(5, 7, 3, 2))
    assert history.carried_out(mark) is None


def test_outcome_is_told_when_every_session_number_was_used_before():
    """There are 255: that one comes again must not make an outcome unknown."""
    line = LineModel()
    link = open_line(line, timeout=0.2)
    for _ in range(300):
        link.session.open()
    handle = line.responder.handle
    for number in range(5):
        line.responder.handle = lambda message: handle(message) if message[0] == 2 else handle(message) and b"\x83\0\0"
        with pytest.raises(LinkTimeout) as raised:
            link.write(0x10, number)
        assert raised.value.outcome == "applied", number
        line.responder.handle = handle
        assert link.read(0x10) == [number]


def test_reset_of_the_device_is_told_and_the_next_exchange_works():
    line = LineModel()
    link = open_line(line)
    link.write(0x10, 5)
    line.responder.reset(0x9999)
    with pytest.raises(DeviceReset) as raised:
        link.write(0x10, 6)
    assert raised.value.outcome == "unknown"
    assert link.read(0x10) == [5]
    assert link.boot_nonce == 0x9999


def test_other_host_that_takes_the_session_is_told():
    line = LineModel()
    link = open_line(line, seed=1)
    other = open_line(line, seed=2)
    other.write(0, 1)
    with pytest.raises(DeviceReset, match="another host"):
        link.read(0)


@pytest.mark.parametrize("seed", range(30))
def test_session_number_left_by_an_earlier_host_does_no_harm(seed):
    """The number drawn first is the one in use, with sequences already spent."""
    line = LineModel()
    first = open_line(line, seed=seed)
    for word in range(5):
        first.write(0x20, word)
    second = open_line(line, seed=seed)
    second.write(0x20, 77)
    assert line.registers.log[-1] == (0x20, 77)
    assert second.read(0x20) == [77]


def test_bus_error_names_the_address_and_stops_what_follows():
    line = LineModel()
    link = open_line(line)
    with pytest.raises(BusError, match="0x30004") as raised:
        link.execute([Write(0x10, (1,)), ReadList((0x10, 0x3_0004, 0x14)), Write(0x10, (2,))])
    assert raised.value.index == 1
    assert raised.value.addresses == (0x3_0004,)
    assert line.registers.words[0x10] == 1


def test_ordered_list_over_several_requests_stops_at_the_failure():
    line = LineModel()
    link = open_line(line)
    pairs = [(4 * index, 1) for index in range(200)]
    with pytest.raises(BusError):
        link.write_many([*pairs[:100], (0x3_0000, 1), *pairs[100:]])
    assert line.registers.log == pairs[:100]


def test_bus_error_leaves_the_link_usable():
    line = LineModel()
    link = open_line(line)
    for _ in range(300):
        with pytest.raises(BusError):
            link.read(0x3_0000)
    link.write(0, 3)
    assert link.read(0) == [3]


def test_short_answer_raises_instead_of_giving_zeros():
    line = LineModel()
    link = open_line(line)
    handle = line.responder.handle
    line.responder.handle = lambda message: (
        handle(message) if message[0] == 2 else handle(message)[:3] + handle(message)[-2:])
    with pytest.raises(LinkError, match="none of them can be trusted"):
        link.read(0, 4)


def test_nothing_answers_raises_within_the_timeout():
    line = LineModel()
    line.device_alive = False
    with pytest.raises(LinkTimeout, match="nothing answers"):
        open_line(line)
    assert line.time < 2.0


def test_repeated_requests_are_those_unanswered_only():
    line = LineModel()
    link = open_line(line)
    answer, sent = line._answer, []

    def lose_second(message):
        sent.append(message)
        if sum(decode_message(one).__class__.__name__ == "Response" for one in sent) != 2:
            answer(message)

    line._answer = lose_second
    assert link.read(0, 255 * 6) == [0] * (255 * 6)
    assert link.session.repeated == 1


def test_windows_are_delivered_between_answers_and_none_is_lost():
    line = LineModel()
    link = open_line(line)
    from device_link.operations import WindowPush
    from device_link.window import Window, WindowRow
    window = Window(7, 1 << 40, 1000, 3, 0, 9, (WindowRow(*range(16)), WindowRow(*range(16, 32))))
    line.push(WindowPush(window.encode()).encode())
    assert link.read(0) == [0]
    line.push(WindowPush(window.encode()).encode())
    assert link.windows(1.0) == [window]
    assert link.windows(1.0) == [window]
    assert link.windows() == []
