"""`BarTransport`: the registers of a device through BAR0 of its PCIe function.

Over PCIe a write is posted and a read has no room for an error, so the device counts what it refused (the block `pcie`
of the register map), and this transport looks:

- behind every write, `pcie.writes_refused` is read, which also waits until the write was carried out. In a list whose
  order matters that is behind each word, so that what follows a refused one is not written; in a block it is once.
- a read of ones may be the register's value, a refused read, or nobody there any more: `id.magic` tells whether the
  device still answers, `pcie.reads_refused` whether it refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import unquote

from morphnic.errors import LinkError, LinkLost

from ..operations import Operation, Read, ReadList, Write, touched
from ..registers import MAGIC, register_map
from ..transport import BusError, Capability, Transport
from .function import ALL_ONES, Function, HostMemory
from .linux import full_address, is_address, open_function
from .simulated import SimulatedFunction
from .windows import SnapshotWindows


class BarTransport(Transport):
    """Transport over an open `function`, which it closes."""

    window_switches = ()  # nothing is pushed: what the serial link does is left to those who are at it

    def __init__(self, function: Function, *, url: str, timeout: float = 1.0, writer: bool = False) -> None:
        super().__init__(url, timeout=timeout, writer=writer)
        self.function = function
        self.capabilities = Capability.REGISTERS | Capability.WINDOWS | Capability.EXCLUSIVE | Capability.MMIO
        if function.dma:
            self.capabilities |= Capability.DMA
        if function.message_interrupts:
            self.capabilities |= Capability.INTERRUPTS
        known = register_map()
        self._magic, self._nonce = (known.register(name).address for name in ("id.magic", "id.boot_nonce"))
        self._writes_refused, self._reads_refused = (
            known.register(f"pcie.{name}_refused").address for name in ("writes", "reads"))
        self._snapshots = SnapshotWindows(lambda addresses: [self._read(address, 0) for address in addresses])
        try:
            self._begin()
        except BaseException:
            function.close()
            raise

    def _begin(self) -> None:
        magic = self.function.read32(self._magic)
        if magic == ALL_ONES:
            raise LinkError(f"{self.url}: the function answers with ones only: its memory is switched off (write 1 to "
                            "`enable` of the device in sysfs), or it is gone (reset or rescan the slot)")
        #: Nothing is known of a device of another kind; whoever opened it is told by what is in `id.magic`.
        self._ours = magic == MAGIC
        self._boot_nonce = self.function.read32(self._nonce) if self._ours else None
        self._refused_writes = self.function.read32(self._writes_refused) if self._ours else 0
        self._refused_reads = self.function.read32(self._reads_refused) if self._ours else 0

    @property
    def boot_nonce(self) -> int | None:
        """As the ID block told it at the beginning."""
        return self._boot_nonce

    def _execute(self, operations: Sequence[Operation], *, ordered: bool) -> list[list[int]]:
        results: list[list[int]] = []
        for index, operation in enumerate(operations):
            addresses = touched(operation)
            if isinstance(operation, Read | ReadList):
                results.append([self._read(address, index) for address in addresses])
                continue
            words = operation.words if isinstance(operation, Write) else [word for _, word in operation.pairs]
            for address, word in zip(addresses, words, strict=True):
                self.function.write32(address, word)
                if ordered:
                    self._check_written([address], index)
            if not ordered:
                self._check_written(addresses, index)
            results.append([])
        return results

    def _read(self, address: int, index: int) -> int:
        word = self.function.read32(address)
        if word != ALL_ONES or not self._ours:
            return word
        self._check_present()
        refused = self.function.read32(self._reads_refused)
        if refused == self._refused_reads:
            return word
        self._refused_reads = refused
        raise BusError(f"{self.url}: the register at {address:#07x} does not exist, or it refused", index=index,
                       addresses=[address])

    def _check_written(self, addresses: Sequence[int], index: int) -> None:
        if not self._ours:
            return
        refused = self.function.read32(self._writes_refused)
        if refused == self._refused_writes:
            return
        if refused == ALL_ONES:
            self._check_present()
        count, self._refused_writes = (refused - self._refused_writes) & ALL_ONES, refused
        raise BusError(f"{self.url}: {count} of the registers written at {', '.join(map(hex, addresses[:4]))} do not "
                       "exist, or refused", index=index, addresses=addresses)

    def _check_present(self) -> None:
        magic = self.function.read32(self._magic)
        if magic != MAGIC:
            raise LinkLost(f"{self.url}: the function does not answer any more (magic {magic:#010x} instead of "
                           f"{MAGIC:#010x}): it was unplugged, reset or switched off; open it again when it is back")

    def _windows(self, timeout: float) -> list[bytes]:
        return self._snapshots.next(timeout)

    def _map_memory(self, size: int) -> HostMemory:
        return self.function.map_memory(size)

    def _interrupts(self, count: int) -> list[int]:
        return self.function.interrupts(count)

    def _close(self) -> None:
        self.function.close()


def open_pcie(target: str, *, url: str, timeout: float = 1.0, writer: bool = False) -> BarTransport:
    """Transport to the function `target`: its address on the bus, or the name of a running simulated device."""
    target = unquote(target)
    function: Function
    if is_address(target):
        url = f"pcie://{full_address(target)}"  # as it is found, however it was typed
        function = open_function(target, writer=writer)
    else:
        function = SimulatedFunction.find(target, timeout=timeout)
    return BarTransport(function, url=url, timeout=timeout, writer=writer)


__all__ = ["BarTransport", "open_pcie"]
