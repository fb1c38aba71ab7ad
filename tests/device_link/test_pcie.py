"""PCIe functions of Linux over a tree made here, and the transport over functions that refuse, lie and vanish."""

from __future__ import annotations

import errno
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

import device_link
from device_link.discovery import KNOWN_FUNCTIONS, pcie_functions
from device_link.operations import Read, Write, WriteList
from device_link.pcie import linux, vfio, windows
from device_link.pcie import transport as transport_module
from device_link.pcie.function import ALL_ONES, BAR_BYTES, Function
from device_link.pcie.linux import is_address, open_function
from device_link.pcie.transport import BarTransport
from device_link.pcie.vfio import VfioFunction
from device_link.pcie.windows import POLL_SECONDS
from device_link.registers import MAGIC, register_map
from device_link.transport import BusError, Capability
from morphnic.errors import DeviceBusy, DeviceNotFound, EnvironmentFault, LinkError, LinkLost, RegisterMapMismatch

BDF = "0000:03:00.0"
HOLE = 0x200


def address(name: str) -> int:
    return register_map().register(name).address


class ModelFunction(Function):
    """A function as the gateware is: refused accesses are counted, a refused read is ones."""

    def __init__(self) -> None:
        super().__init__("the model")
        self.words = {address("id.magic"): MAGIC, address("id.map_hash"): register_map().hash,
                      address("id.boot_nonce"): 77, address("id.scratch"): 0, address("rm.token"): 0}
        self.counts = {address("pcie.writes_refused"): 0, address("pcie.reads_refused"): 0}
        self.present = True
        self.closed = False

    def read32(self, offset: int) -> int:
        if not self.present:
            return ALL_ONES
        if offset in self.counts:
            return self.counts[offset]
        if offset not in self.words:
            self.counts[address("pcie.reads_refused")] += 1
        return self.words.get(offset, ALL_ONES)

    def write32(self, offset: int, word: int) -> None:
        if not self.present:
            return
        if offset in (address("id.scratch"), address("rm.token")):
            self.words[offset] = word
        else:
            self.counts[address("pcie.writes_refused")] += 1

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def model() -> Iterator[tuple[ModelFunction, BarTransport]]:
    function = ModelFunction()
    with BarTransport(function, url="pcie://x", writer=True) as transport:
        yield function, transport
    assert function.closed


def test_ones_that_a_register_holds_are_its_value_and_ones_of_a_refusal_are_not(model):
    _, transport = model
    scratch = address("id.scratch")
    transport.write(scratch, ALL_ONES)
    assert transport.read(scratch) == [ALL_ONES]
    for _ in range(2):
        with pytest.raises(BusError, match=f"{HOLE:#07x} does not exist"):
            transport.read(HOLE)
    assert transport.read(scratch) == [ALL_ONES]
    assert transport.boot_nonce == 77


def test_what_follows_a_refused_write_in_a_list_is_not_written(model):
    function, transport = model
    scratch, token = address("id.scratch"), address("rm.token")
    with pytest.raises(BusError) as refused:
        transport.execute([WriteList(((scratch, 1), (HOLE, 2), (token, 3))), Write(token, (4,))])
    assert (refused.value.index, refused.value.addresses) == (0, (HOLE,))
    assert (function.words[scratch], function.words[token]) == (1, 0)
    with pytest.raises(BusError) as refused:
        transport.execute([Read(scratch), Write(HOLE, (2,)), Write(token, (3,))])
    assert refused.value.index == 1
    assert function.words[token] == 0
    with pytest.raises(BusError, match="1 of the registers"):
        transport.write(scratch - 4, [5, 6])  # a block is written whole
    assert function.words[scratch] == 6
    transport.write(token, 7)  # what was refused before is not told again
    assert transport.read(token) == [7]


@pytest.mark.parametrize("action", [lambda transport: transport.read(address("id.scratch")),
                                    lambda transport: transport.write(address("id.scratch"), 1)])
def test_a_function_that_is_unplugged_raises(model, action):
    function, transport = model
    action(transport)
    function.present = False
    with pytest.raises(LinkLost, match="unplugged"):
        action(transport)


def test_a_function_that_is_not_there_or_of_another_kind_is_refused():
    function = ModelFunction()
    function.present = False
    with pytest.raises(LinkError, match="switched off"):
        BarTransport(function, url="pcie://x")
    assert function.closed
    function = ModelFunction()
    function.words[0] = 0x1234
    with pytest.raises(RegisterMapMismatch, match="no Morphnic device"):
        device_link.Device(BarTransport(function, url="pcie://x"))


@pytest.mark.parametrize(("text", "valid"), [
    (BDF, True), ("03:00.0", True), ("0001:ff:1f.7", True), ("sim0", False), ("0000:03:00.8", False), ("03:00", False)])
def test_addresses_of_functions_are_told_from_names(text, valid):
    assert is_address(text) is valid


@pytest.mark.parametrize("typed", ["0000:0a:00.0", "0A:00.0", "0000:0A:00.0"])
def test_a_function_has_one_url_however_it_was_typed(monkeypatch, typed):
    monkeypatch.setattr(transport_module, "open_function", lambda address, *, writer: ModelFunction())
    with device_link.open(f"pcie://{typed}") as device:
        assert device.url == "pcie://0000:0a:00.0"


# --- windows ---

TENANTS = 2
SNAPSHOT = [register.address for tenant in range(TENANTS)
            for register in register_map().block("snapshot").registers(tenant)]


def end_window(function: ModelFunction, number: int, start: int, *, changed_at: int = 0) -> None:
    """A window of 1,000 cycles has ended: every word of its rows holds its number."""
    config = register_map().register("id.config0")
    function.words |= {
        config.address: TENANTS << config.fields["tenants"].lsb, address("analyzer.sequence"): number,
        address("analyzer.start_lo"): start & ALL_ONES, address("analyzer.start_hi"): start >> 32,
        address("analyzer.cycles"): 1000, address("rm.active"): 7, address("rm.active_tag"): 9,
        address("rm.changed_at"): changed_at, **dict.fromkeys(SNAPSHOT, number),
        address("id.cycle_lo"): start + 1500 & ALL_ONES}


def test_windows_are_read_once_each_and_those_that_passed_unread_are_told(model):
    function, transport = model
    end_window(function, 0, 0)
    assert transport.windows(0) == []
    end_window(function, 5, 4000)
    (window,) = transport.windows(0.01)
    assert (window.number, window.start, window.cycles, window.epoch, window.active_tag, window.skipped) == (
        5, 4000, 1000, 7, 9, 0)
    assert [row.bytes_in for row in window.rows] == [5] * TENANTS
    assert transport.windows(0.01) == []
    end_window(function, 8, 1 << 33)
    assert [(one.number, one.start, one.skipped) for one in transport.windows(0)] == [(8, 1 << 33, 2)]


@pytest.mark.parametrize(("took", "slept"), [(0.0, POLL_SECONDS), (0.01, 0.04)])
def test_a_function_that_answers_slowly_is_looked_at_less_often(model, monkeypatch, took, slept):
    """While a processor waits for an emulated function, nobody else has it."""
    function, transport = model
    end_window(function, 0, 0)
    clock, pauses, read = [0.0], [], function.read32

    def slow_read(offset: int) -> int:
        clock[0] += took
        return read(offset)

    def pause(seconds: float) -> None:
        clock[0] += seconds
        pauses.append(seconds)

    function.read32 = slow_read
    monkeypatch.setattr(windows, "time", SimpleNamespace(monotonic=lambda: clock[0], sleep=pause))
    assert transport.windows(1.0) == []
    assert pauses == pytest.approx([slept] * len(pauses))
    assert len(pauses) == pytest.approx(1.0 / (slept + took), rel=0.1)


@pytest.mark.parametrize("at", [SNAPSHOT[0], SNAPSHOT[-1], address("analyzer.sequence"), address("analyzer.cycles")])
def test_a_window_that_ends_while_another_is_read_is_not_mixed_with_it(model, at):
    function, transport = model
    end_window(function, 5, 4000)
    read, fresh = function.read32, [True]

    def read_and_end(offset: int) -> int:
        word = read(offset)
        if offset == at and fresh:
            fresh.clear()
            end_window(function, 6, 5000)
        return word

    function.read32 = read_and_end
    (window,) = transport.windows(1)
    assert (window.number, window.start) == (6, 5000)
    assert {row.flags for row in window.rows} | {row.bytes_in for row in window.rows} == {6}


@pytest.mark.parametrize("start", [0, 4000, (1 << 32) - 1100, 3 << 30])
def test_a_window_after_whose_end_the_table_changed_is_passed_over(model, start):
    """Its epoch is not known. A change long ago is none, wherever the low half of the counter stands."""
    function, transport = model
    end_window(function, 5, start, changed_at=start + 1001 & ALL_ONES)
    assert transport.windows(0) == []
    end_window(function, 6, start + 1000, changed_at=start + 1001 & ALL_ONES)
    assert [(one.number, one.skipped) for one in transport.windows(0)] == [(6, 1)]
    end_window(function, 7, start + 2000, changed_at=start + 3001 + (1 << 30) & ALL_ONES)
    assert [one.number for one in transport.windows(0)] == [7]


# --- sysfs ---


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A function in a tree as sysfs has it, whose BAR0 is a file."""
    made = tmp_path / "bus/pci/devices" / BDF
    made.mkdir(parents=True)
    (vendor, device), = KNOWN_FUNCTIONS
    for name, text in (("vendor", f"{vendor:#x}"), ("device", f"{device:#x}"), ("enable", "1"),
                       ("resource", f"0x00000000f0000000 0x{0xF0000000 + BAR_BYTES - 1:016x} 0x0000000000040200\n")):
        (made / name).write_text(text)
    bar = bytearray(BAR_BYTES)
    for name, word in (("id.magic", MAGIC), ("id.map_hash", register_map().hash), ("id.boot_nonce", 5)):
        struct.pack_into("<I", bar, address(name), word)
    (made / "resource0").write_bytes(bar)
    return made


def opened(folder: Path, *, writer: bool = False) -> BarTransport:
    function = open_function(BDF, writer=writer, sysfs=folder.parents[3])
    return BarTransport(function, url=f"pcie://{BDF}", writer=writer)


def test_registers_through_resource0_are_words_of_its_mapping(folder):
    with opened(folder, writer=True) as transport, device_link.Device(transport) as device:
        device.id.scratch.write(0x0102_0304)
        assert int(device.id.scratch.read()) == 0x0102_0304
        content = (folder / "resource0").read_bytes()
        assert content[address("id.scratch"):][:4] == bytes([4, 3, 2, 1])
        assert transport.capabilities & (Capability.DMA | Capability.INTERRUPTS) == Capability(0)
        with open(folder / "resource0", "r+b") as bar:  # what a slot without a card reads as
            bar.write(b"\xff" * BAR_BYTES)
        with pytest.raises(LinkLost, match="unplugged"):
            device.id.scratch.read()


def test_one_writer_holds_a_function_and_readers_are_free(folder):
    with opened(folder, writer=True), opened(folder):
        with pytest.raises(DeviceBusy, match="held by another process"):
            opened(folder, writer=True)
    opened(folder, writer=True).close()


@pytest.mark.parametrize(("change", "error", "remedy"), [
    (lambda folder: (folder / "enable").write_text("0"), EnvironmentFault, r"echo 1 \| sudo tee .*enable"),
    (lambda folder: (folder / "resource").write_text("0x0 0xfff 0x0"), LinkError, "BAR0 has 4096 bytes, not 262144"),
    (lambda folder: (folder / "resource").write_text("0x0 0x0 0x0"), LinkError, "BAR0 has 0 bytes"),
    (lambda folder: (folder / "resource").unlink(), LinkError, "no readable description"),
    (lambda folder: (folder / "resource0").write_bytes(b""), LinkError, "cannot be mapped"),
    (lambda folder: shutil.rmtree(folder), DeviceNotFound, "pci/rescan"),
])
def test_what_is_wrong_with_a_function_is_said_with_its_remedy(folder, change, error, remedy):
    change(folder)
    with pytest.raises(error, match=remedy):
        opened(folder)


@pytest.mark.parametrize(("number", "remedy"), [
    (errno.EACCES, "with sudo, or bind the function to vfio-pci"), (errno.EPERM, "Secure Boot"),
    (errno.EINVAL, f"echo {BDF} .*driver/unbind")])
def test_a_missing_right_says_what_to_do(folder, monkeypatch, number, remedy):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(linux.os, "open", refuse)
    with pytest.raises(EnvironmentFault, match=remedy):
        opened(folder)


def test_functions_are_found_by_vendor_and_device_with_their_driver(folder):
    root = folder.parent
    other = root / "0000:04:00.0"
    other.mkdir()
    (other / "vendor").write_text("0x8086")
    (other / "device").write_text("0x1234")
    (found,) = pcie_functions(root)
    assert (found.url, found.kind, found.in_use) == (f"pcie://{BDF}", "pcie", None)
    for driver, holder in (("vfio-pci", None), ("virtio-pci", "driver virtio-pci")):
        (root / driver).mkdir()
        (folder / "driver").symlink_to(root / driver)
        (found,) = pcie_functions(root)
        assert found.in_use == holder
        (folder / "driver").unlink()


# --- vfio ---


#: Names of the calls by number.
IOCTLS = {value: name for name, value in vars(vfio).items() if isinstance(value, int) and 0x3B64 <= value <= 0x3BFF}


class Kernel:
    """Stands where the kernel's vfio is: answers `ioctl`, with a file for the device. `calls`: names, in order."""

    def __init__(self, device: Path, *, viable: bool = True) -> None:
        self.device, self.viable = device, viable
        self.calls: list[tuple[str, object]] = []
        self.memory: dict[int, tuple[int, int]] = {}

    def __call__(self, descriptor: int, number: int, argument: object = 0) -> int:
        name = IOCTLS[number]
        self.calls.append((name, bytes(argument) if isinstance(argument, bytes | bytearray) else argument))
        if name == "CHECK_EXTENSION":
            return 1
        if name == "GROUP_GET_STATUS":
            argument[:] = struct.pack("=II", 8, int(self.viable))
        if name == "GROUP_GET_DEVICE_FD":
            assert bytes(argument) == BDF.encode() + b"\0"
            return os.open(self.device, os.O_RDWR)
        if name == "DEVICE_GET_REGION_INFO":
            index = struct.unpack_from("=I", argument, 8)[0]
            size, offset = {vfio.BAR0: (BAR_BYTES, 0), vfio.CONFIG: (4096, BAR_BYTES)}[index]
            argument[:] = struct.pack("=IIIIQQ", 32, 7, index, 0, size, offset)
        if name == "IOMMU_MAP_DMA":
            size, flags, vaddr, iova, length = struct.unpack("=IIQQQ", argument)
            assert (size, flags) == (32, 3)
            self.memory[iova] = (vaddr, length)
        if name == "IOMMU_UNMAP_DMA":
            size, flags, iova, length = struct.unpack("=IIQQ", argument)
            assert self.memory.pop(iova)[1] == length
        return 0


@pytest.fixture
def bound(folder: Path, tmp_path: Path) -> tuple[Path, Path, Path]:
    """The function bound to vfio-pci: its folder, /dev, and the file that stands for the device."""
    for name, target in (("driver", tmp_path / "vfio-pci"), ("iommu_group", tmp_path / "groups/17")):
        target.mkdir(parents=True)
        (folder / name).symlink_to(target)
    (tmp_path / "dev/vfio").mkdir(parents=True)
    for name in ("vfio", "17"):
        (tmp_path / "dev/vfio" / name).write_bytes(b"")
    device = tmp_path / "device"
    device.write_bytes((folder / "resource0").read_bytes() + bytes(4096))
    return folder, tmp_path / "dev", device


def test_vfio_takes_the_function_whole(bound):
    import ctypes
    folder, dev, device = bound
    kernel = Kernel(device)
    transport = BarTransport(VfioFunction(folder, dev, kernel), url=f"pcie://{BDF}", writer=True)
    assert Capability.DMA | Capability.INTERRUPTS in transport.capabilities
    assert device.read_bytes()[BAR_BYTES + 4] == 0b110  # memory and bus mastering
    transport.write(address("id.scratch"), 9)
    assert transport.read(address("id.scratch")) == [9]
    with transport.map_memory(5000) as memory, transport.map_memory(1) as second:
        assert (len(memory.view), second.bus_address) == (8192, memory.bus_address + 8192)
        memory.view[:3] = b"abc"
        vaddr, length = kernel.memory[memory.bus_address]
        assert (ctypes.string_at(vaddr, 3), length) == (b"abc", 8192)
    assert kernel.memory == {}
    events = transport.interrupts(2)
    name, argument = kernel.calls[-1]
    assert (name, struct.unpack("=IIIIIii", argument)) == ("DEVICE_SET_IRQS", (28, 0x24, 2, 0, 2, *events))
    transport.interrupts(0)
    assert struct.unpack("=IIIII", kernel.calls[-1][1]) == (20, 0x21, 2, 0, 0)
    transport.close()
    order = [name for name, _ in kernel.calls]
    assert order.index("GROUP_SET_CONTAINER") < order.index("SET_IOMMU") < order.index("GROUP_GET_DEVICE_FD")


def test_a_group_that_is_shared_or_not_permitted_is_refused_with_the_remedy(bound, monkeypatch):
    folder, dev, device = bound
    with pytest.raises(EnvironmentFault, match="iommu_groups/17/devices to vfio-pci too"):
        VfioFunction(folder, dev, Kernel(device, viable=False))
    for number, error, remedy in ((errno.EACCES, EnvironmentFault, r"sudo chown \$USER .*vfio"),
                                  (errno.EBUSY, DeviceBusy, "held by another"),
                                  (errno.ENOENT, EnvironmentFault, "intel_iommu=on")):
        def refuse(*_, number=number):
            raise OSError(number, os.strerror(number))
        with monkeypatch.context() as patched:
            patched.setattr(vfio.os, "open", refuse)
            with pytest.raises(error, match=remedy):
                open_function("03:00.0", writer=True, sysfs=folder.parents[3], dev=dev)


def test_numbers_and_layouts_are_those_of_the_kernels_header(tmp_path):
    """The header comes with the compiler that the simulated device needs."""
    source = tmp_path / "vfio.c"
    checks = [f"_Static_assert(VFIO_{name} == {number}, \"{name}\");" for number, name in IOCTLS.items()]
    structures = {"vfio_group_status": vfio.GROUP_STATUS, "vfio_region_info": vfio.REGION_INFO,
                  "vfio_irq_set": vfio.IRQ_SET, "vfio_iommu_type1_dma_map": vfio.DMA_MAP,
                  "vfio_iommu_type1_dma_unmap": vfio.DMA_UNMAP}
    checks += [f"_Static_assert(sizeof(struct {name}) == {layout.size}, \"{name}\");"
               for name, layout in structures.items()]
    values = {"VFIO_TYPE1v2_IOMMU": vfio.TYPE1V2_IOMMU, "VFIO_GROUP_FLAGS_VIABLE": vfio.GROUP_VIABLE,
              "VFIO_PCI_BAR0_REGION_INDEX": vfio.BAR0, "VFIO_PCI_CONFIG_REGION_INDEX": vfio.CONFIG,
              "VFIO_PCI_MSIX_IRQ_INDEX": vfio.MSIX, "VFIO_IRQ_SET_DATA_EVENTFD": vfio.DATA_EVENTFD,
              "VFIO_IRQ_SET_DATA_NONE": vfio.DATA_NONE, "VFIO_IRQ_SET_ACTION_TRIGGER": vfio.ACTION_TRIGGER,
              "VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE": vfio.MAP_READ_WRITE}
    checks += [f"_Static_assert(({name}) == {value}, \"{name}\");" for name, value in values.items()]
    source.write_text("#include <linux/vfio.h>\n" + "\n".join(checks) + "\n")
    run = subprocess.run(["gcc", "-fsyntax-only", str(source)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
