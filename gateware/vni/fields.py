"""Finds in a frame, as its beats pass, what the classifier matches on, and hashes its flow.

Contract: `beat` is looked at when `take` is high; from the cycle after a frame's last beat to its successor's,
`fields` holds that frame's `mac` (destination address, first byte most significant), `tagged` and `vlan` (one
802.1Q tag, type 0x8100 at byte 12); `flow_hash` is there with them. No errors: what a short frame lacks is zero.

The hash: h = 0; for each 16-bit word w (network byte order), in frame order: h = rotate_left(h, 3) ^ w; in the
end h ^= h >> 8 and h ^= h >> 4, so that the low bits depend on all. The words are

- IPv4 (type 0x0800): protocol (with the time to live masked off), source and destination address, and the two
  ports if the protocol is TCP or UDP, there are no options, and it is no fragment (all of a flow agree);
- IPv6 (0x86DD): next header (hop limit masked off), both addresses, the ports if the next header is TCP or UDP;
- else the destination and source MAC addresses.

A word that ends behind the end of the frame does not take part. All words of one flow are alike, so its packets
hash alike; the rotation keeps exchanged addresses and ports apart.
"""

from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..config import DeviceConfig
from ..stream.packet import beat_layout

__all__ = ["Fields", "FrameFields"]

VLAN_TYPE, IPV4_TYPE, IPV6_TYPE = 0x8100, 0x0800, 0x86DD
TCP, UDP = 6, 17
WORDS = 9 + 22  # number of the first word behind all that matter: a VLAN's tag, and the ports behind an IPv6 header


class Fields(data.Struct):
    """What one frame is matched by."""

    mac: 48
    tagged: 1
    vlan: 12


class State:
    """What is known after some words of a frame: signals of their own, as a simulator is slow with wide words."""

    SHAPE = {"mac": 48, "tagged": 1, "vlan": 12, "ipv4": 1, "ipv6": 1, "ports": 1, "mac_hash": 16, "ip_hash": 16}

    def __init__(self, name):
        for field, width in self.SHAPE.items():
            setattr(self, field, Signal(width, name=f"{name}_{field}"))

    def assign(self, other, unless=0):
        """Statements that copy `other`, or clear, where `unless` holds."""
        return [getattr(self, field).eq(Mux(unless, 0, getattr(other, field))) for field in self.SHAPE]


class FrameFields(wiring.Component):
    """Walks over the 16-bit words of each beat, a step a word, all in one cycle.

    A lane has only one word of each beat, so that its step has a few places in the frame to tell apart.
    """

    def __init__(self, config: DeviceConfig):
        self._config = config
        self._lanes = config.data_width // 16
        super().__init__({
            "beat": In(beat_layout(config)),
            "take": In(1),
            "fields": Out(Fields),
            "flow_hash": Out(16),
        })

    def elaborate(self, platform):
        m = Module()
        config = self._config
        state = State("state")
        first = Signal(init=1)
        beyond = -(-WORDS // self._lanes)     # beats from here on do not matter
        count, number = Signal(range(beyond + 1)), Signal(range(beyond + 1))   # beats before this one in the frame

        current = State("before")
        used = Signal(range(config.beat_bytes + 1))
        m.d.comb += [
            *current.assign(state, unless=first),
            number.eq(Mux(first, 0, count)),
            used.eq(config.beat_bytes - Mux(self.beat.last, self.beat.empty, 0)),
        ]
        for lane in range(self._lanes):
            low = self.beat.data.word_select(2 * lane, 8)
            high = self.beat.data.word_select(2 * lane + 1, 8)
            word = Signal(16, name=f"word_{lane}")
            m.d.comb += word.eq(Cat(high, low))
            after = State(f"after_{lane}")
            m.d.comb += after.assign(current)
            with m.If(used >= 2 * lane + 2):
                self._step(m, lane, number, current, after, word)
            current = after
        with m.If(self.take):
            m.d.sync += [
                *state.assign(current),
                first.eq(self.beat.last),
                count.eq(number + (number != beyond)),
            ]
        chosen, folded = Signal(16), Signal(16)
        m.d.comb += [
            chosen.eq(Mux(state.ipv4 | state.ipv6, state.ip_hash, state.mac_hash)),
            self.fields.mac.eq(state.mac),
            self.fields.tagged.eq(state.tagged),
            self.fields.vlan.eq(state.vlan),
            folded.eq(chosen ^ (chosen >> 8)),
            self.flow_hash.eq(folded ^ (folded >> 4)),
        ]
        return m

    def _step(self, m, lane, number, before, after, word):
        """What changes with the word in `lane` of beat `number`."""
        with m.Switch(number):
            for place in range(lane, WORDS, self._lanes):
                with m.Case(place // self._lanes):
                    self._step_frame(m, before, after, word, place)
                    for header, here in ((7, ~before.tagged), (9, before.tagged)):
                        if place >= header:
                            with m.If(before.ipv4 & here):
                                self._step_ipv4(m, before, after, word, place - header)
                            with m.If(before.ipv6 & here):
                                self._step_ipv6(m, before, after, word, place - header)

    def _step_frame(self, m, before, after, word, place):
        """Word `place` of a frame."""
        if place < 3:
            m.d.comb += after.mac.eq(Cat(word, before.mac[:32]))
        if place < 6:
            m.d.comb += after.mac_hash.eq(before.mac_hash.rotate_left(3) ^ word)
        if place == 6:
            m.d.comb += after.tagged.eq(word == VLAN_TYPE)
            self._network_type(m, after, word)
        with m.If(before.tagged):
            if place == 7:
                m.d.comb += after.vlan.eq(word[:12])
            if place == 8:
                self._network_type(m, after, word)

    def _network_type(self, m, after, word):
        m.d.comb += [after.ipv4.eq(word == IPV4_TYPE), after.ipv6.eq(word == IPV6_TYPE)]

    def _hash(self, m, before, after, word):
        m.d.comb += after.ip_hash.eq(before.ip_hash.rotate_left(3) ^ word)

    def _step_ipv4(self, m, before, after, word, place):
        """Word `place` of an IPv4 header."""
        if place == 0:
            m.d.comb += after.ports.eq(word[8:] == 0x45)
        if place == 3:
            m.d.comb += after.ports.eq(before.ports & (word[:14] == 0))
        if place == 4:
            self._hash(m, before, after, word[:8])
            m.d.comb += after.ports.eq(before.ports & ((word[:8] == TCP) | (word[:8] == UDP)))
        if 6 <= place <= 9:
            self._hash(m, before, after, word)
        if place in (10, 11):
            with m.If(before.ports):
                self._hash(m, before, after, word)

    def _step_ipv6(self, m, before, after, word, place):
        """Word `place` of an IPv6 header."""
        if place == 3:
            self._hash(m, before, after, word[8:])
            m.d.comb += after.ports.eq((word[8:] == TCP) | (word[8:] == UDP))
        if 4 <= place <= 19:
            self._hash(m, before, after, word)
        if place in (20, 21):
            with m.If(before.ports):
                self._hash(m, before, after, word)
