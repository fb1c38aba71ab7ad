"""What a resource manager keeps true of its tables, copies and checks; proven in `PARTS`, see `allocation.py`."""

from functools import partial, reduce
from operator import add

from amaranth import *

from gateware.csr import regmap
from gateware.manager.allocation import BANKS, AllocationRow
from gateware.manager.checker import Result
from gateware.manager.guarantee import GuaranteeRow
from gateware.manager.transaction import Phase
from tests.formal.rules import all_of, legal, legal_row, legal_sums

PARTS = ("bus", "banks", "copy", "phases", "standing", "check", "change")


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

    def claim_all(self, bus, kept, waited, registers):
        claim = partial(self.claims, "banks")
        self.m.d.comb += [
            claim((self.active < BANKS) & (self.staging < BANKS) & (self.previous < BANKS)),
            claim((self.active != self.staging) & (self.active != self.previous)),
            claim(self.staging != self.previous),
            claim(~bus.write | (bus.bank == self.staging)), claim(kept == self.previous),
        ]
        self._access(registers, waited)
        self._banks(bus)
        self._copy(waited)
        self._phases()
        self._standing()
        self._check()
        self._change()

    def _access(self, registers, waited):
        """Which block of the register bus is selected, from the second cycle of an access on; that it is the rows'."""
        claim = partial(self.claims, "copy")
        inside, selected = self.inside, {}
        for name in ("guarantee", "staging", "active", "rule", "prepared"):
            block, rows = regmap.node(name), self.config.rules if name in ("rule", "prepared") else self.config.tenants
            first, selected[name] = block.address // 4, inside[f"registers.{name}_selected"]
            is_here = (registers.address >= first) & (registers.address < first + rows * block.stride // 4)
            self.m.d.comb += claim(~waited | (selected[name] == is_here))
        self.m.d.comb += [
            claim(inside["registers.decoded"] == waited),
            claim((inside["access.step"] == 0) | selected["staging"] | selected["active"]),
        ]

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
        self.changed = changed = inside["transaction.refresh"]   # or what was staged is dropped
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
            claim(~taken.any() | inside["transaction.for_rules"] | inside["transaction.rules__done"]),
            claim(inside["rules.reflex.transaction__none"] == ~taken.any()),
            claim(~second | taken.any()), claim(~unknown | taken.any()),
            claim(~inside["rules.reflex.is_known"] | (inside["rules.reflex.fetched_target"] < self.config.tenants)),
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
            claim(~inside["transaction._expiring"] | (self.phase == Phase.AWAITING)),
            claim(~self.running | self.complete),
            claim(~self.running | Mux(self.for_rules, self.phase == Phase.IDLE, staging)),
            claim((self.running & inside["transaction._committing"]) | ~self.for_rules),
            claim(~storing | self.for_rules),
            claim(~inside["transaction.rules__done"] | ~self.running),
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
        row, replaced = AllocationRow(inside["table.write_row"]), inside["table.replaced_slots"]
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
        summing, deciding = inside["checker.summing"], inside["checker.deciding"]
        asking, fetching, comparing, judging, done = (   # while the sums are compared, of a check that was given up
            inside[f"checker.{name}"] & ~summing for name in ("asking", "fetching", "comparing", "judging", "judged"))
        good = inside["checker.result"] == Result.OK
        asked, fetched, compared, judged = (
            inside[f"checker.{name}"] for name in ("tenant", "fetched_tenant", "compared_tenant", "judged_tenant"))
        scanning = asking | fetching | comparing | judging
        busy = scanning | done   # the verdict on the sums is there
        last = self.config.tenants - 1
        m.d.comb += [
            claim(~(summing | deciding | busy) | inside.state("transaction.fsm_state", "CHECK")),
            claim(~done | ~scanning), claim(~deciding | ~busy), claim(~(summing | deciding) | ~self.written),
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
            claim(~deciding | inside["checker.is_heavy"] | inside["checker.is_large"]
                  | all_of(legal_sums(self.staged, self.config))),
            claim(~(deciding | ((asking | fetching) & ~comparing)) | (inside["checker.owned"] == 0)),
            claim(~(deciding & inside["checker.is_legal"]) | all_of(
                [*(rule for number in self.numbers for rule in legal_row(self.staged, number, self.config)),
                 *(rule for number in self.numbers for rule in self._respected(number))])),
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
