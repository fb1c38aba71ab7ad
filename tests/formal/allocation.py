"""Contract of the resource manager: the table in force satisfies the rules, and changes only as a whole.

The tables are rebuilt from what the allocation bus broadcasts, which is all that the rest of the device ever sees of
them. The register bus is free within its contract, or (`writes`) carries out one transaction: begin, writes of any
value to any word of the rows that they name, commit, roll back.

`ManagerInvariant` is what makes the induction close; it speaks about the inside. The guaranteed minimum is compared
with the guarantees in the cycle that decides.
"""

from functools import partial, reduce
from operator import add

from amaranth import *

from gateware.csr import regmap
from gateware.manager.allocation import BANKS, FULL_RATE, AllocationRow, reset_row
from gateware.manager.checker import Result
from gateware.manager.guarantee import GuaranteeRow
from gateware.manager.transaction import Phase
from tests.formal.csr import obeys
from tests.formal.prover import Assume, Claims, free_inputs, internals

BEGIN, CHECK, COMMIT, ROLL_BACK = 1, 2, 3, 5
WEIGHT_CAPACITY = 1 << 16
LARGEST_PACKET = 256
FULL_HOST_SHARE = 256
PARTS = ("bus", "banks", "copy", "phases", "standing", "check", "change")


def legal_sums(rows, config):
    """What the rules say about a table as a whole."""
    yield reduce(add, (row.weight for row in rows)) <= WEIGHT_CAPACITY
    yield reduce(add, (row.pages for row in rows)) <= config.pages


def legal_row(rows, number, config):
    """What the rules say about row `number`, and about it together with the rows before it."""
    row = rows[number]
    yield row.rate <= FULL_RATE
    yield (row.rate != 0) | (row.weight == 0)
    yield row.burst >= LARGEST_PACKET
    yield row.ports >> config.ports == 0
    yield row.slots >> config.slots == 0
    yield row.host_share <= FULL_HOST_SHARE
    for other in rows[:number]:
        yield (row.slots & other.slots) == 0


def legal(rows, config):
    """What the rules say about a table, the guaranteed minimum left out."""
    yield from legal_sums(rows, config)
    for number in range(len(rows)):
        yield from legal_row(rows, number, config)


def all_of(claims):
    """One bit for all of them."""
    return Cat(claims).all()


class ManagerContract(Elaboratable):
    """`dut` has the ports of `ResourceManager(config)`.

    writes: of the transaction, "staging" or "guarantee" each, or another command; None: the bus is free.
    invariant: also claim `ManagerInvariant`, of a resource manager itself; part: of the claims, see `PARTS`. The others
    are assumed if the bus is free, else left out.
    """

    def __init__(self, dut, config, writes=None, invariant=False, part=None):
        self.dut, self.config, self.writes, self.invariant = dut, config, writes, invariant
        self.claims = Claims(part, assume=writes is None)

    def elaborate(self, platform):
        m = Module()
        dut, claim = self.dut, partial(self.claims, "bus")
        m.submodules.dut, inside = internals(dut)
        free_inputs(m, dut)
        m.d.comb += Assume(obeys(m, dut.bus, "bus"))
        waited = Signal()   # the access on the bus is in its second cycle or later
        m.d.sync += waited.eq(dut.bus.valid & ~dut.bus.ready)
        if self.writes is not None:
            self._transaction(m, dut.bus)
        bus, tables = dut.allocation, self._tables()
        with m.If(bus.write):
            m.d.comb += [claim(bus.bank != bus.active_bank), claim(bus.bank < BANKS),
                         claim(bus.tenant < self.config.tenants)]
            for bank in range(BANKS):
                for tenant in range(self.config.tenants):
                    with m.If((bus.bank == bank) & (bus.tenant == tenant)):
                        m.d.sync += tables[bank][tenant].eq(bus.row)
        kept = self._as_a_whole(m, bus)
        for bank in range(BANKS):
            with m.If(bus.active_bank == bank):
                m.d.comb += [claim(rule) for rule in legal(tables[bank], self.config)]
                m.d.comb += claim(bus.sum_pages == reduce(add, (row.pages for row in tables[bank])))
        if self.invariant:
            ManagerInvariant(m, inside, self.config, tables, self.claims).claim_all(bus, kept, waited)
        self.claims.finish(m)
        return m

    def _transaction(self, m, bus):
        """Accesses one after another without a pause; the words and what is written to them are free."""
        rm = regmap.node("rm")
        command = (rm.address + rm.register("command").offset) // 4
        steps = [BEGIN, *self.writes, COMMIT, ROLL_BACK]
        step = Signal(range(len(steps) + 1))
        m.d.comb += [Assume(bus.valid == (step != len(steps))), Assume(bus.write), Assume(bus.w_mask == 0xF)]
        with m.If(bus.valid & bus.ready):
            m.d.sync += step.eq(step + 1)
        with m.Switch(step):
            for number, op in enumerate(steps):
                with m.Case(number):
                    if op in ("staging", "guarantee"):
                        rows = regmap.node(op)
                        first, words = rows.address // 4, self.config.tenants * rows.stride // 4
                        m.d.comb += Assume((bus.address >= first) & (bus.address < first + words))
                    else:
                        m.d.comb += [Assume(bus.address == command), Assume(bus.w_data == op)]

    def _tables(self):
        return [[Signal(AllocationRow, init=reset_row(tenant, self.config), name=f"bank_{bank}_row_{tenant}")
                 for tenant in range(self.config.tenants)] for bank in range(BANKS)]

    def _as_a_whole(self, m, bus):
        """Bank and epoch change in the same cycle, which `changed` marks, and the epoch by one.

        No row of the table that was in force before the last change is written: a rollback finds it as it was. Returns
        its bank.
        """
        claim = partial(self.claims, "bus")
        bank, before = Signal.like(bus.active_bank), Signal.like(bus.active_bank, init=1)
        epoch = Signal(8)
        m.d.sync += [bank.eq(bus.active_bank), epoch.eq(bus.epoch)]
        kept = Signal.like(before)
        m.d.comb += kept.eq(Mux(self.dut.changed, bank, before))
        m.d.sync += before.eq(kept)
        m.d.comb += [
            claim(bus.active_bank < BANKS),
            claim(self.dut.changed == (bus.active_bank != bank)),
            claim(bus.epoch == (epoch + self.dut.changed)[:8]),
            claim(~bus.write | (bus.bank != kept)),
        ]
        return kept


class ManagerInvariant:
    """Where a resource manager keeps the three tables, and what it knows about the staged one.

    In words: the bank's words are what was broadcast, the last one a cycle later; banks in force and in reserve are
    legal; the sums are those of the rows stored so far; while a check runs nothing is stored, and the rows that it
    has passed are legal; rows that are not marked as faulty are legal by themselves, and slots are owned as often as is
    counted; what is `_is_checked` is legal as a whole and as of now.
    """

    def __init__(self, m, inside, config, tables, claims):
        self.m, self.inside, self.config, self.tables, self.claims = m, inside, config, tables, claims
        self.numbers = range(config.tenants)
        self.active, self.staging, self.previous = (
            inside[f"banks.{name}_bank"] for name in ("active", "staging", "previous"))
        self.staged = [self._row(self.staging, number) for number in self.numbers]
        self.guarantees = [GuaranteeRow(inside.word(m, "guarantee.rows", number)) for number in self.numbers]

    def _row(self, bank, number):
        pitch = (self.config.tenants - 1).bit_length()
        return self.inside.word(self.m, "table.rows", Cat(C(number, pitch), bank))

    def claim_all(self, bus, kept, waited):
        claim = partial(self.claims, "banks")
        self.m.d.comb += [
            claim((self.active < BANKS) & (self.staging < BANKS) & (self.previous < BANKS)),
            claim((self.active != self.staging) & (self.active != self.previous)),
            claim(self.staging != self.previous),
            claim(~bus.write | (bus.bank == self.staging)), claim(kept == self.previous),
        ]
        self._banks(bus)
        self._copy(waited)
        self._phases()
        self._standing()
        self._check()
        self._change()

    def _banks(self, bus):
        claim = partial(self.claims, "banks")
        m = self.m
        for bank, rows in enumerate(self.tables):
            for number, row in enumerate(rows):
                newest = Mux(bus.write & (bus.bank == bank) & (bus.tenant == number), bus.row.as_value(),
                             row.as_value())
                m.d.comb += claim(self._row(C(bank, 2), number).as_value() == newest)
            with m.If(self.previous == bank):
                m.d.comb += claim(all_of(legal(rows, self.config)))
                m.d.comb += claim(self.inside["banks.previous_pages"] == reduce(add, (row.pages for row in rows)))

    def _copy(self, waited):
        """Which rows of the staging bank are stored, their sums, and the row that an access has fetched."""
        claim = partial(self.claims, "copy")
        m, inside = self.m, self.inside
        self.stored = stored = inside["table._stored"]
        copying, current = inside["table.copying"], inside["table.current"]
        self.changed = changed = inside["banks.changed"]
        self.refreshed = refreshed = inside["table.refreshed"]
        self.complete = complete = Signal()
        m.d.comb += complete.eq(~copying & ~changed)
        m.d.comb += [claim(current < self.config.tenants), claim(~complete | stored.all()),
                     claim(~refreshed | (copying & ~stored.any())), claim(inside["standing_refresh"] == refreshed)]
        self.staged_now = staged = inside["transaction.staged"]
        step, arrived = inside["access.step"], inside["access.is_staging"] & staged   # a row to be replaced or not
        m.d.comb += [claim(~staged | ~changed), claim((step == 0) | waited), claim(step <= 4)]
        fetched = arrived & inside["access.opened"] & ((step == 2) | ((step == 3) & inside["access.write"]))
        untouched = Signal()   # nothing was staged since the copy began
        taken, running = inside["rules.reflex.taken"], inside["transaction._running"]
        second, unknown = inside["rules.reflex.second"], inside["rules.reflex.transaction__unknown"]
        m.d.comb += [
            untouched.eq(~changed & ~staged & (~running | ~taken.any())),
            claim(~taken.any() | inside["transaction.for_rules"]),
            claim(~second | taken.any()), claim(~unknown | taken.any()),
        ]
        for number in self.numbers:
            m.d.comb += claim(~copying | changed | (current <= number) | stored[number])
            on_its_way = inside["table.primed"] & copying & ~changed & (current == number)
            source = self._row(self.active, number).as_value()
            m.d.comb += claim(~on_its_way | (inside["table.scan_row"] == source))
            replaced = Mux(stored[number], self.staged[number].as_value(), source)
            here = inside["access.tenant"] == number
            m.d.comb += claim(~(arrived & here & (step == 1)) | (inside["table.old"] == replaced))
            m.d.comb += claim(~(fetched & here) | (inside["access.old"] == replaced))
            removed = second & (inside["rules.reflex.table__store_tenant"] == number)
            m.d.comb += claim(~removed | (inside["table.scan_row"] == self.staged[number].as_value()))
            same = self.staged[number].as_value() == source
            m.d.comb += claim(~untouched | ~stored[number] | (same & (~copying | (current > number))))
        self.written = inside["table.write"]   # the last row that was stored is broadcast, and not counted yet
        for column in ("weight", "pages"):
            counted = inside[f"table.sum_{column}"] + Mux(
                self.written, AllocationRow(inside["table.write_row"])[column] - inside[f"table.replaced_{column}"], 0)
            total = reduce(add, (Mux(stored[number], self.staged[number][column], 0) for number in self.numbers))
            m.d.comb += claim(changed | refreshed | (counted[:24] == total))

    def _phases(self):
        """In which phases something may be staged, checked, stored."""
        claim = partial(self.claims, "phases")
        m, inside = self.m, self.inside
        self.phase, self.running = inside["transaction.phase"], inside["transaction._running"]
        self.for_rules, storing = inside["transaction.for_rules"], inside["transaction.rules__storing"]
        staging, writes = self.phase == Phase.STAGING, inside["access.write"]
        second = inside["rules.reflex.second"]
        m.d.comb += [
            claim(~staging | self.complete),
            claim(~self.running | self.complete),
            claim(~self.running | Mux(self.for_rules, self.phase == Phase.IDLE, staging)),
            claim((self.running & inside["transaction._committing"]) | ~self.for_rules),
            claim(~storing | self.for_rules),
            claim(~(storing | (self.phase == Phase.COPYING)) | ~inside["transaction._is_checked"]),
            claim(~second | storing),
            claim(~(second & inside["rules.reflex.transaction__unknown"])),
            claim(~writes | (self.staged_now & ~self.running & ~inside["transaction._waiting"])),
            claim(~writes | ((inside["access.step"] == 3) & inside["access.is_staging"] & inside["access.opened"])),
            claim(~(self.running & ~storing) | ~self.written),
        ]
        self.storing = storing

    def _standing(self):
        """What is known of the rows that are stored without a scan; of the last one a cycle later."""
        claim = partial(self.claims, "standing")
        m, inside = self.m, self.inside
        unsure, faulty = inside["standing.unsure"], inside["standing.faulty"]
        for number in self.numbers:
            pending = self.written & ~self.refreshed & (inside["table.write_tenant"] == number)
            m.d.comb += claim(~pending | unsure | (inside["guarantee.scan_row"] == self.guarantees[number].as_value()))
            known = self.stored[number] & ~self.changed & ~pending & ~unsure & ~faulty[number]
            m.d.comb += claim(~known | all_of([*legal_row([self.staged[number]], 0, self.config),
                                               *self._respected(number)]))
        row, replaced = AllocationRow(inside["table.write_row"]), inside["standing_replaced"]
        for slot in range(self.config.slots):
            owners = inside[f"standing.owners_{slot}"]
            counted = owners + Mux(self.written, row.slots[slot] - replaced[slot], 0)
            total = reduce(add, (self.stored[number] & self.staged[number].slots[slot] for number in self.numbers))
            m.d.comb += claim(self.changed | self.refreshed | (counted[:len(owners)] == total))

    def _respected(self, number):
        """Claims about the guaranteed minimum of one row."""
        return [self.staged[number].weight >= self.guarantees[number].weight,
                self.staged[number].pages >= self.guarantees[number].pages]

    def _check(self):
        """What a check under way has found so far, and what it found when it ended."""
        claim = partial(self.claims, "check")
        m, inside = self.m, self.inside
        deciding, asking, fetching, comparing, judging = (
            inside[f"checker.{name}"] for name in ("deciding", "asking", "fetching", "comparing", "judging"))
        done, good = inside["checker.done"], inside["checker.result"] == Result.OK
        asked, fetched, compared, judged = (
            inside[f"checker.{name}"] for name in ("tenant", "fetched_tenant", "compared_tenant", "judged_tenant"))
        scanning = asking | fetching | comparing | judging
        busy = scanning | done   # the verdict on the sums is there
        last = self.config.tenants - 1
        m.d.comb += [
            claim(~(deciding | busy) | inside.state("transaction.fsm_state", "CHECK")),
            claim(~done | ~scanning), claim(~deciding | ~busy), claim(~deciding | ~self.written),
            claim(~(asking & fetching) | (asked == fetched + 1)),
            claim(~(fetching & comparing) | (fetched == compared + 1)),
            claim(~(comparing & judging) | (compared == judged + 1)),
            claim(~(asking & ~fetching) | ((asked == 0) & ~comparing & ~judging)),
            claim(~(fetching & ~comparing) | ((fetched == 0) & ~judging)),
            claim(~(comparing & ~judging) | (compared == 0)),
            claim(~(fetching & ~asking) | (fetched == last)),
            claim(~(comparing & ~fetching) | (compared == last)),
            claim(~(judging & ~comparing) | (judged == last)),
            claim(~busy | ~good | all_of(legal_sums(self.staged, self.config))),
            claim(~(deciding | ((asking | fetching) & ~comparing)) | (inside["checker.owned"] == 0)),
        ]
        broken = Cat(signal for name, signal in inside.items() if name.startswith("checker.broken_")).any()
        for number in self.numbers:
            row_is_good = all_of([*legal_row(self.staged, number, self.config), *self._respected(number)])
            passed = Mux(judging, judged > number, done)
            m.d.comb += claim(~(busy & good & passed) | row_is_good)
            m.d.comb += claim(~(busy & good & judging & (judged == number)) | broken | row_is_good)
            owned = reduce(lambda a, b: a | b, (row.slots for row in self.staged[:number]), C(0, 16))
            staged, guarantee = self.staged[number].as_value(), self.guarantees[number].as_value()
            with m.If(fetching & (fetched == number)):
                m.d.comb += [claim(inside["table.scan_row"] == staged),
                             claim(inside["guarantee.scan_row"] == guarantee)]
            with m.If(comparing & (compared == number)):
                m.d.comb += [claim(inside["checker.compared_row"] == staged),
                             claim(inside["checker.compared_guarantee"] == guarantee),
                             claim(inside["checker.owned"] == owned)]
        in_use = (self.phase == Phase.STAGING) | self.for_rules
        checked = inside["transaction._is_checked"] & in_use
        respected = [rule for number in self.numbers for rule in self._respected(number)]
        self.good = all_of([*legal(self.staged, self.config), *respected])
        m.d.comb += claim(~checked | self.good)

    def _change(self):
        """The cycle that decides: what comes into force is legal and keeps the guarantees; who may, and when."""
        claim = partial(self.claims, "change")
        m, inside = self.m, self.inside
        commit, roll_back = inside["transaction.commit"], inside["transaction.roll_back"]
        m.d.comb += [
            claim(~(commit & roll_back)),
            claim(~commit | (self.good & self.running)),
            claim(~roll_back | (self.phase == Phase.AWAITING)),
        ]
