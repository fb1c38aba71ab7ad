"""`RuleStore`: the registers of the reflex rules: settings, prepared rows, and what each rule did.

Serves `rule[]` and `prepared[]` of the register map; an access takes four cycles: the request goes to registers, a word
or a row is read, it is changed, and in the last it has been written and `ready` is high. Answered with `error`, and
without effect: a word without a register, a write to one that software only reads, a rule beyond those of the device,
and a write to a prepared row while its rule is enabled, so that a rule never carries out a row that is half written.
The other ports are read combinationally; `log` stores in one cycle; `rewritten` follows a write of `watch` by a cycle.
The content of the memories survives a reset, as that of every memory does; `watch` does not, so that no rule acts
until software has enabled it.
"""

from amaranth import *
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from ..config import DeviceConfig
from ..csr import regmap
from ..csr.bus import CsrSignature
from .allocation import AllocationRow, reset_row
from .rows import RowWord
from .rules import RuleSetting, RuleWatch

__all__ = ["RuleOutcome", "RuleStore"]


class RuleOutcome(data.Struct):
    """How a firing ended: epoch in force after it, result and row; as `rule.outcome` of the register map."""

    epoch: 8
    result: 4
    _unused: 4
    row: 8


class RuleStore(wiring.Component):
    """Registers of all rules.

    rule, prepared: bus ports. watch, rewritten: see `RuleEvaluator`.
    setting_of, setting: of one rule. row_of, row: prepared row of one rule. target_of, target: whose row it replaces.
    log, log_rule, log_cycle, log_outcome: strobe: the rule fired.
    """

    def __init__(self, config: DeviceConfig):
        self._config, self._rules = config, config.rules
        rules = config.rules
        super().__init__({
            "rule": In(CsrSignature(regmap.WORD_ADDRESS_WIDTH)),
            "prepared": In(CsrSignature(regmap.WORD_ADDRESS_WIDTH)),
            "watch": Out(data.ArrayLayout(RuleWatch, rules)),
            "rewritten": Out(rules),
            "setting_of": In(range(rules)),
            "setting": Out(RuleSetting),
            "row_of": In(range(rules)),
            "row": Out(AllocationRow),
            "target_of": In(range(rules)),
            "target": Out(6),
            "log": In(1),
            "log_rule": In(range(rules)),
            "log_cycle": In(32),
            "log_outcome": In(RuleOutcome),
        })

    def elaborate(self, platform):
        m = Module()
        self._elaborate_rule_bus(m)
        self._elaborate_prepared_bus(m)
        return m

    def _access(self, m, bus, block):
        """The request of an access, from its second cycle on; `change` in its third."""
        step = Signal(range(4), name=f"{block.name}_step")
        with m.If(bus.valid & (step != 3)):
            m.d.sync += step.eq(step + 1)
        with m.Else():
            m.d.sync += step.eq(0)
        request = Signal(data.StructLayout({"address": bus.address.shape(), "write": 1, "w_data": 32, "w_mask": 4}),
                         name=f"{block.name}_request")
        m.d.sync += [request[name].eq(getattr(bus, name)) for name in ("address", "write", "w_data", "w_mask")]
        m.d.comb += bus.ready.eq((step == 3) & bus.valid)
        bits = ceil_log2(block.stride // 4)
        change = Signal(name=f"{block.name}_change")
        m.d.comb += change.eq((step == 2) & request.write & ~bus.error)
        return request, change, request.address[bits:][:ceil_log2(self._rules)], request.address[:bits]

    def _elaborate_rule_bus(self, m):
        bus, block = self.rule, regmap.node("rule")
        self._request, write, rule, word = self._access(m, bus, block)
        self._seen = Signal(32)   # the word that is read
        place = {register.name: register.offset // 4 for register in block.registers}
        m.d.sync += [bus.error.eq(1), bus.r_data.eq(self._seen)]
        with m.Switch(word):
            for register in block.registers:
                with m.Case(place[register.name]):
                    m.d.sync += bus.error.eq(self._request.write & (not register.writable))

        def words(name, read_at):
            return self._words(m, block.register(name), rule, word == place[name], write, read_at)

        setting, target = self.setting, self.target
        threshold, hysteresis, timing = (words(name, self.setting_of) for name in ("threshold", "hysteresis", "timing"))
        targets = words("target", self.target_of)
        m.d.comb += [
            setting.threshold.eq(threshold), setting.hysteresis.eq(hysteresis),
            setting.hold.eq(timing[:8]), setting.interval.eq(timing[16:]), target.eq(targets),
        ]
        self._elaborate_watch(m, rule, word == place["watch"], write)
        self._elaborate_log(m, rule, word, place)

    def _words(self, m, register, rule, is_here, write, read_at):
        """One writable register of all rules; returns its word of the rule `read_at`."""
        m.submodules[register.name] = words = memory.Memory(shape=unsigned(32), depth=self._rules, init=[])
        fields = sum((1 << field.width) - 1 << field.lsb for field in register.fields)
        port, seen, inner = words.write_port(granularity=8), words.read_port(domain="comb"), \
            words.read_port(domain="comb")
        m.d.comb += [
            port.addr.eq(rule), port.data.eq(self._request.w_data & fields),
            port.en.eq(Mux(write & is_here, self._request.w_mask, 0)),
            seen.addr.eq(rule), inner.addr.eq(read_at),
        ]
        with m.If(is_here):
            m.d.comb += self._seen.eq(seen.data)
        return inner.data

    def _elaborate_watch(self, m, rule, is_here, write):
        """Every rule's `watch` is needed at once: registers."""
        fields = regmap.node("rule").register("watch").fields
        mask = Cat(bit.replicate(8) for bit in self._request.w_mask)
        watch = self.watch[rule]
        with m.If(is_here):
            for field in fields:
                m.d.comb += self._seen[field.lsb:field.lsb + field.width].eq(watch[field.name])
        for number in range(self._rules):
            mine = self.watch[number]
            m.d.sync += self.rewritten[number].eq(write & is_here & (rule == number))
            with m.If(write & is_here & (rule == number)):
                for field in fields:
                    place = slice(field.lsb, field.lsb + field.width)
                    column = Value.cast(mine[field.name])
                    m.d.sync += column.eq((column & ~mask[place]) | (self._request.w_data[place] & mask[place]))

    def _elaborate_log(self, m, rule, word, place):
        """What the rules did: written by the gateware, read by software."""
        written = {"fired_at": self.log_cycle, "outcome": self.log_outcome.as_value()}
        m.submodules.firings = firings = memory.Memory(shape=unsigned(32), depth=self._rules, init=[])
        count = firings.read_port(domain="comb")
        m.d.comb += count.addr.eq(self.log_rule)
        written["firings"] = count.data + 1
        for name, value in written.items():
            records = firings
            if name != "firings":
                m.submodules[name] = records = memory.Memory(shape=unsigned(32), depth=self._rules, init=[])
            port, seen = records.write_port(), records.read_port(domain="comb")
            m.d.comb += [port.addr.eq(self.log_rule), port.data.eq(value), port.en.eq(self.log),
                         seen.addr.eq(rule)]
            with m.If(word == place[name]):
                m.d.comb += self._seen.eq(seen.data)

    def _elaborate_prepared_bus(self, m):
        bus, block = self.prepared, regmap.node("prepared")
        request, write, rule, word_index = self._access(m, bus, block)
        m.submodules.word = word = RowWord()
        # A row that nobody has prepared grants nothing, and is legal.
        m.submodules.rows = rows = memory.Memory(
            shape=AllocationRow, depth=self._rules,
            init=[AllocationRow.const(reset_row(1, self._config))] * self._rules)
        port, seen, inner = rows.write_port(), rows.read_port(domain="comb"), rows.read_port(domain="comb")
        m.d.sync += [
            word.old.eq(seen.data),
            bus.error.eq(~word.known | (request.write & (~word.writable | self.watch[rule].enable))),
            bus.r_data.eq(word.data),
        ]
        m.d.comb += [
            word.word.eq(word_index), word.w_data.eq(request.w_data), word.w_mask.eq(request.w_mask),
            seen.addr.eq(rule),
            port.addr.eq(rule), port.data.eq(word.new), port.en.eq(write),
            inner.addr.eq(self.row_of), self.row.eq(inner.data),
        ]
