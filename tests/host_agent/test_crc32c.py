"""The software twin of the CRC-32C shard against independent computations of the same response."""

import random
import struct

import google_crc32c
import pytest

from host_agent.shards.crc32c import RESPONSE_BYTES, WorkerPool, process


def crc32c_bitwise(data):
    """CRC-32C from its definition: reflected polynomial 0x82F63B78."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def expected(payload):
    return (payload[:8] + bytes(8))[:8] + struct.pack("<I", crc32c_bitwise(payload)) + bytes([0, 1, 0, 0])


def test_known_answer_of_the_standard():
    assert process(b"123456789") == b"12345678" + bytes.fromhex("839206e3") + bytes([0, 1, 0, 0])


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 15, 16, 64, 1500, 2048])
def test_response_at_every_kind_of_length(length):
    payload = random.Random(length).randbytes(length)
    assert process(payload) == expected(payload)
    assert len(process(payload)) == RESPONSE_BYTES
    assert struct.unpack_from("<I", process(payload), 8)[0] == google_crc32c.value(payload)


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 4, 5, 301])
def test_pool_answers_in_order_and_counts(workers, count):
    rng = random.Random(count)
    payloads = [rng.randbytes(rng.randrange(200)) for _ in range(count)]
    with WorkerPool(workers) as pool:
        assert pool.process(payloads) == [process(payload) for payload in payloads]
        measured = pool.throughput
    assert (measured.requests, measured.bytes) == (count, sum(map(len, payloads)))
    assert (measured.bytes_per_second is None) == (count == 0)


def test_failed_batch_is_raised_and_not_counted():
    with WorkerPool(2) as pool:
        with pytest.raises(TypeError):
            pool.process([b"good", None])
        assert pool.throughput.requests == 0
        assert pool.process([b"x"]) == [process(b"x")]


def test_pool_without_workers_is_refused():
    with pytest.raises(ValueError, match="workers must be at least 1, not 0"):
        WorkerPool(0)
