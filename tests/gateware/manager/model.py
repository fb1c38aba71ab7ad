"""Golden model of the resource manager at register level: what software sees, without cycles inside a command.

`ResourceManagerModel(config)` is read and written at byte addresses of the register map, as the device is over a
link; an access that the device would answer with a bus error raises `BusError` and changes nothing. Commands take
no time here (`status.busy` is never seen): device time passes only in `tick`. Traffic is told with `admit` and
`leave`, for the commit that must wait until old packets have left.

    model = ResourceManagerModel()
    model.write(model.address("rm.owner_token"), 7)
    model.write(model.address("rm.token"), 7)
    model.command("begin")
    model.write(model.address("staging.weight", 3), 1000)
    assert model.command("commit") == (OK, 0)
    model.tick(100)

It is written from the transaction's rules alone and shares no code with the gateware.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from gateware.config import DeviceConfig
from rtl.registers import registermap

OK, WRONG_STATE, STALE_EPOCH, STALE_TOKEN, BUSY_DRAINING, WEIGHTS, PAGES, GUARANTEE, SLOT_TWICE, BURST = range(10)
UNKNOWN_BIT, RATE, UNKNOWN_COMMAND, HOST_SHARE, UNKNOWN_TENANT = range(10, 15)
IDLE, COPYING, STAGING, AWAITING = range(4)
COMMANDS = {"begin": 1, "check": 2, "commit": 3, "confirm": 4, "rollback": 5, "abandon": 6}
WHOLE_TABLE = 255
WEIGHT_CAPACITY = 65536
COLUMNS = ("weight", "rate", "burst", "pages", "ports", "slots", "host_share")

Row = dict[str, int]


class BusError(Exception):
    """The device answers this access with an error; nothing changed."""


def reset_table(config: DeviceConfig) -> list[Row]:
    """Table after reset: tenant 0 owns everything."""
    def row(first: bool) -> Row:
        return {"weight": 4096 * first, "rate": 65536, "burst": 512, "pages": config.pages * first,
                "ports": (2**config.ports - 1) * first, "slots": (2**config.slots - 1) * first, "host_share": 0}
    return [row(tenant == 0) for tenant in range(config.tenants)]


def check_table(table: list[Row], guarantees: list[tuple[int, int]], config: DeviceConfig) -> tuple[int, int]:
    """Result and row for a staged table: sums first, then the first bad row, in it the lowest result."""
    if sum(row["weight"] for row in table) > WEIGHT_CAPACITY:
        return WEIGHTS, WHOLE_TABLE
    if sum(row["pages"] for row in table) > config.pages:
        return PAGES, WHOLE_TABLE
    owned = 0
    for tenant, (row, (weight, pages)) in enumerate(zip(table, guarantees, strict=True)):
        faults = {
            GUARANTEE: row["weight"] < weight or row["pages"] < pages,
            SLOT_TWICE: owned & row["slots"],
            BURST: row["burst"] < 256,
            UNKNOWN_BIT: row["ports"] >> config.ports or row["slots"] >> config.slots,
            RATE: row["rate"] > 65536 or (row["rate"] == 0 and row["weight"] > 0),
            HOST_SHARE: row["host_share"] > 256,
        }
        for result, broken in faults.items():
            if broken:
                return result, tenant
        owned |= row["slots"]
    return OK, 0


@dataclass
class ResourceManagerModel:
    """The transaction over the registers `rm`, `guarantee`, `staging` and `active`."""

    config: DeviceConfig = field(default_factory=DeviceConfig)
    cycle: int = 0

    def __post_init__(self) -> None:
        self.active_table = reset_table(self.config)
        self.previous_table = reset_table(self.config)
        self.staging_table: list[Row] = []
        self.guarantees = [(0, 0)] * self.config.tenants
        self.state = IDLE
        self.epoch = 0
        self.active_bank, self.previous_bank, self.staging_bank = 0, 1, 2
        self.result, self.row = OK, 0
        self.active_tag = self.previous_tag = 0
        self.confirm_left = 0
        self.changed_at = 0
        self.in_flight: dict[int, int] = {}
        self.counters = {"commits": 0, "rollbacks": 0, "refused": 0, "expired": 0, "cut_off": 0}
        #: Registers that only hold what was written.
        self.held = dict.fromkeys(
            ("command", "token", "owner_token", "base_epoch", "confirm_within", "stall_timeout", "staged_tag"), 0)

    # Registers

    @staticmethod
    def address(name: str, index: int = 0) -> int:
        """Byte address of `block.register`, of element `index` in an array."""
        block_name, register_name = name.split(".")
        block = registermap.node(block_name)
        return int(block.address + index * block.stride + block.register(register_name).offset)

    def _find(self, address: int) -> tuple[str, str, int]:
        for name in ("rm", "guarantee", "staging", "active"):
            block = registermap.node(name)
            count = 1 if block.count is None else self.config.tenants
            index, offset = divmod(address - block.address, block.stride)
            if 0 <= index < count:
                for register in block.registers:
                    if register.offset == offset:
                        return name, register.name, index
        raise BusError(f"no register answers at {address:#x}")

    def read(self, address: int) -> int:
        """Word at a byte address."""
        block, register, index = self._find(address)
        if block == "rm":
            return self._registers()[register]
        if block == "guarantee":
            return self.guarantees[index][register == "min_pages"]
        if block == "staging":
            self._require_staging(address)
        table = self.active_table if block == "active" else self.staging_table
        return table[index].get(register, 0)

    def write(self, address: int, value: int, mask: int = 0xF) -> None:
        """Write the bytes of a word that `mask` enables."""
        block, register, index = self._find(address)
        fields = registermap.node(block).register(register).fields
        if not any(entry.writable for entry in fields):
            raise BusError(f"{block}.{register} is read only")
        if block == "staging":
            self._require_staging(address)
        bits = sum(0xFF << 8 * byte for byte in range(4) if mask >> byte & 1)
        bits &= sum((1 << entry.width) - 1 << entry.lsb for entry in fields)
        new = self.read(address) & ~bits | value & bits
        if block == "rm":
            self.held[register] = new
            if register == "command" and bits:
                self._execute(new)
        elif block == "guarantee":
            weight, pages = self.guarantees[index]
            self.guarantees[index] = (weight, new) if register == "min_pages" else (new, pages)
        else:
            self.staging_table[index][register] = new

    def command(self, name: str) -> tuple[int, int]:
        """Write a command by name; result and row as the status register tells them."""
        self.write(self.address("rm.command"), COMMANDS[name])
        return self.result, self.row

    def _require_staging(self, address: int) -> None:
        if self.state != STAGING or self.held["token"] != self.held["owner_token"]:
            raise BusError(f"the staged row at {address:#x} is closed: no table is staged, or not by this token")

    def _registers(self) -> dict[str, int]:
        staged = self.staging_table if self.state == STAGING else []
        return self.held | self.counters | {
            "status": self.state | self.result << 8 | self.row << 16,
            "active": self.epoch | self.active_bank << 8,
            "confirm_left": self.confirm_left,
            "weight_capacity": WEIGHT_CAPACITY,
            "staged_weight": sum(row["weight"] for row in staged),
            "staged_pages": sum(row["pages"] for row in staged),
            "draining": min(self.draining, 0xFFFF),
            "changed_at": self.changed_at & 0xFFFFFFFF,
            "active_tag": self.active_tag,
        }

    # Traffic and time

    @property
    def draining(self) -> int:
        """Packets in flight under epochs other than the active one."""
        return sum(count for epoch, count in self.in_flight.items() if epoch != self.epoch)

    def admit(self, packets: int = 1) -> int:
        """Packets enter under the active epoch, which is returned."""
        self.in_flight[self.epoch] = self.in_flight.get(self.epoch, 0) + packets
        return self.epoch

    def leave(self, epoch: int, packets: int = 1, *, cut: int = 0) -> None:
        """Packets admitted under `epoch` leave; `cut` of them were cut off."""
        if packets > self.in_flight.get(epoch, 0):
            raise ValueError(f"packets must be at most {self.in_flight.get(epoch, 0)}, not {packets!r}")
        self.in_flight[epoch] -= packets
        self.counters["cut_off"] += cut

    def tick(self, cycles: int = 1) -> None:
        """Device time passes; a deadline that passes restores the previous table."""
        if self.state == AWAITING and cycles > self.confirm_left:
            self.cycle += self.confirm_left + 1
            cycles -= self.confirm_left + 1
            self.counters["expired"] += 1
            self._roll_back()
        elif self.state == AWAITING:
            self.confirm_left -= cycles
        self.cycle += cycles

    # The transaction

    def _execute(self, op: int) -> None:
        commands: dict[int, tuple[int, Callable[[], tuple[int, int]]]] = {
            1: (IDLE, self._begin), 2: (STAGING, self._check), 3: (STAGING, self._commit),
            4: (AWAITING, self._confirm), 5: (AWAITING, self._roll_back), 6: (STAGING, self._abandon),
        }
        if op not in commands:
            self.result, self.row = UNKNOWN_COMMAND, 0
        elif self.held["token"] != self.held["owner_token"]:
            self.result, self.row = STALE_TOKEN, 0
        elif self.state != commands[op][0]:
            self.result, self.row = WRONG_STATE, 0
        else:
            self.result, self.row = commands[op][1]()
        self.counters["refused"] += self.result != OK

    def _begin(self) -> tuple[int, int]:
        self.staging_table = [dict(row) for row in self.active_table]
        self.state = STAGING
        return OK, 0

    def _check(self) -> tuple[int, int]:
        return check_table(self.staging_table, self.guarantees, self.config)

    def _commit(self) -> tuple[int, int]:
        if self.held["base_epoch"] != self.epoch:
            return STALE_EPOCH, 0
        result, row = self._check()
        if result != OK:
            return result, row
        if self.draining:
            return BUSY_DRAINING, 0
        self._bring_into_force(self.held["staged_tag"], self.held["confirm_within"])
        return OK, 0

    def _bring_into_force(self, tag: int, confirm_within: int) -> None:
        self.previous_table, self.active_table = self.active_table, self.staging_table
        self.active_bank, self.previous_bank, self.staging_bank = (
            self.staging_bank, self.active_bank, self.previous_bank)
        self.previous_tag, self.active_tag = self.active_tag, tag
        self.counters["commits"] += 1
        self.confirm_left = confirm_within
        self.state = AWAITING if self.confirm_left else IDLE
        self._change()

    @property
    def holds_rules(self) -> bool:
        """Whether rules that are due have to wait."""
        return self.state != IDLE or self.draining > 0

    def commit_rules(self, rows: list[tuple[int, Row]], tag: int, confirm_within: int) -> tuple[int, int]:
        """Rows of rules over the table in force, the later over the earlier; result and row."""
        self.staging_table = [dict(row) for row in self.active_table]
        for tenant, row in rows:
            if tenant >= self.config.tenants:
                return UNKNOWN_TENANT, tenant
            self.staging_table[tenant] = dict(row)
        result, row = self._check()
        if result == OK:
            self._bring_into_force(tag, confirm_within)
        return result, row

    def _confirm(self) -> tuple[int, int]:
        self.state, self.confirm_left = IDLE, 0
        return OK, 0

    def _roll_back(self) -> tuple[int, int]:
        self.active_table, self.previous_table = self.previous_table, self.active_table
        self.active_bank, self.previous_bank = self.previous_bank, self.active_bank
        self.active_tag, self.previous_tag = self.previous_tag, self.active_tag
        self.counters["rollbacks"] += 1
        self.state, self.confirm_left = IDLE, 0
        self._change()
        return OK, 0

    def _abandon(self) -> tuple[int, int]:
        self.state = IDLE
        return OK, 0

    def _change(self) -> None:
        self.epoch = (self.epoch + 1) % 256
        self.changed_at = self.cycle
