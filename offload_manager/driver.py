"""The allocation transaction against a device: claim, stage, check, commit, confirm or roll back.

The only writer of `rm`, `guarantee` and `staging`. Every refusal of the device becomes `AllocationRefused` with the
reason text and the row. Nothing here reads a wall clock: waiting for the resource manager is counted in device
cycles (granted, where the transport grants time). Only changed rows are staged; a transaction takes four
exchanges when nothing has to be waited for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from device_link import BusError, Capability, Device
from device_link.device import RegisterHandle
from morphnic.errors import AllocationRefused, LinkError
from offload_manager.allocation import (
    FIELDS,
    RESULTS,
    WHOLE_TABLE,
    Allocation,
    Guarantee,
    Limits,
    Row,
    check,
    diff,
)
from offload_manager.fault import fault_point

ROW_WORDS = 8
POLL_CYCLES = 64
MAX_POLLS = 1000
BUSY_DRAINING = RESULTS.index("busy draining")


class Phase(IntEnum):
    """`rm.status.state`."""

    IDLE = 0
    COPYING = 1
    STAGING = 2
    AWAITING = 3


class Op(IntEnum):
    """`rm.command.op`."""

    BEGIN = 1
    CHECK = 2
    COMMIT = 3
    CONFIRM = 4
    ROLL_BACK = 5
    ABANDON = 6


@dataclass(frozen=True, slots=True)
class ManagerState:
    """What the resource manager says about itself, read in one exchange."""

    phase: Phase
    busy: bool
    result: int
    row: int
    epoch: int
    active_tag: int
    owner_token: int
    confirm_left: int
    changed_at: int
    commits: int
    rollbacks: int
    expired: int
    draining: int


@dataclass(frozen=True, slots=True)
class Commit:
    """A table that came into force. `cycle` is the device's time stamp of it, extended to 64 bits."""

    epoch: int
    cycle: int


class AllocationDriver:
    """One device's resource manager. `token` is this manager's: claiming fences whoever wrote before."""

    def __init__(self, device: Device, token: int, *, packet_pages: int = 16) -> None:
        if not 0 < token < 1 << 32:
            raise ValueError(f"token must be in 1..0xffffffff, not {token!r}")
        self.device = device
        self.token = token
        self.limits = Limits.of(device.identity.config, packet_pages)
        self._grants = Capability.TIME_GRANTS in device.capabilities

    # --- what the device says ---

    def state(self) -> ManagerState:
        """The resource manager's state."""
        rm = self.device.rm
        status, active, *rest = self.device.read([
            rm.status, rm.active, rm.active_tag, rm.owner_token, rm.confirm_left, rm.changed_at, rm.commits,
            rm.rollbacks, rm.expired, rm.draining])
        tag, owner, left, changed_at, commits, rollbacks, expired, draining = (int(value) for value in rest)
        return ManagerState(
            phase=Phase(status.state), busy=bool(status.busy), result=status.result, row=status.row,
            epoch=active.epoch, active_tag=tag, owner_token=owner, confirm_left=left, changed_at=changed_at,
            commits=commits, rollbacks=rollbacks, expired=expired, draining=draining)

    def read_active(self) -> Allocation:
        """The table in force. Read again when it changed in between, so that it is one table and its epoch."""
        for _ in range(8):
            before = self.device.rm.active.read()
            words = self.device.transport.read(self.device.active[0].weight.address,
                                               ROW_WORDS * self.limits.tenants)
            if int(self.device.rm.active.read()) == int(before):
                rows = tuple(Row(*words[base:base + len(FIELDS)]) for base in range(0, len(words), ROW_WORDS))
                return Allocation(rows, before.epoch)
        raise LinkError(f"{self.device.url}: the allocation changes faster than it can be read: another writer?")

    def read_guarantees(self) -> tuple[Guarantee, ...]:
        """The guarantees that the device checks."""
        words = self.device.transport.read(self.device.guarantee[0].min_weight.address, 2 * self.limits.tenants)
        return tuple(Guarantee(*words[base:base + 2]) for base in range(0, len(words), 2))

    # --- ownership ---

    def claim(self) -> None:
        """Become the owner: every later command with another token is refused by the device."""
        rm = self.device.rm
        self.device.write([(rm.owner_token, self.token), (rm.token, self.token)])

    def require_ownership(self) -> None:
        """Raise `AllocationRefused` (stale token) when another manager owns the device.

        Guarantees and objectives have no token of their own: ask before they are written.
        """
        if self.state().owner_token != self.token:
            raise self._stale_token("change")

    def write_guarantees(self, guarantees: Sequence[Guarantee]) -> None:
        """Set the least that any table may give; in force from the next check."""
        words = [word for g in guarantees for word in (g.weight, g.pages)]
        self.device.transport.write(self.device.guarantee[0].min_weight.address, words)

    # --- the transaction ---

    def prepare(self, target: Allocation, base: Allocation, tag: int, guarantees: Sequence[Guarantee]) -> None:
        """Stage the rows of `target` that differ from `base` (the table in force), and have them checked.

        A table that breaks a rule is refused here before anything is sent; a refusal of the device abandons
        the staged table.
        """
        check(target, self.limits, guarantees)
        self._begin(base, tag)
        changes = diff(base, target)
        writes = [(self._staged(c.tenant, c.field), c.after) for c in changes]
        half = len(writes) // 2
        try:
            if writes[:half]:
                self.device.write(writes[:half])
            fault_point("stage")
            self.device.write(writes[half:])
            fault_point("check")
            self._command(Op.CHECK, "check")
        except BusError as error:
            # The device closes the staged rows to everybody but the owner.
            if self.state().owner_token != self.token:
                raise self._stale_token("stage") from error
            raise
        except AllocationRefused:
            self.abandon()
            raise

    def _begin(self, base: Allocation, tag: int) -> None:
        """Open the staging bank. What an interrupted transaction of this owner left there is dropped first."""
        rm = self.device.rm
        for attempt in (0, 1):
            self.device.write([(rm.token, self.token), (rm.base_epoch, base.epoch), (rm.staged_tag, tag),
                               (rm.command, Op.BEGIN)])
            state = self._settled()
            if state.result == 0:
                return
            if attempt or state.phase is not Phase.STAGING or state.owner_token != self.token:
                raise self._refusal("begin", state)
            self.abandon()

    def commit(self, confirm_within: int, drain_cycles: int = 0) -> Commit:
        """Bring the prepared table into force; `confirm_within` cycles to confirm, 0 for at once.

        While packets of an older epoch are in flight the device answers *busy draining*; that is tried again for
        `drain_cycles`, then the staged table is abandoned and the refusal raised.
        """
        rm = self.device.rm
        self.device.write([(rm.confirm_within, confirm_within)])
        deadline: int | None = None
        while True:
            self.device.write([(rm.command, Op.COMMIT)])
            state = self._settled()
            if state.result == 0:
                return Commit(state.epoch, self._extend(state.changed_at))
            now = self.device.cycle()
            deadline = now + drain_cycles if deadline is None else deadline
            if state.result != BUSY_DRAINING or now >= deadline:
                self.abandon()
                raise self._refusal("commit", state)
            if self._grants:
                self.device.advance(min(POLL_CYCLES, deadline - now))

    def confirm(self) -> None:
        """Make the committed table the one that stays."""
        self._command(Op.CONFIRM, "confirm")

    def roll_back(self) -> Commit:
        """Restore the table before the commit, under a new epoch."""
        state = self._command(Op.ROLL_BACK, "roll back")
        return Commit(state.epoch, self._extend(state.changed_at))

    def abandon(self) -> None:
        """Drop a staged table, if there is one and it is this manager's."""
        state = self._settled()
        if state.phase is Phase.STAGING and state.owner_token == self.token:
            self._command(Op.ABANDON, "abandon")

    def _staged(self, tenant: int, field: str) -> RegisterHandle:
        handle: RegisterHandle = getattr(self.device.staging[tenant], field)
        return handle

    def _command(self, op: Op, name: str) -> ManagerState:
        self.device.write([(self.device.rm.token, self.token), (self.device.rm.command, op)])
        return self._expect_ok(name)

    def _expect_ok(self, name: str) -> ManagerState:
        state = self._settled()
        if state.result:
            raise self._refusal(name, state)
        return state

    def _settled(self) -> ManagerState:
        """State once no command is under way, within a bounded number of device cycles."""
        for _ in range(MAX_POLLS):
            state = self.state()
            if not state.busy:
                return state
            if self._grants:
                self.device.advance(POLL_CYCLES)
        raise LinkError(f"{self.device.url}: the resource manager stays busy; reset the device")

    def _refusal(self, name: str, state: ManagerState) -> AllocationRefused:
        reason = RESULTS[state.result] if state.result < len(RESULTS) else f"result {state.result}"
        of_row = reason in ("below guarantee", "slot owned twice", "burst too small", "unknown port or slot",
                            "rate over full", "host share over 256")
        row = state.row if of_row and state.row != WHOLE_TABLE else None
        remedies = {
            "stale token": "another manager owns the device; stop one of the two",
            "stale base_epoch": "the table changed meanwhile; decide again on the one in force",
            "busy draining": f"{state.draining} packets of an older epoch are in flight; is an output stalled?",
            "wrong state": f"the resource manager is {state.phase.name.lower()}",
        }
        where = "" if row is None else f": tenant {row}"
        remedy = f": {remedies[reason]}" if reason in remedies else ""
        return AllocationRefused(f"{self.device.url}: {name} refused: {reason}{where}{remedy}",
                                 reason=reason, row=row)

    def _stale_token(self, name: str) -> AllocationRefused:
        return AllocationRefused(f"{self.device.url}: {name} refused: stale token: another manager owns the device; "
                                 "stop one of the two", reason="stale token")

    def _extend(self, low: int) -> int:
        """The newest cycle count with these low 32 bits."""
        now = self.device.cycle()
        return now - ((now - low) & 0xFFFF_FFFF)
