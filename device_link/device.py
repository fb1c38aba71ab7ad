"""`Device`: typed access to the registers of one device, by name and field.

    with device_link.open("sim://", writer=True) as dev:
        if dev.rm.status.read().state == 0:
            dev.rm.command.write(op=1)
        dev.staging[3].weight.write(weight=10)
        before, after = dev.read([dev.rm.active, dev.rm.commits])
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import TracebackType
from typing import Any, Self

from gateware.config import DeviceConfig
from morphnic.errors import InputError, LinkError, RegisterMapMismatch

from .registers import MAGIC, Block, Register, RegisterMap, RegisterValue, is_built, register_map
from .transport import BusError, Capability, Transport
from .window import Window

Value = int | RegisterValue | Mapping[str, int]


@dataclass(frozen=True)
class Identity:
    """What a device tells about itself."""

    config: DeviceConfig
    build_id: int
    uid: int
    boot_nonce: int
    map_hash: int
    clock_hz: int
    uart_baud: int
    scope: bool


class RegisterHandle:
    """One register of one device."""

    __slots__ = ("_device", "register")

    def __init__(self, device: Device, register: Register) -> None:
        self._device = device
        self.register = register

    @property
    def name(self) -> str:
        """Path, such as `staging[3].weight`."""
        return self.register.name

    @property
    def address(self) -> int:
        """Address in bytes."""
        return self.register.address

    def read(self) -> RegisterValue:
        """Read the register."""
        return self._device.read([self])[0]

    def write(self, value: int | RegisterValue | None = None, /, **fields: int) -> None:
        """Write a whole word, or the given fields and 0 to all others."""
        if (value is None) == (not fields):
            raise ValueError(f"{self.name}: write either a whole word or fields, not {value!r} and {fields!r}")
        self._device.write([(self, fields if value is None else value)])

    def modify(self, **fields: int) -> RegisterValue:
        """Read, change the given fields, write; what was written. Not atomic against another writer."""
        word = self.register.encode(fields, int(self.read()))
        self._device.write([(self, word)])
        return self.register.decode(word)

    def __repr__(self) -> str:
        return f"<register {self.name} at {self.address:#07x}>"


class BlockHandle:
    """A register block of one device: registers as attributes, elements of an array by index."""

    def __init__(self, device: Device, block: Block, index: int | None = None) -> None:
        self._device = device
        self._block = block
        self._index = index

    def __getattr__(self, name: str) -> RegisterHandle:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return RegisterHandle(self._device, self._block.register(name, self._index))
        except InputError as error:
            raise AttributeError(str(error)) from error

    def __getitem__(self, index: int) -> BlockHandle:
        if self._index is not None:
            raise InputError(f"{self._block.name}[{self._index}] is no array")
        self._block.check_index(index)
        return BlockHandle(self._device, self._block, index)

    def __iter__(self) -> Any:
        raise TypeError(f"{self._block.name}: iterate over range(dev.identity.config.tenants), ports or slots: "
                        "the map has room for more rows than a device has")

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._block.template]

    def all(self) -> list[RegisterHandle]:
        """Every register of the block, or of this element."""
        return [RegisterHandle(self._device, register) for register in self._block.registers(self._index)]

    def words(self, start: int = 0, count: int = 1) -> list[int]:
        """Words of a memory."""
        if not self._block.memory_words:
            raise InputError(f"block {self._block.name} is no memory")
        if start < 0 or count < 1 or start + count > self._block.memory_words:
            raise ValueError(f"words of {self._block.name} must be within 0..{self._block.memory_words - 1}, "
                             f"not {count!r} from {start!r}")
        return self._device.read_words(self._block.address + 4 * start, count)


class Device:
    """A device behind a transport. Blocks of the register map are attributes: `dev.rm`, `dev.staging[3]`."""

    def __init__(self, transport: Transport, *, registers: RegisterMap | None = None, check: bool = True) -> None:
        self.transport = transport
        self.map = registers or register_map()
        if check:
            self._check()

    # --- registers ---

    def __getattr__(self, name: str) -> BlockHandle:
        if name.startswith("_") or name == "map":
            raise AttributeError(name)
        try:
            return BlockHandle(self, self.map.block(name))
        except InputError as error:
            raise AttributeError(str(error)) from error

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self.map.blocks]

    def register(self, path: str) -> RegisterHandle:
        """The register at a path such as `rm.status` or `staging[3].weight`."""
        return RegisterHandle(self, self.map.register(path))

    def read(self, registers: Iterable[RegisterHandle | str]) -> list[RegisterValue]:
        """Read several registers in one exchange."""
        listed = [self._resolve(register) for register in registers]
        try:
            words = self.transport.read_many(register.address for register in listed)
        except BusError as error:
            raise self._named(error) from error
        return [register.decode(word) for register, word in zip(listed, words, strict=True)]

    def read_words(self, address: int, count: int) -> list[int]:
        """Words from consecutive addresses; an error names the register."""
        try:
            return self.transport.read(address, count)
        except BusError as error:
            raise self._named(error) from error

    def write(self, values: Iterable[tuple[RegisterHandle | str, Value]]) -> None:
        """Write several registers in one exchange, in order; stops at the first that refuses."""
        pairs = []
        for named, value in values:
            register = self._resolve(named)
            if not register.writable:
                raise InputError(f"register {register.name} cannot be written")
            pairs.append((register.address,
                          register.encode(value) if isinstance(value, Mapping) else int(value)))
        try:
            self.transport.write_many(pairs)
        except BusError as error:
            raise self._named(error) from error

    def _resolve(self, register: RegisterHandle | str) -> Register:
        return self.map.register(register) if isinstance(register, str) else register.register

    def _named(self, error: BusError) -> BusError:
        names = ", ".join(self.map.name_of(address) for address in error.addresses[:4])
        return BusError(f"{error} ({names})", index=error.index, addresses=error.addresses)

    # --- the device as a whole ---

    @property
    def url(self) -> str:
        """How the device was reached."""
        return self.transport.url

    @property
    def capabilities(self) -> Capability:
        """What the transport can do."""
        return self.transport.capabilities

    @cached_property
    def identity(self) -> Identity:
        """What the device told when it was first asked."""
        registers = self.id.all()
        value = {handle.name.partition(".")[2]: value
                 for handle, value in zip(registers, self.read(registers), strict=True)}
        try:
            config = DeviceConfig(
                ports=value["config0"].ports, tenants=value["config0"].tenants, slots=value["config0"].slots,
                slot_bytes=value["config2"].slot_bytes, rules=value["config2"].rules,
                **{name: bool(getattr(value["config2"], name))
                   for name in ("histograms", "access_patterns", "forecasts", "uartbone", "host_queues")},
                pcie_width=8 * value["config2"].pcie_bytes,
                classifier_entries=value["config0"].classifier_entries, data_width=value["config1"].data_width,
                pages=value["config1"].pages, clock_hz=value["clock"].hz, uart_baud=value["uart"].baud)
        except ValueError as error:
            raise LinkError(f"{self.url}: the device describes itself wrongly: {error}") from error
        return Identity(
            config=config, build_id=int(value["build_id_lo"]) | int(value["build_id_hi"]) << 32,
            uid=int(value["uid_lo"]) | int(value["uid_hi"]) << 32, boot_nonce=int(value["boot_nonce"]),
            map_hash=int(value["map_hash"]), clock_hz=int(value["clock"]), uart_baud=int(value["uart"]),
            scope=bool(value["config2"].scope))

    def has(self, block: str) -> bool:
        """Whether this device has the block of the map; the addresses of one that it has not are refused."""
        # Of a logic analyzer the identification tells only that there is one; its probes describe themselves.
        return self.identity.scope if block.startswith("scope") else is_built(block, self.identity.config)

    def cycle(self) -> int:
        """The device cycle counter, 64 bits."""
        low, high = self.id.cycle_lo, self.id.cycle_hi
        while True:
            before, middle, after = (int(value) for value in self.read([high, low, high]))
            if before == after:
                return before << 32 | middle

    def windows(self, timeout: float = 0.0) -> list[Window]:
        """Windows pushed since the last call; see `Transport.windows`."""
        return self.transport.windows(timeout)

    def advance(self, cycles: int) -> dict[str, Any]:
        """Grant device time; see `Transport.advance`."""
        return self.transport.advance(cycles)

    def _check(self) -> None:
        try:
            magic, map_hash = (int(value) for value in self.read([self.id.magic, self.id.map_hash]))
        except BusError as error:
            raise RegisterMapMismatch(f"{self.url}: what answers is no Morphnic device: {error}") from error
        if magic != MAGIC:
            raise RegisterMapMismatch(f"{self.url}: what answers is no Morphnic device (magic {magic:#010x} instead "
                                      f"of {MAGIC:#010x}): check the URL")
        if map_hash != self.map.hash:
            raise RegisterMapMismatch(
                f"{self.url}: the device was built from register map {map_hash:#010x}, this software from "
                f"{self.map.hash:#010x}: build and flash the bitstream of this version, or install the software "
                "of the device's")

    def close(self) -> None:
        """Let go of the device."""
        self.transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<device {self.url}>"


def fields_of(identity: Identity) -> dict[str, Any]:
    """`identity` as plain data, for `--json`."""
    return dataclasses.asdict(identity)


__all__ = ["BlockHandle", "Device", "Identity", "RegisterHandle", "fields_of"]
