"""The request mux: whole TLPs, every source's order, turns, and flow control credits that are never exceeded."""

import random

import pytest

from gateware.pcie.requester import RequestMux
from gateware.pcie.tlp import RequestKind
from tests.gateware.pcie.tlps import beats, collect, request, request_layout, sink, source, until
from tests.gateware.simulation import simulate

READ, WRITE = RequestKind.READ, RequestKind.WRITE


def draw(rng, origin, number):
    length = rng.choice([1, 2, 3, 17, 32])
    if rng.random() < 0.5:
        return request(READ, 4096 * number, length=length, requester_id=origin)
    return request(WRITE, 4096 * number, data=rng.randbytes(4 * length), requester_id=origin)


@pytest.mark.slow
@pytest.mark.parametrize(("idle", "busy"), [(0, 0), (0.5, 0), (0, 0.5), (0.3, 0.3)])
@pytest.mark.parametrize("count", [1, 3])
def test_every_source_keeps_its_order_and_credits_are_never_exceeded(idle, busy, count):
    seed = count + int(10 * idle + 100 * busy)
    print("seed", seed)
    rng = random.Random(seed)
    dut, words = RequestMux(64, count), []
    sent = [[draw(rng, origin, number) for number in range(40)] for origin in range(count)]
    granted = {"posted_headers": 1, "posted_data": 8, "nonposted_headers": 1}

    used, seen = dict.fromkeys(granted, 0), [0]

    def count_used():
        layout = request_layout(64)
        for word in words[seen[0]:]:
            beat = layout.from_bits(word)
            if beat["first"] and RequestKind(beat["header"]["kind"]) == WRITE:
                used["posted_headers"] += 1
                used["posted_data"] += -(-beat["header"]["length"] // 4)
            elif beat["first"]:
                used["nonposted_headers"] += 1
        seen[0] = len(words)
        return used

    async def credit(ctx):
        ctx.set(dut.limited, 7)
        while True:
            ctx.set(dut.limit, {name: value % (4096 if name == "posted_data" else 256)
                                for name, value in granted.items()})
            for _ in range(rng.randrange(1, 30)):
                await ctx.tick()
            for name, value in count_used().items():
                assert value <= granted[name], f"{name} exceeded"
                granted[name] = max(granted[name], value + rng.choice([0, 1, 8]))

    async def wait(ctx):
        expected = sum(max(1, len(tlp.payload) // 8 + len(tlp.payload) % 8 // 4) for mine in sent for tlp in mine)
        await until(ctx, lambda: len(words) == expected, 30_000)

    simulate(dut, wait, background=[credit, sink(dut.requests, words, lambda: rng.random() < busy), *(
        source(dut.sources[origin], [word for tlp in sent[origin] for word in beats(tlp, request_layout(64), 64)],
               lambda: rng.random() < idle) for origin in range(count))])
    found = collect(words, request_layout(64), 64)
    for origin in range(count):
        mine = [(tlp.kind, tlp.address, tlp.payload) for tlp in found if tlp.requester_id == origin]
        assert mine == [(tlp.kind.value, tlp.address, tlp.payload) for tlp in sent[origin]]


@pytest.mark.parametrize("blocked", [READ, WRITE])
def test_what_has_no_credits_does_not_hold_up_the_other_kind(blocked):
    dut, words = RequestMux(64, 2), []
    reads = beats(request(READ, 4096, length=4), request_layout(64), 64) * 5
    writes = beats(request(WRITE, 4096, data=bytes(16)), request_layout(64), 64) * 5

    async def wait(ctx):
        ctx.set(dut.limited, 7)
        ctx.set(dut.limit, {"posted_headers": 5, "posted_data": 100, "nonposted_headers": 0} if blocked == READ
                else {"posted_headers": 5, "posted_data": 0, "nonposted_headers": 5})
        await ctx.tick().repeat(100)

    simulate(dut, wait, background=[sink(dut.requests, words), source(dut.sources[0], reads),
                                    source(dut.sources[1], writes)])
    found = collect(words, request_layout(64), 64)
    assert len(found) == 5
    assert blocked.value not in {tlp.kind for tlp in found}


def test_sources_that_always_offer_take_turns():
    dut, words = RequestMux(64, 3), []
    word = [beats(request(READ, 4096, length=1, requester_id=origin), request_layout(64), 64) * 20
            for origin in range(3)]

    async def wait(ctx):
        await until(ctx, lambda: len(words) == 30)

    simulate(dut, wait, background=[sink(dut.requests, words), *(source(dut.sources[origin], word[origin])
                                                                 for origin in range(3))])
    order = [tlp.requester_id for tlp in collect(words[:30], request_layout(64), 64)]
    assert all(order[index] == (order[0] + index) % 3 for index in range(30))


def test_wrong_count_is_refused():
    with pytest.raises(ValueError, match="count must be at least 1"):
        RequestMux(64, 0)
