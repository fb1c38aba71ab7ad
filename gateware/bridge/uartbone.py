"""`UartBone`: the other personality of the serial link, for LiteX's tools: one command at a time.

Contract: the wire format of LiteX's UARTBone. A command is its number (1 write and 2 read consecutive words, 3 write
and 4 read the same word again and again), a count of words, a *word* address of four bytes, then for a write the words;
everything most significant byte first. A read is answered with its words and nothing else, the first byte three cycles
and the bus access behind the command's last; a write is not answered. Nothing is checked, nothing repeated.

What goes wrong has no answer in this format: a read that the bus refuses gives `REFUSED`, a write that it refuses is
dropped, both counted in `link.bus_errors`; an address is looked at with all its 32 bits. An unknown number is dropped
with its count and address; a command that stops arriving for `silence` cycles is forgotten, what it wrote so far stays,
and the next byte begins a new one; both are counted in `link.framing_errors`. A count of 0 moves no word. `rx` waits
while the bus is accessed (16 cycles at most) and while words are sent, so that a host on a line must not send a command
before the last one is answered. Same ports as `LinkBridge`; no windows are pushed, `telemetry` is always taken.
"""

from amaranth import *
from amaranth.lib import enum, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import DeviceConfig
from ..csr.bus import CsrSignature
from ..csr.registers import RegisterBlock
from ..csr.regmap import WORD_ADDRESS_WIDTH
from ..stream.telemetry import TELEMETRY_WORD

__all__ = ["REFUSED", "Command", "UartBone"]

REFUSED = 0xFFFF_FFFF
_SILENCES_A_SECOND = 10
_WORD_BYTES = 4
_HEADER_BYTES = 5


class Command(enum.Enum, shape=unsigned(8)):
    """First byte of a command; any other is unknown."""

    WRITE = 1
    READ = 2
    WRITE_SAME = 3
    READ_SAME = 4


class UartBone(wiring.Component):
    """The link of one device. silence: cycles after which half a command is forgotten; by default 100 ms."""

    def __init__(self, config: DeviceConfig, *, silence: int | None = None):
        self._silence = config.clock_hz // _SILENCES_A_SECOND if silence is None else silence
        if self._silence < 1:
            raise ValueError(f"silence must be at least 1, not {silence!r}")
        super().__init__({
            "rx": In(stream.Signature(8)),
            "tx": Out(stream.Signature(8)),
            "bus": Out(CsrSignature(WORD_ADDRESS_WIDTH)),
            "registers": In(CsrSignature(WORD_ADDRESS_WIDTH)),
            "telemetry": In(stream.Signature(TELEMETRY_WORD)),
            "boot_nonce": In(32),
        })

    @property
    def silence(self) -> int:
        """Cycles after which half a command is forgotten."""
        return self._silence

    def elaborate(self, platform):
        m = Module()
        command, left, address, word = Signal(8), Signal(8), Signal(32), Signal(32)
        position = Signal(range(_HEADER_BYTES))  # of a byte in the header or in a word
        done, refused, forgotten = Signal(), Signal(), Signal()
        writes = command.matches(Command.WRITE, Command.WRITE_SAME)
        reads = command.matches(Command.READ, Command.READ_SAME)
        consecutive = command.matches(Command.WRITE, Command.READ)
        m.d.comb += self.telemetry.ready.eq(1)

        def take(into, size, following):
            self._take(m, into, size, position)
            with m.If(self.rx.valid & (position == size - 1)):
                m.next = following
            with m.If(forgotten):
                m.next = "command"

        def word_moved():
            m.d.sync += [left.eq(left - 1), address.eq(address + consecutive)]
            m.next = "decide"

        with m.FSM() as fsm:
            with m.State("command"):
                m.d.comb += self.rx.ready.eq(1)
                m.d.sync += position.eq(0)
                with m.If(self.rx.valid):
                    m.d.sync += command.eq(self.rx.payload)
                    m.next = "header"
            # A count and an address: an unknown command has them too.
            with m.State("header"):
                take(Cat(address, left), _HEADER_BYTES, "decide")
            # Is there a word to move?
            with m.State("decide"):
                m.next = "command"
                with m.If(writes & (left != 0)):
                    m.next = "data"
                with m.If(reads & (left != 0)):
                    m.next = "access"
            with m.State("data"):
                take(word, _WORD_BYTES, "access")
            with m.State("access"):
                with m.If(done & writes):
                    word_moved()
                with m.If(done & reads):
                    m.d.sync += word.eq(Mux(refused, REFUSED, self.bus.r_data))
                    m.next = "send"
            with m.State("send"):
                m.d.comb += [self.tx.valid.eq(1), self.tx.payload.eq(word[-8:])]
                with m.If(self.tx.ready):
                    m.d.sync += [word.eq(word << 8), position.eq(position + 1)]
                    with m.If(position == _WORD_BYTES - 1):
                        m.d.sync += position.eq(0)
                        word_moved()
        self._access(m, fsm.ongoing("access"), address, word, writes, done, refused)
        self._forget(m, fsm.ongoing("header") | fsm.ongoing("data"), forgotten)
        begins = fsm.ongoing("header") & self.rx.valid & (position == _HEADER_BYTES - 1)
        answered = fsm.ongoing("send") & self.tx.ready & (position == _WORD_BYTES - 1) & (left == 1)
        self._count(m, begins, answered, writes | reads, forgotten, done & refused)
        return m

    def _take(self, m, into, size, position):
        """Shift `size` bytes into a value; `position` is 0 before and after."""
        m.d.comb += self.rx.ready.eq(1)
        with m.If(self.rx.valid):
            m.d.sync += [into.eq(Cat(self.rx.payload, into)), position.eq(position + 1)]
            with m.If(position == size - 1):
                m.d.sync += position.eq(0)

    def _access(self, m, accessing, address, word, writes, done, refused):
        """On the bus; an address beyond the register space is refused here."""
        beyond = address[WORD_ADDRESS_WIDTH:] != 0
        m.d.comb += [
            self.bus.valid.eq(accessing & ~beyond),
            self.bus.address.eq(address),
            self.bus.write.eq(writes),
            self.bus.w_data.eq(word),
            self.bus.w_mask.eq(0b1111),
            done.eq(accessing & (beyond | self.bus.ready)),
            refused.eq(beyond | self.bus.error),
        ]

    def _forget(self, m, waiting, forgotten):
        quiet = Signal(range(self._silence))
        m.d.comb += forgotten.eq(waiting & ~self.rx.valid & (quiet == self._silence - 1))
        m.d.sync += quiet.eq(quiet + 1)
        with m.If(~waiting | self.rx.valid):
            m.d.sync += quiet.eq(0)

    def _count(self, m, begins, answered, known, forgotten, refused):
        events = {
            "frames_received": begins & known,
            "frames_sent": answered,
            "framing_errors": (begins & ~known) | forgotten,
            "bus_errors": refused,
        }
        m.submodules.block = block = RegisterBlock(["link"])
        wiring.connect(m, wiring.flipped(self.registers), block.bus)
        for name, event in events.items():
            counter = Signal(32, name=name)
            m.d.sync += counter.eq(counter + event)
            m.d.comb += getattr(block, f"link_{name}_value").eq(counter)
