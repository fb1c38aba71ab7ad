"""`VfioFunction`: a function that is bound to vfio-pci, taken whole: registers, DMA behind the IOMMU, interrupts.

The calls are those of `linux/vfio.h` (container and group, type 1 IOMMU); a test compares numbers and layouts with the
header. The kernel programs the MSI-X table and resets the function when it is let go.
"""

from __future__ import annotations

import array
import ctypes
import errno
import fcntl
import mmap
import os
import struct
from collections.abc import Callable
from pathlib import Path

from morphnic.errors import DeviceBusy, EnvironmentFault, LinkError

from .function import BAR_BYTES, Function, HostMemory, Window, whole_pages

GET_API_VERSION, CHECK_EXTENSION, SET_IOMMU, GROUP_GET_STATUS, GROUP_SET_CONTAINER = range(0x3B64, 0x3B69)
GROUP_GET_DEVICE_FD, DEVICE_GET_REGION_INFO, DEVICE_SET_IRQS, DEVICE_RESET = 0x3B6A, 0x3B6C, 0x3B6E, 0x3B6F
IOMMU_MAP_DMA, IOMMU_UNMAP_DMA = 0x3B71, 0x3B72
TYPE1V2_IOMMU, GROUP_VIABLE = 3, 1
BAR0, CONFIG = 0, 7  # regions
MSIX = 2  # of interrupts
DATA_EVENTFD, DATA_NONE, ACTION_TRIGGER = 1 << 2, 1 << 0, 1 << 5
MAP_READ_WRITE = 3
GROUP_STATUS = struct.Struct("=II")  # argsz, flags
REGION_INFO = struct.Struct("=IIIIQQ")  # argsz, flags, index, cap_offset, size, offset
IRQ_SET = struct.Struct("=IIIII")  # argsz, flags, index, start, count; then the descriptors
DMA_MAP = struct.Struct("=IIQQQ")  # argsz, flags, vaddr, iova, size
DMA_UNMAP = struct.Struct("=IIQQ")  # argsz, flags, iova, size
_COMMAND, _MEMORY_AND_MASTER = 4, 0b110  # of the configuration space


class VfioFunction(Function):
    """The function whose folder in sysfs is `folder`; `dev`: where /dev is; `ioctl`: as `fcntl.ioctl`."""

    dma = True
    message_interrupts = True

    def __init__(self, folder: Path, dev: Path = Path("/dev"), ioctl: Callable[..., int] = fcntl.ioctl) -> None:
        super().__init__(f"the PCIe function {folder.name}")
        self._ioctl = ioctl
        self._events: list[int] = []
        self._open: list[int] = []
        self._window: Window | None = None
        group = dev / "vfio" / (folder / "iommu_group").resolve().name
        try:
            self._container = self._take(dev / "vfio/vfio")
            self._attach(self._take(group), group)
            name = bytearray(folder.name.encode() + b"\0")
            self._device = self._ioctl(self._open[1], GROUP_GET_DEVICE_FD, name)
            self._open.append(self._device)
            self._map_registers()
        except OSError as error:
            self.close()
            raise LinkError(f"{self.name}: vfio refused it ({error.strerror})") from error
        except BaseException:
            self.close()
            raise

    def _take(self, path: Path) -> int:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM):
                raise EnvironmentFault(f"no permission to open {path} for {self.name}: `sudo chown $USER {path}`, for "
                                       "good with the udev rule in docs/guides/pcie.md") from error
            if error.errno == errno.EBUSY:
                raise DeviceBusy(f"{self.name} is held by another process ({path} is in use)") from error
            raise EnvironmentFault(f"{path} cannot be opened ({error.strerror}) for {self.name}: is the IOMMU switched "
                                   "on (intel_iommu=on), and vfio-pci loaded?") from error
        self._open.append(descriptor)
        return descriptor

    def _attach(self, group: int, path: Path) -> None:
        if self._ioctl(self._container, GET_API_VERSION) != 0:
            raise EnvironmentFault("this kernel has another version of vfio than 0")
        if not self._ioctl(self._container, CHECK_EXTENSION, TYPE1V2_IOMMU):
            raise EnvironmentFault("this machine's vfio has no type 1 IOMMU: switch the IOMMU on (intel_iommu=on)")
        status = bytearray(GROUP_STATUS.pack(GROUP_STATUS.size, 0))
        self._ioctl(group, GROUP_GET_STATUS, status)
        if not GROUP_STATUS.unpack(status)[1] & GROUP_VIABLE:
            raise EnvironmentFault(f"{self.name} shares its IOMMU group {path.name} with functions that other drivers "
                                   f"have: bind those in /sys/kernel/iommu_groups/{path.name}/devices to vfio-pci too")
        self._ioctl(group, GROUP_SET_CONTAINER, struct.pack("=i", self._container))
        self._ioctl(self._container, SET_IOMMU, TYPE1V2_IOMMU)

    def _region(self, index: int) -> tuple[int, int]:
        """Size and place of a region in the device's file."""
        info = bytearray(REGION_INFO.pack(REGION_INFO.size, 0, index, 0, 0, 0))
        self._ioctl(self._device, DEVICE_GET_REGION_INFO, info)
        *_, size, offset = REGION_INFO.unpack(info)
        return size, offset

    def _map_registers(self) -> None:
        size, offset = self._region(BAR0)
        if size != BAR_BYTES:
            raise LinkError(f"{self.name} is no Morphnic device: BAR0 has {size} bytes, not {BAR_BYTES}")
        self._window = Window(self._device, offset)
        place = self._region(CONFIG)[1] + _COMMAND
        command = int.from_bytes(os.pread(self._device, 2, place), "little") | _MEMORY_AND_MASTER
        os.pwrite(self._device, command.to_bytes(2, "little"), place)

    def read32(self, offset: int) -> int:
        """As `Function`."""
        assert self._window is not None
        return self._window.read(offset)

    def write32(self, offset: int, word: int) -> None:
        """As `Function`."""
        assert self._window is not None
        self._window.write(offset, word)

    def map_memory(self, size: int) -> HostMemory:
        """As `Function`: pages that the kernel holds in place."""
        size = whole_pages(size)
        bus_address = self._take_bus_address(size)
        memory = mmap.mmap(-1, size)
        anchor = ctypes.c_char.from_buffer(memory)
        try:
            self._ioctl(self._container, IOMMU_MAP_DMA, DMA_MAP.pack(
                DMA_MAP.size, MAP_READ_WRITE, ctypes.addressof(anchor), bus_address, size))
        except OSError as error:
            if error.errno == errno.ENOMEM:
                raise EnvironmentFault(f"{self.name}: {size} bytes may not be held in memory: raise the limit "
                                       "(`ulimit -l`, LimitMEMLOCK= of a service)") from error
            raise LinkError(f"{self.name}: memory cannot be mapped for DMA ({error.strerror})") from error
        finally:
            del anchor

        def release() -> None:
            gone = DMA_UNMAP.pack(DMA_UNMAP.size, 0, bus_address, size)
            self._ioctl(self._container, IOMMU_UNMAP_DMA, bytearray(gone))
            memory.close()

        return HostMemory(memoryview(memory), bus_address, release)

    def interrupts(self, count: int) -> list[int]:
        """As `Function`."""
        if self._events:
            self._set_vectors(DATA_NONE, [], 0)
            self._close_events()
        self._events = [os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(count)]
        if count:
            self._set_vectors(DATA_EVENTFD, self._events, count)
        return list(self._events)

    def _set_vectors(self, kind: int, descriptors: list[int], count: int) -> None:
        data = array.array("i", descriptors).tobytes()
        head = IRQ_SET.pack(IRQ_SET.size + len(data), kind | ACTION_TRIGGER, MSIX, 0, count)
        try:
            self._ioctl(self._device, DEVICE_SET_IRQS, head + data)
        except OSError as error:
            raise LinkError(f"{self.name}: {count} interrupt vectors cannot be set up ({error.strerror})") from error

    def reset(self) -> None:
        """As `Function`."""
        self._ioctl(self._device, DEVICE_RESET)
        self._close_events()

    def close(self) -> None:
        """As `Function`."""
        if self._window is not None:
            self._window.close()
            self._window = None
        self._close_events()
        while self._open:
            os.close(self._open.pop())

    def _close_events(self) -> None:
        for descriptor in self._events:
            os.close(descriptor)
        self._events = []


__all__ = ["VfioFunction"]
