"""`RegisterBlock`: registers elaborated from the register map, for the top-level blocks that it is given.

An access takes three cycles: the address is decoded in the first, the register is read or written in the second,
`ready` and the answer are high in the third. An address without a register, and a write to a register that has nothing
to write, are answered with `error` and change nothing; a write reaches the enabled bytes of writable fields only. A
read has no side effect. An access to an external block is passed on to its port from the second cycle on, and
answered with it.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from operator import or_

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from . import regmap
from .bus import CsrSignature

__all__ = ["RegisterBlock"]


class RegisterBlock(wiring.Component):
    """Registers of the blocks `names`, taken from `rtl/registers/morphnic.rdl`.

    names: top-level blocks of the map; as a mapping, the value is how many elements of an array (or words of
        a memory) are real (None: all of them). Elements beyond that are answered with `error`.

    Ports, with `prefix` = `<block>_<register>`, or `<block>_<index>_<register>` in an array:

    - `bus`: absolute word addresses.
    - `<prefix>_<field>`, out: a field that software writes. A `singlepulse` field is high for one cycle after
      a 1 was written, and reads 0.
    - `<prefix>_<field>`, in: a field that software only reads.
    - `<prefix>_written`, out: strobe, high in the cycle in which the value just written is first visible;
      there for registers with a writable field, and raised only if an enabled byte holds some of one.
    - `<block>`, out, `CsrSignature(16)`: accesses to an external block, with absolute word addresses.
    """

    def __init__(self, names: Sequence[str] | Mapping[str, int | None]):
        if isinstance(names, str):
            raise TypeError(f"names must be a sequence of names or a mapping, not {names!r}")
        counts = names if isinstance(names, Mapping) else dict.fromkeys(names)
        if not counts:
            raise ValueError(f"names must be at least one block, not {names!r}")
        self._blocks = {name: regmap.node(name) for name in counts}
        self._counts = {name: self._checked_count(name, counts[name]) for name in counts}
        members = {"bus": In(CsrSignature(regmap.WORD_ADDRESS_WIDTH))}
        for block in self._blocks.values():
            if block.external:
                members[block.name] = Out(CsrSignature(regmap.WORD_ADDRESS_WIDTH))
        for _, prefix, register in self._registers():
            for field in register.fields:
                direction = Out if field.writable else In
                init = field.reset if field.writable else 0
                members[f"{prefix}_{field.name}"] = direction(field.width, init=init)
            if register.writable:
                members[f"{prefix}_written"] = Out(1)
        super().__init__(members)

    def _checked_count(self, name: str, count: int | None) -> int:
        elements = self._blocks[name].elements
        if count is None:
            return elements
        if not 0 < count <= elements:
            raise ValueError(f"count of {name} must be in 1..{elements}, not {count!r}")
        return count

    def _registers(self) -> Iterator[tuple[int, str, regmap.Register]]:
        """Word address, prefix and description of every register that is built here."""
        for block in self._blocks.values():
            if block.external:
                continue
            for index in range(self._counts[block.name]):
                base = block.name if block.count is None else f"{block.name}_{index}"
                for register in block.registers:
                    address = block.address + index * block.stride + register.offset
                    yield address // 4, f"{base}_{register.name}", register

    def elaborate(self, platform):
        m = Module()
        decoded = Signal()   # an access is in its second cycle or later
        begin = Signal()     # ... to a register of ours, in its second
        done = Signal()      # ... and in its third
        refused = Signal()
        answer = Signal(32)
        m.d.sync += [decoded.eq(self.bus.valid & ~self.bus.ready), done.eq(begin)]
        m.d.comb += [
            begin.eq(decoded & ~done),
            self.bus.ready.eq(self.bus.valid & done),
            self.bus.error.eq(refused),
            self.bus.r_data.eq(answer),
        ]
        for block in self._blocks.values():
            if block.external:
                self._elaborate_external(m, block, decoded, begin)

        hits, words = [], []
        for address, prefix, register in self._registers():
            selected = Signal(name=f"{prefix}_selected")
            m.d.sync += selected.eq(self.bus.address == address)
            hits.append(selected & (~self.bus.write | register.writable))
            words.append(Mux(selected, self._elaborate_register(m, prefix, register, selected & begin & self.bus.write),
                             0))
        m.d.sync += [refused.eq(~Cat(hits).any()), answer.eq(reduce(or_, words))]
        return m

    def _elaborate_external(self, m, block, decoded, begin):
        port = getattr(self, block.name)
        first = block.address // 4
        words = self._counts[block.name] * (1 if block.is_memory else block.stride // 4)
        selected = Signal(name=f"{block.name}_selected")
        m.d.sync += selected.eq((self.bus.address >= first) & (self.bus.address < first + words))
        m.d.comb += [
            port.valid.eq(decoded & self.bus.valid & selected),
            port.write.eq(self.bus.write),
            port.address.eq(self.bus.address),
            port.w_data.eq(self.bus.w_data),
            port.w_mask.eq(self.bus.w_mask),
        ]
        with m.If(decoded & selected):
            m.d.comb += [
                begin.eq(0),
                self.bus.ready.eq(port.ready),
                self.bus.error.eq(port.error),
                self.bus.r_data.eq(port.r_data),
            ]

    def _elaborate_register(self, m, prefix, register, write):
        """Reads and writes of one register; returns its word. Strobes and pulses fall back by themselves."""
        mask = Cat(bit.replicate(8) for bit in self.bus.w_mask)
        word = Signal(32, name=f"{prefix}_word")
        touched = Const(0)
        for field in register.fields:
            port = getattr(self, f"{prefix}_{field.name}")
            place = slice(field.lsb, field.lsb + field.width)
            if "r" in field.access and not field.singlepulse:
                m.d.comb += word[place].eq(port)
            if field.singlepulse:
                m.d.sync += port.eq(Mux(write, self.bus.w_data[place] & mask[place], 0))
            elif field.writable:
                self._write(m, write, port, field.lsb)
            if field.writable:
                touched = touched | mask[place].any()
        if register.writable:
            m.d.sync += getattr(self, f"{prefix}_written").eq(write & touched)
        return word

    def _write(self, m, write, port, lsb):
        """The enabled bytes of a field; an enable a byte costs no logic a bit."""
        for byte in range(4):
            low, high = max(lsb, 8 * byte), min(lsb + len(port), 8 * byte + 8)
            if low < high:
                with m.If(write & self.bus.w_mask[byte]):
                    m.d.sync += port[low - lsb:high - lsb].eq(self.bus.w_data[low:high])
