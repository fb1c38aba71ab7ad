"""TLPs for tests: packing into beats and out of them, sources and sinks with pauses, and the rules of completions."""

from dataclasses import dataclass, field, replace

from amaranth.lib.data import Layout

from gateware.pcie.tlp import CompletionStatus, RequestKind, completion_layout, request_layout

__all__ = ["ABORT", "SUCCESS", "UNSUPPORTED", "Tlp", "beats", "carried_words", "collect", "completion_layout",
           "enables", "fields", "payload_bits", "request", "request_layout", "sink", "source", "until"]

SUCCESS, UNSUPPORTED, ABORT = (status.value for status in (
    CompletionStatus.SUCCESS, CompletionStatus.UNSUPPORTED, CompletionStatus.ABORT))


@dataclass(frozen=True)
class Tlp:
    """A TLP: fields of its header, and its payload (whole DWs)."""

    header: dict = field(default_factory=dict)
    payload: bytes = b""

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        return self.header[name]

    def having(self, **changes):
        return replace(self, header=self.header | changes)


def request(kind, address, *, data=b"", length=None, first_be=0xF, last_be=0xF, **fields):
    """A request at a byte `address`; `length` in DW is that of the payload, or given."""
    length = len(data) // 4 if length is None else length
    defaults = {"requester_id": 0x0100, "tag": 0, "traffic_class": 0, "attributes": 0, "poisoned": 0, "bar": 0}
    return Tlp({**defaults, "kind": kind, "address": address // 4, "length": length, "first_be": first_be,
                "last_be": last_be if length > 1 else 0, **fields}, bytes(data))


def enables(address, size):
    """DW address, DW length, first and last byte enables of `size` bytes at a byte address."""
    start, end = address // 4, -(-(address + size) // 4)
    first = 0xF << address % 4 & 0xF
    last = 0xF >> (-(address + size)) % 4
    return start, end - start, first & last if end - start == 1 else first, 0 if end - start == 1 else last


def beats(tlp, layout, width):
    """The beats of `tlp` as integers."""
    size = width // 8
    pieces = [tlp.payload[start:start + size] for start in range(0, len(tlp.payload), size)] or [b""]
    return [layout.const({"header": tlp.header, "data": int.from_bytes(piece, "little"),
                          "first": index == 0, "last": index == len(pieces) - 1}).as_bits()
            for index, piece in enumerate(pieces)]


def fields(layout, bits):
    """Fields of a structure as integers."""
    value = layout.from_bits(bits)
    return {name: int(getattr(value[name], "value", value[name])) for name, _ in Layout.cast(layout)}


def collect(words, layout, width):
    """TLPs from beats; checks the contract of the stream. A TLP that is not complete is an error."""
    tlps, header, payload = [], None, b""
    for word in words:
        beat = layout.from_bits(word)
        found = fields(layout["header"].shape, beat["header"].as_bits())
        assert bool(beat["first"]) == (header is None), "first is set in the first beat and in no other"
        assert header in (None, found), "the header changed within a TLP"
        header, payload = found, payload + beat["data"].to_bytes(width // 8, "little")
        if beat["last"]:
            carried = carried_words(found)
            assert len(payload) == max(1, -(-4 * carried // (width // 8))) * (width // 8), "number of beats"
            tlps.append(Tlp(found, payload[:4 * carried]))
            header, payload = None, b""
    assert header is None, "a TLP has no end"
    return tlps


def carried_words(header):
    """DWs of payload that a TLP carries."""
    return 0 if header.get("kind") not in (None, RequestKind.WRITE.value) else header["length"]


def source(stream, words, idle=lambda: False):
    """A testbench process that offers `words`; before each it pauses while `idle()`."""
    async def run(ctx):
        for word in words:
            while idle():
                await ctx.tick()
            ctx.set(payload_bits(stream), word)
            ctx.set(stream.valid, 1)
            while not (await ctx.tick().sample(stream.ready))[2]:
                pass
            ctx.set(stream.valid, 0)
    return run


def sink(stream, words, busy=lambda: False):
    """A background process that appends to `words` what is transferred, except while `busy()`; offers must be held."""
    async def run(ctx):
        held = None
        while True:
            ready = not busy()
            ctx.set(stream.ready, ready)
            _, _, valid, word = await ctx.tick().sample(stream.valid, payload_bits(stream))
            assert held is None or (valid and word == held), "an offer was withdrawn or changed"
            held = word if valid and not ready else None
            if valid and ready:
                words.append(word)
    return run


def payload_bits(stream):
    """The payload of a stream as a plain value."""
    return getattr(stream.payload, "as_value", lambda: stream.payload)()


async def until(ctx, done, limit=20_000):
    """Let the clock run until `done()`; fail after `limit` cycles."""
    for _ in range(limit):
        if done():
            return
        await ctx.tick()
    raise AssertionError(f"not done within {limit} cycles")
