"""COBS and CRC-32C frames: against a definition of their own, and against anything that a line can do to them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_link.framing import FrameDecoder, cobs_decode, cobs_encode, crc32c, encode_frame


def reference_cobs(data):
    """COBS by its definition, a byte at a time."""
    out, block = bytearray(), bytearray()
    pending = True  # a code must still be written, even for an empty block
    for byte in data:
        pending = True
        if byte:
            block.append(byte)
            if len(block) == 254:
                out += bytes([255]) + block
                block.clear()
                pending = False
        else:
            out += bytes([len(block) + 1]) + block
            block.clear()
    if pending or block:
        out += bytes([len(block) + 1]) + block
    return bytes(out)


def reference_crc32c(data):
    """CRC-32C by its definition, a bit at a time."""
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


payloads = st.one_of(
    st.binary(max_size=64),
    st.builds(lambda count, tail: b"\x07" * count + tail, st.sampled_from([253, 254, 255, 508, 509]),
              st.binary(max_size=4)),
    st.lists(st.sampled_from([0, 1, 255]), max_size=600).map(bytes),
)


@given(payloads)
def test_cobs_matches_its_definition_and_back(data):
    encoded = cobs_encode(data)
    assert encoded == reference_cobs(data)
    assert 0 not in encoded
    assert cobs_decode(encoded) == data


@given(st.binary(max_size=200))
def test_crc_matches_its_definition(data):
    assert crc32c(data) == reference_crc32c(data)


@given(st.lists(st.binary(min_size=3, max_size=300), max_size=6), st.data())
def test_frames_are_found_however_the_bytes_arrive(messages, data):
    line = b"".join(map(encode_frame, messages))
    decoder, found = FrameDecoder(), []
    while line:
        size = data.draw(st.integers(1, len(line)))
        found += list(decoder.feed(line[:size]))
        line = line[size:]
    assert found == messages
    assert decoder.crc_errors == decoder.framing_errors == 0


@given(st.binary(min_size=3, max_size=300), st.data())
@settings(max_examples=300)
def test_changed_byte_never_gives_a_message(message, data):
    frame = bytearray(encode_frame(message))
    place = data.draw(st.integers(0, len(frame) - 2))
    frame[place] = data.draw(st.integers(1, 255).filter(lambda value: value != frame[place]))
    decoder = FrameDecoder()
    assert list(decoder.feed(bytes(frame))) == [None]
    assert decoder.crc_errors + decoder.framing_errors == 1


@given(st.binary(max_size=400), st.binary(min_size=3, max_size=100))
def test_next_frame_is_found_after_any_noise(noise, message):
    decoder = FrameDecoder(limit=128)
    list(decoder.feed(noise + b"\0"))
    assert list(decoder.feed(encode_frame(message))) == [message]


def test_noise_without_zeros_takes_no_memory_and_is_one_bad_frame():
    decoder = FrameDecoder(limit=100)
    for _ in range(50):
        assert list(decoder.feed(b"\x55" * 64)) == []
        assert len(decoder._pending) <= 100
    assert list(decoder.feed(b"\0" + encode_frame(b"abc"))) == [None, b"abc"]
    assert decoder.framing_errors == 1


def test_empty_frames_are_ignored():
    decoder = FrameDecoder()
    assert list(decoder.feed(b"\0\0" + encode_frame(b"abc") + b"\0\0")) == [b"abc"]
    assert decoder.framing_errors == 0


@pytest.mark.parametrize("encoded", [b"\x05\x01", b"\x00", b"\x03\x01\x00", b"\x02\x01\x09"])
def test_bytes_that_no_encoder_makes_are_refused(encoded):
    with pytest.raises(ValueError, match="COBS group"):
        cobs_decode(encoded)
