"""Checks of the allocation transaction: stage, check, commit, confirm, roll back, expire."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ..device import RegisterHandle
from .bench import Bench

BEGIN, CHECK, COMMIT, CONFIRM, ROLL_BACK, ABANDON = 1, 2, 3, 4, 5, 6
IDLE, STAGING, AWAITING = 0, 2, 3
OK, WRONG_STATE, STALE_EPOCH, STALE_TOKEN, BUSY_DRAINING, WEIGHTS, PAGES, GUARANTEE, SLOT_TWICE, BURST = range(10)
UNKNOWN_BIT, RATE, UNKNOWN_COMMAND, HOST_SHARE = range(10, 14)
WHOLE_TABLE = 255
TOKEN = 0x7E57_0001


class Manager:
    """Drives the resource manager of the device under test."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._device = bench.device
        self.rm = bench.device.rm
        self.tenants = bench.identity.config.tenants

    def command(self, op: int) -> tuple[int, int]:
        """Result and row of a command."""
        self.rm.command.write(op=op)
        self._bench.until(lambda: not self.rm.status.read().busy, "the end of a command")
        status = self.rm.status.read()
        return status.result, status.row

    def must(self, op: int, result: int, what: str, row: int | None = None) -> None:
        """Fail unless `op` ends with `result`, at `row`."""
        got = self.command(op)
        self._bench.equal(got[0], result, f"the result of {what}")
        if row is not None:
            self._bench.equal(got[1], row, f"the row at fault of {what}")

    def commit(self, confirm_within: int, what: str) -> None:
        """Commit, waiting for packets of an earlier epoch to leave."""
        self.rm.confirm_within.write(confirm_within)
        result, _ = self.command(COMMIT)
        while result == BUSY_DRAINING:
            self._bench.in_time("a commit (packets of an earlier epoch do not leave)")
            self._bench.pass_time(1000)
            result, _ = self.command(COMMIT)
        self._bench.equal(result, OK, f"the result of {what}")

    def begin(self) -> None:
        """Begin a transaction on the epoch in force."""
        self.must(BEGIN, OK, "begin")
        self.rm.base_epoch.write(epoch=self.epoch())

    def epoch(self) -> int:
        """Epoch in force."""
        return self.rm.active.read().epoch

    def state(self) -> int:
        """State of the transaction."""
        return self.rm.status.read().state

    def table(self, name: str = "active") -> list[int]:
        """Words of a table."""
        return [int(value) for value in self._device.read(self.rows(name))]

    def rows(self, name: str) -> list[RegisterHandle]:
        """Registers of a table."""
        block = getattr(self._device, name)
        return [handle for tenant in range(self.tenants) for handle in block[tenant].all()]


@contextlib.contextmanager
def transaction(bench: Bench) -> Iterator[Manager]:
    """A manager with a token of its own, and afterwards an idle device with the table and settings of before."""
    manager = Manager(bench)
    rm = manager.rm
    before = manager.table()
    with bench.restored([rm.owner_token, rm.token, rm.base_epoch, rm.confirm_within, rm.staged_tag]):
        bench.device.write([(rm.owner_token, TOKEN), (rm.token, TOKEN)])
        if manager.state() != IDLE:
            bench.expect(manager.state() != AWAITING, "the device awaits a confirmation of somebody else's commit")
            manager.command(ABANDON)
        try:
            yield manager
        finally:
            rm.token.write(TOKEN)
            if manager.state() == AWAITING:
                manager.command(ROLL_BACK)
            if manager.state() == STAGING:
                manager.command(ABANDON)
            bench.equal(manager.table(), before, "the allocation after the check")


def stage_and_roll_back(bench: Bench) -> None:
    """A commit changes the whole table at once, and rolling back restores it bit for bit; epochs only rise."""
    with transaction(bench) as manager:
        before, epoch = manager.table(), manager.epoch()
        manager.begin()
        bench.equal(manager.table("staging"), before, "the staged table after begin")
        staging = bench.device.staging[manager.tenants - 1]
        bench.device.write([(staging.weight, {"weight": 77}), (staging.ports, {"ports": 1}),
                            (manager.rm.staged_tag, 0xABCD)])
        bench.equal(manager.table(), before, "the active table while another is staged")
        manager.must(CHECK, OK, "check of a good table")
        tag = int(manager.rm.active_tag.read())
        manager.commit(0xFFFF_FFFF, "commit of a good table")
        bench.equal(manager.state(), AWAITING, "the state after commit")
        bench.equal(manager.epoch(), (epoch + 1) % 256, "the epoch after commit")
        bench.equal(int(manager.rm.active_tag.read()), 0xABCD, "the tag in force")
        bench.equal(bench.device.active[manager.tenants - 1].weight.read().weight, 77, "the committed weight")
        manager.must(ROLL_BACK, OK, "roll back")
        bench.equal(manager.table(), before, "the table after rolling back")
        bench.equal(manager.epoch(), (epoch + 2) % 256, "the epoch after rolling back")
        bench.equal(int(manager.rm.active_tag.read()), tag, "the tag after rolling back")


def confirm(bench: Bench) -> None:
    """A confirmed commit stays."""
    with transaction(bench) as manager:
        epoch = manager.epoch()
        manager.begin()
        manager.commit(200_000_000, "commit of the same table")
        manager.must(CONFIRM, OK, "confirm")
        bench.equal(manager.state(), IDLE, "the state after confirm")
        bench.equal(manager.epoch(), (epoch + 1) % 256, "the epoch after confirm")


def expire(bench: Bench) -> None:
    """A commit that nobody confirms is rolled back by the device itself, in device time."""
    with transaction(bench) as manager:
        before, expired = manager.table(), int(manager.rm.expired.read())
        manager.begin()
        bench.device.staging[manager.tenants - 1].weight.write(weight=78)
        manager.commit(5_000, "commit")
        bench.pass_time(6_000)
        bench.equal(manager.state(), IDLE, "the state after the deadline")
        bench.equal(manager.table(), before, "the table after the deadline")
        bench.equal(int(manager.rm.expired.read()), expired + 1, "rm.expired")


def refusals(bench: Bench) -> None:
    """Tables that break a rule are refused with the reason and the row, by check and by commit."""
    with transaction(bench) as manager:
        config = bench.identity.config
        last = manager.tenants - 1
        before, epoch = manager.table(), manager.epoch()
        cases = [
            ("weights over capacity", WEIGHTS, WHOLE_TABLE, [(tenant, "weight", 0xFFFF) for tenant in (0, last)]),
            ("pages over capacity", PAGES, WHOLE_TABLE, [(0, "pages", config.pages), (last, "pages", 1)]),
            ("a slot owned twice", SLOT_TWICE, last, [(0, "slots", 1), (last, "slots", 1)]),
            ("a burst below a packet", BURST, last, [(last, "burst", 255)]),
            ("an unknown port", UNKNOWN_BIT, last, [(last, "ports", 1 << config.ports)]),
            ("a rate over full", RATE, last, [(last, "rate", 65_537)]),
            ("a host share over 256", HOST_SHARE, last, [(last, "host_share", 257)]),
        ]
        for what, result, row, writes in cases:
            manager.begin()
            bench.device.write([(f"staging[{tenant}].{column}", value) for tenant, column, value in writes])
            manager.must(CHECK, result, f"check with {what}", row)
            manager.must(COMMIT, result, f"commit with {what}", row)
            manager.must(ABANDON, OK, "abandon")
        guarantee = bench.device.guarantee[last].min_weight
        with bench.restored([guarantee]):
            guarantee.write(weight=100)
            manager.begin()
            bench.device.staging[last].weight.write(weight=99)
            manager.must(COMMIT, GUARANTEE, "commit below a guarantee", last)
            manager.must(ABANDON, OK, "abandon")
        bench.equal((manager.table(), manager.epoch()), (before, epoch), "table and epoch after refused tables")


def fencing(bench: Bench) -> None:
    """A stale token or epoch, and commands out of order, are refused and change nothing."""
    with transaction(bench) as manager:
        rm = manager.rm
        before, epoch = manager.table(), manager.epoch()
        rm.token.write(TOKEN ^ 1)
        manager.must(BEGIN, STALE_TOKEN, "begin with a stale token")
        rm.token.write(TOKEN)
        manager.must(CONFIRM, WRONG_STATE, "confirm without a commit")
        manager.must(ROLL_BACK, WRONG_STATE, "roll back without a commit")
        manager.must(0xF, UNKNOWN_COMMAND, "an unknown command")
        manager.begin()
        rm.base_epoch.write(epoch=(epoch + 1) % 256)
        manager.must(COMMIT, STALE_EPOCH, "commit on a stale epoch")
        bench.equal((manager.table(), manager.epoch()), (before, epoch), "table and epoch after refused commands")
