"""`BankRoles`: which bank is active, which one is kept for a rollback, which one is written; and the epoch.

Everything that belongs to a table changes in one cycle: `active_bank`, `epoch`, `sum_pages` and `active_tag` are new
together in the cycle after `commit` or `roll_back`, in which `changed` is high; `changed_at` is a cycle later. A commit
makes the staging bank active and keeps the one before; a rollback exchanges the two. `staging_bank` is never the active
one. There are no errors: whether a change is allowed is decided by the caller, who raises at most one of the two.
"""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..config import DeviceConfig
from .allocation import BANKS
from .table import SUM_WIDTH

__all__ = ["BankRoles"]


class BankRoles(wiring.Component):
    """Roles of the three banks.

    staged_pages, staged_tag: of the table that a commit brings into force. cycle: device cycle counter.
    changed_at: the low half of `cycle` in the first cycle under the table in force.
    """

    def __init__(self, config: DeviceConfig):
        super().__init__({
            "commit": In(1),
            "roll_back": In(1),
            "staged_pages": In(SUM_WIDTH),
            "staged_tag": In(32),
            "cycle": In(64),
            "active_bank": Out(range(BANKS), init=0),
            "staging_bank": Out(range(BANKS), init=2),
            "epoch": Out(8),
            "sum_pages": Out(range(config.pages + 1), init=config.pages),
            "active_tag": Out(32),
            "changed": Out(1),
            "changed_at": Out(32),
        })

    def elaborate(self, platform):
        m = Module()
        previous_bank = Signal(range(BANKS), init=1)
        previous_pages = Signal.like(self.sum_pages)
        # A tag stays with its bank: the strobe of a change, which reaches far enough, need not move it.
        tags = [Signal(32, name=f"tag_{bank}") for bank in range(BANKS)]
        for bank, tag in enumerate(tags):
            with m.If(self.staging_bank == bank):
                m.d.sync += tag.eq(self.staged_tag)
        m.d.comb += self.active_tag.eq(Array(tags)[self.active_bank])
        m.d.sync += self.changed.eq(self.commit | self.roll_back)
        with m.If(self.changed):
            m.d.sync += self.changed_at.eq(self.cycle)
        with m.If(self.commit | self.roll_back):
            m.d.sync += [
                self.epoch.eq(self.epoch + 1),
                previous_bank.eq(self.active_bank),
                previous_pages.eq(self.sum_pages),
            ]
        with m.If(self.commit):
            m.d.sync += [
                self.active_bank.eq(self.staging_bank),
                self.staging_bank.eq(previous_bank),
                self.sum_pages.eq(self.staged_pages),
            ]
        with m.Elif(self.roll_back):
            m.d.sync += [
                self.active_bank.eq(previous_bank),
                self.sum_pages.eq(previous_pages),
            ]
        return m
