"""Operation lists and messages: round trips, and what a device must call malformed."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_link.operations import (
    HEADER_BYTES,
    SPACE_BYTES,
    Control,
    Hello,
    HelloResponse,
    MalformedList,
    MalformedMessage,
    Read,
    ReadList,
    Reject,
    RejectReason,
    Request,
    Response,
    Status,
    WindowPush,
    Write,
    WriteList,
    decode_message,
    decode_operations,
    encode_operations,
    encoded_size,
)
from device_link.planning import plan

words = st.integers(0, 0xFFFFFFFF)
addresses = st.integers(0, SPACE_BYTES // 4 - 1).map(lambda word: 4 * word)
near = st.integers(0, SPACE_BYTES // 4 - 255).map(lambda word: 4 * word)
operations = st.one_of(
    st.builds(Read, near, st.integers(1, 255)),
    st.builds(ReadList, st.lists(addresses, min_size=1, max_size=255).map(tuple)),
    st.builds(Write, near, st.lists(words, min_size=1, max_size=255).map(tuple)),
    st.builds(WriteList, st.lists(st.tuples(addresses, words), min_size=1, max_size=255).map(tuple)),
)


@given(st.lists(operations, max_size=5))
def test_lists_survive_the_wire(listed):
    body = encode_operations(listed)
    assert decode_operations(body) == listed
    assert len(body) == sum(map(encoded_size, listed))


def test_layout_is_that_of_the_reference():
    body = encode_operations([Read(0x1234, 2), ReadList((4, 0x3FFFC)), Write(8, (0x11223344,)),
                              WriteList(((12, 0xAABBCCDD),))])
    assert body == bytes.fromhex("0102 34120000  0202 0100 ffff  0301 08000000 44332211  0401 0300 ddccbbaa")


@given(st.binary(max_size=60))
def test_any_bytes_decode_or_are_malformed(body):
    try:
        listed = decode_operations(body)
    except MalformedList:
        return
    assert encode_operations(listed) == body


@pytest.mark.parametrize("operation", [Read(2), Read(SPACE_BYTES), Read(SPACE_BYTES - 4, 2), Read(0, 256), Read(0, 0),
                                       ReadList(()), Write(0, (1,) * 256), ReadList((3,)), Read(-4)])
def test_what_the_wire_cannot_carry_is_refused(operation):
    with pytest.raises(ValueError, match="must be"):
        encode_operations([operation])


@pytest.mark.parametrize("message", [
    Hello(7), Request(7, 9, b"\1\1\0\0\0\0"), Control(0, 3, b"{}"), Control(0, 3, b"{}", answer=True),
    HelloResponse(7, 0xDEADBEEF, 3, 200), Response(7, 9, (1, 2, 0xFFFFFFFF), Status.BUS_ERROR, 5),
    Response(7, 9, (), Status.DONE, 0), Reject(7, 9, RejectReason.OUT_OF_ORDER, 4), WindowPush(b"abcd"),
])
def test_messages_survive_the_wire(message):
    assert decode_message(message.encode()) == message


@pytest.mark.parametrize("raw", [b"", b"\x81\1", b"\x81\1\0", b"\x81\1\0\0", b"\x81\1\0\0\0\0", b"\x81\1\0\7\0",
                                 b"\x84\1\0\1", b"\x84\1\0\x09\0", b"\x82\1\0\1", b"\x55\1\0"])
def test_what_is_no_message_is_refused(raw):
    with pytest.raises(MalformedMessage):
        decode_message(raw)


@given(st.lists(operations, min_size=1, max_size=6), st.booleans(), st.booleans())
def test_plan_keeps_every_word_in_order_and_every_request_within_its_limits(listed, mixed, growing):
    flights = plan(listed, largest=512, max_words=255, mixed=mixed, growing=growing)
    touched = []
    for flight in flights:
        assert len(encode_operations([piece.operation for piece in flight.pieces])) + 3 == flight.size <= 512
        assert flight.words <= 255
        seen_read = False
        for piece in flight.pieces:
            writes = isinstance(piece.operation, Write | WriteList)
            assert mixed or not (writes and seen_read), "a repetition would read what was written later"
            seen_read |= not writes
            touched += [(piece.index, *access) for access in accesses(piece.operation)]
    assert touched == [(index, *access) for index, one in enumerate(listed) for access in accesses(one)]


def test_a_growing_plan_of_a_list_never_makes_the_line_wait_for_a_request():
    flights = plan([ReadList(tuple(range(0, 4096, 4)))], largest=512, max_words=255, mixed=False, growing=True)
    assert flights[0].size <= 32, "no answer can begin before the first request is there"
    for before, after in pairwise(flights):
        answer = 4 * before.words + HEADER_BYTES + 2
        assert after.size <= answer, "the answer before it is over before the request has arrived"
    assert max(flight.size for flight in flights) > 500, "a long list ends in full requests"


def accesses(operation):
    """(address, word or None) of each access."""
    match operation:
        case Read(address, count):
            return [(address + 4 * place, None) for place in range(count)]
        case ReadList(listed):
            return [(address, None) for address in listed]
        case Write(address, data):
            return [(address + 4 * place, word) for place, word in enumerate(data)]
        case WriteList(pairs):
            return list(pairs)
