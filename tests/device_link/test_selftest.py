"""The self-test: what it says of a sound device, and of each fault that it looks for."""

import os
import time

import pytest

from device_link import selftest
from device_link.device import Device
from device_link.linked import SessionTransport
from device_link.pcie.function import HostMemory
from device_link.selftest import SELFTESTS, run_selftest
from device_link.transport import Capability
from gateware.config import DeviceConfig
from morphnic.errors import InputError
from tests.device_link.device_model import DeviceModel, DirectPipe
from tests.device_link.test_conformance import lost_packet


class TimedModel(DeviceModel):
    """A model whose time is real, at `hertz`."""

    def __init__(self, hertz=100_000_000, **options):
        super().__init__(**options)
        self._began, self._hertz = time.perf_counter(), hertz

    def read(self, address):
        word = super().read(address)
        now = int((time.perf_counter() - self._began) * self._hertz)
        low, high = (self.map.register(f"id.cycle_{half}").address for half in ("lo", "hi"))
        return {low: now & 0xFFFFFFFF, high: now >> 32}.get(address, word)


def good_model(**options):
    model = TimedModel(**options)
    # Each row has weight after reset: the model of the resource manager gives tenant 0 everything.
    model.poke("slot[0].shard", 1)
    read = model.read

    def windows_pass(address):
        if address == model.map.register("analyzer.sequence").address:
            model.poke("analyzer.sequence", model.peek("analyzer.sequence") + 1)
        return read(address)

    model.read = windows_pass
    return model


def outcomes(model, *, writer=True, **options):
    device = Device(SessionTransport(DirectPipe(model), url="test://model", writer=writer, seed=1))
    return {one.name: (str(one.outcome), one.message) for one in run_selftest(device, **options).results}


@pytest.mark.parametrize("config", [DeviceConfig(), DeviceConfig(tenants=2, ports=2, slots=1, pages=32)])
def test_sound_device_passes_every_test(config):
    found = outcomes(good_model(config=config))
    assert {found.pop(name) for name in ("dma", "interrupts")} == {
        ("skip", "the link has no DMA"), ("skip", "the link has no INTERRUPTS")}
    assert found == {check.name: ("pass", "") for check in SELFTESTS if check.name in found}


def test_device_is_left_as_it_was_found():
    model = good_model()
    model.poke("id.scratch", 7)
    outcomes(model)
    assert model.peek("id.scratch") == 7
    assert model.peek("generator.control") == 0


def test_nothing_is_written_to_a_device_opened_for_reading():
    model = good_model()
    model.write = lambda address, word: pytest.fail(f"{address:#x} was written")
    found = outcomes(model, writer=False)
    assert {name for name, (outcome, _) in found.items() if outcome == "skip"} == {
        "scratch", "traffic", "dma", "interrupts"}
    assert all(outcome in ("pass", "skip") for outcome, _ in found.values())


def failing(model):
    """Frames that arrive damaged now and then."""
    model.poke("link.crc_errors", model.peek("link.crc_errors") + 1)


def slow(model):
    own = model.read
    model.read = lambda address: (time.sleep(0.006) if address == 0 else None, own(address))[1]


def damaging(model):
    own = model.read
    model.read = lambda address: (failing(model) if address == 0 else None, own(address))[1]


def dead_bit(model):
    own = model.write
    model.write = lambda address, word: own(address, word & ~4)


def losing(model):
    own = model._generate
    model._generate = lambda word: lost_packet(own, model, word)


def still(model):
    own = model.read
    low = model.map.register("id.cycle_lo").address
    model.read = lambda address: 5 if address == low else own(address)


def no_windows(model):
    own = model.read
    sequence = model.map.register("analyzer.sequence").address
    model.read = lambda address: 9 if address == sequence else own(address)


FAULTS = [
    ("link", slow, "warn", "an exchange takes"),
    ("link", damaging, "warn", "link.crc_errors rose by 20"),
    ("clock", still, "fail", "stands still"),
    ("scratch", dead_bit, "fail", "id.scratch is"),
    ("allocation", lambda model: model.manager.active_table[0].update(weight=0), "fail", "no tenant has any weight"),
    ("allocation", lambda model: [row.update(weight=65535) for row in model.manager.active_table], "fail",
     "over rm.weight_capacity"),
    ("allocation", lambda model: setattr(model.manager, "state", 2), "warn", "a transaction is open"),
    ("allocation", lambda model: vars(model.manager).update(state=3, confirm_left=10**9), "warn",
     "awaits its confirmation"),
    ("traffic", losing, "fail", "generator."),
    ("slots", lambda model: model.poke("slot[1].status", 4), "fail", "engine slot 1: a request took longer"),
    ("slots", lambda model: model.poke("slot[0].shard", 0), "skip", "no engine slot has a shard"),
    ("windows", lambda model: model.poke("analyzer.window", 0), "skip", "the analyzer is off"),
    ("losses", lambda model: model.poke("port[2].cut", 3), "warn", "port[2].cut 3"),
]


@pytest.mark.parametrize(("name", "fault", "outcome", "words"), FAULTS,
                         ids=[f"{number}-{fault[0]}" for number, fault in enumerate(FAULTS)])
def test_each_fault_is_told(name, fault, outcome, words):
    model = good_model()
    fault(model)
    found, message = outcomes(model, only=[name])[name]
    assert (found, words in message) == (outcome, True), message


# --- DMA and interrupts ---

PCIE = DeviceConfig(tenants=2, pcie_width=64)
READ, WRITE = 1, 2


class DmaModel(TimedModel):
    """A model whose `dma` block moves bytes of `memory`, mapped at bus address `BUS`, and interrupts at the end."""

    BUS = 0x1234_5000

    def __init__(self):
        super().__init__(config=PCIE)
        self.memory, self.buffer, self.events = bytearray(), bytearray(4096), []
        self.written = {}  # every register that was ever written, with its value before

    def write(self, address, word):
        self.written.setdefault(address, self.words.get(address, 0))
        super().write(address, word)
        if address == self.map.register("dma.command").address:
            self.poke("dma.status", self.transfer(word) << 8)
            self.interrupt()

    def transfer(self, command):
        """The outcome, 1 without a region of the owner's that has all bytes."""
        start, size = self.peek("dma.address_lo") | self.peek("dma.address_hi") << 32, self.peek("dma.length")
        for number in range(8):
            row = f"region[{8 * (self.peek('dma.owner') & 63) + number}]"
            base, length, bus = (self.peek(f"{row}.{name}_lo") | self.peek(f"{row}.{name}_hi") << 32
                                 for name in ("base", "size", "bus"))
            if self.peek(f"{row}.rights") & 3 and base <= start and start + size <= base + length:
                self.move(command, start - base + bus - self.BUS, size)
                return 0
        return 1

    def move(self, command, at, size):
        if command == READ:
            self.buffer[:size] = self.memory[at:at + size]
        else:
            self.memory[at:at + size] = self.buffer[:size]

    def interrupt(self):
        if self.events:
            os.eventfd_write(self.events[3], 1)


class DmaTransport(SessionTransport):
    """A session, with memory and interrupts of the model's."""

    def __init__(self, model):
        super().__init__(DirectPipe(model), url="test://model", writer=True, seed=1)
        self.model = model
        self.capabilities |= Capability.DMA | Capability.INTERRUPTS

    def _map_memory(self, size):
        self.model.memory = bytearray(size)
        return HostMemory(memoryview(self.model.memory), self.model.BUS, lambda: None)

    def _interrupts(self, count):
        for event in self.model.events:
            os.close(event)
        self.model.events = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(count)]
        return list(self.model.events)


def dma_outcomes(model):
    results = run_selftest(Device(DmaTransport(model)), only=["dma", "interrupts"], timeout=0.5).results
    assert not model.events
    return {one.name: (str(one.outcome), one.message) for one in results}


def test_dma_and_interrupts_of_a_sound_device_pass_and_all_is_put_back():
    model = DmaModel()
    model.poke("region[0].rights", 3)  # somebody's: not to be touched
    model.poke("region[1].base_lo", 77)
    model.poke("dma.length", 5)
    assert dma_outcomes(model) == {"dma": ("pass", ""), "interrupts": ("pass", "")}
    command = model.map.register("dma.command").address
    assert {at: model.words[at] for at in model.written if at != command} == {
        at: before for at, before in model.written.items() if at != command}
    assert model.map.register("region[0].rights").address not in model.written
    assert model.map.register("region[1].rights").address in model.written


def off_by_one(model):
    move = model.move
    model.move = lambda command, at, size: move(command, at + 1, size)


def short(model):
    move = model.move
    model.move = lambda command, at, size: move(command, at, size - 1)


def unguarded(model):
    own = model.transfer

    def transfer(command):
        outcome = own(command)
        if outcome:
            at = model.peek("dma.address_lo")
            model.move(command, at, model.peek("dma.length"))
        return outcome
    model.transfer = transfer


def told_as_done(model):
    own = model.transfer
    model.transfer = lambda command: own(command) * 0


def stuck(model):
    own = model.transfer
    model.transfer = lambda command: model.poke("dma.status", 1) or own(command)
    poke = model.poke
    model.poke = lambda name, word: poke(name, 1 if name == "dma.status" else word)


def twice(model):
    own = model.interrupt
    model.interrupt = lambda: (own(), own())


def elsewhere(model):
    model.interrupt = lambda: [os.eventfd_write(event, 1) for event in model.events[2:4]]


def occupied(model):
    for number in range(8):
        model.poke(f"region[{number}].rights", 1)


@pytest.mark.parametrize(("name", "fault", "outcome", "words"), [
    ("dma", off_by_one, "fail", "memory does not hold"), ("dma", short, "fail", "memory does not hold"),
    ("dma", unguarded, "fail", "memory was written that was not granted"),
    ("dma", told_as_done, "fail", "a byte beyond what was granted is 0x0, not 0x1"),
    ("dma", stuck, "fail", "the end of a transfer did not happen within 0.5 s"),
    ("dma", occupied, "skip", "all 8 rows"),
    ("interrupts", lambda model: setattr(model, "interrupt", lambda: None), "fail", "no interrupt came"),
    ("interrupts", twice, "fail", "the number of interrupts of one transfer is 0x2, not 0x1"),
    ("interrupts", elsewhere, "fail", "a vector interrupted whose cause did not occur")])
def test_each_fault_of_dma_and_interrupts_is_told(monkeypatch, name, fault, outcome, words):
    monkeypatch.setattr(selftest, "INTERRUPT_SECONDS", 0.05)
    model = DmaModel()
    fault(model)
    found, message = dma_outcomes(model)[name]
    assert (found, words in message) == (outcome, True), message


def test_clock_that_differs_from_what_is_told_is_a_warning_with_both_rates():
    outcome, message = outcomes(good_model(hertz=90_000_000), only=["clock"])["clock"]
    assert outcome == "warn"
    measured = float(message.partition("runs at ")[2].partition(" MHz")[0])
    assert 80 < measured < 100
    assert "id.clock tells 100 MHz" in message


def test_time_that_is_granted_is_not_compared():
    device = Device(SessionTransport(DirectPipe(good_model()), url="test://model", seed=1))
    device.transport.capabilities |= Capability.TIME_GRANTS
    (result,) = run_selftest(device, only=["clock"]).results
    assert str(result.outcome) == "skip"


def test_test_that_waits_gives_up_at_its_time_out_and_the_others_go_on():
    model = good_model()
    no_windows(model)
    started = time.monotonic()
    found = outcomes(model, only=["windows", "slots"], timeout=0.2)
    assert found["windows"][0] == "fail"
    assert "within 0.2 s" in found["windows"][1]
    assert found["slots"] == ("pass", "")
    assert time.monotonic() - started < 2


def test_test_that_took_too_long_has_failed():
    model = good_model()
    slow(model)
    assert outcomes(model, only=["link"], timeout=0.05)["link"][0] in ("fail", "warn")
    model = good_model()
    own = model.read
    model.read = lambda address: (time.sleep(0.003) if address == 0 else None, own(address))[1]
    outcome, message = outcomes(model, only=["link"], timeout=0.03)["link"]
    assert outcome == "fail"
    assert "may take 0.03 s" in message


def test_unknown_test_is_refused_with_those_that_exist():
    with pytest.raises(InputError, match="no self-test nonsense; there are identity"):
        outcomes(good_model(), only=["nonsense"])
