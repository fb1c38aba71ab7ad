"""A serial port that goes away and comes back, on a real pseudo-terminal: what became of writes, and the link again."""

import contextlib
import gc
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest
import serial

from device_link.framing import encode_frame
from device_link.operations import WindowPush
from device_link.outcome import Mark
from device_link.session import DeviceReset
from device_link.uart import open_uart
from device_link.window import Window, WindowRow
from morphnic.errors import DeviceBusy, DeviceNotFound, LinkError, LinkLost
from tests.device_link.line import RegisterModel
from tests.device_link.server import PluggedServer

LONG = 20.0  # seconds, where the link is expected to come back: how long it takes is the machine's affair


@pytest.fixture
def device(tmp_path):
    made = PluggedServer(RegisterModel(), tmp_path)
    yield made
    made.unplug()


def connect(device, timeout=LONG):
    return open_uart(device.path, url=f"uart://{device.path}", timeout=timeout, writer=True)


def replug(device):
    """Put the cable in again, once it is out."""
    def wait():
        assert device.pulled.wait(LONG)
        device.unplug()
        time.sleep(0.2)
        device.plug()

    device_thread = threading.Thread(target=wait)
    device_thread.start()
    return device_thread


@pytest.mark.parametrize(("pull", "outcome", "log"), [
    ("before", "not applied", []), ("behind", "applied", [(0x10, 7)])])
def test_cable_that_is_pulled_and_put_back_tells_what_became_of_the_write(device, pull, outcome, log):
    link = connect(device)
    device.pull = pull
    thread = replug(device)
    with pytest.raises(LinkLost, match=f"is: {outcome}$") as raised:
        link.write(0x10, 7)
    thread.join()
    assert raised.value.outcome == outcome
    assert device.registers.log == log
    device.pull = ""
    link.write(0x14, 8)
    assert link.read(0x10, 2) == [7 if log else 0, 8]
    assert device.registers.log == [*log, (0x14, 8)]


def test_port_that_stays_away_leaves_the_outcome_unknown_until_it_is_back(device):
    link = connect(device, timeout=0.3)
    mark = link.session.mark()
    device.pull = "behind"
    with pytest.raises(LinkLost, match="the link could not be opened again") as raised:
        link.write(0x10, 7)
    assert raised.value.outcome == "unknown"
    device.unplug()
    for _ in range(2):
        with pytest.raises(DeviceNotFound, match=f"there is no serial port {device.path}"):
            link.read(0x10)
    device.pull = ""
    device.plug()
    link.timeout = link.session.timeout = LONG
    assert link.session.outcome(mark) == "applied"
    assert link.read(0x10) == [7]
    assert device.registers.log == [(0x10, 7)]


def test_idle_port_that_was_unplugged_meanwhile_costs_one_exchange(device):
    link = connect(device)
    device.unplug()
    device.plug()
    with pytest.raises(LinkLost) as raised:
        link.write(0x10, 7)
    assert raised.value.outcome == "not applied"
    link.write(0x10, 8)
    assert device.registers.log == [(0x10, 8)]


def test_device_that_lost_its_power_with_its_cable_is_told_as_reset(device):
    link = connect(device)
    device.pull = "behind"
    thread = replug(device)
    device.responder.handle = _reset_behind(device)
    with pytest.raises(DeviceReset, match="the device was reset") as raised:
        link.write(0x10, 7)
    thread.join()
    assert raised.value.outcome == "unknown"
    device.pull = ""
    assert link.read(0x10) == [7], "the model keeps its words; what matters is that the link is back"
    assert link.boot_nonce == 0x1234


def _reset_behind(device):
    """The responder's `handle`, after which the device begins anew."""
    handle = device.responder.handle

    def carry_out(message):
        answer = handle(message)
        if message[0] == 1:
            device.responder.handle = handle
            device.responder.reset(0x1234)
        return answer

    return carry_out


def test_port_that_another_program_took_meanwhile_is_told_as_busy(device):
    link = connect(device, timeout=0.3)
    device.unplug()
    device.plug()
    with serial.Serial(device.path, exclusive=True):
        with pytest.raises(LinkLost):
            link.write(0x10, 7)
        with pytest.raises(DeviceBusy, match="in use by another program"):
            link.write(0x10, 7)
    link.timeout = link.session.timeout = LONG
    link.write(0x10, 9)
    assert device.registers.log == [(0x10, 9)]


def test_half_a_frame_from_before_does_not_spoil_the_first_one_after(device):
    link = connect(device)
    device.send(encode_frame(bytes(range(1, 60)))[:-20])
    device.unplug()
    device.plug()
    with pytest.raises(LinkLost):
        link.read(0)
    link.session.repeated = 0
    assert link.read(0x10) == [0]
    assert link.session.repeated == 0


def test_listener_gets_windows_again(device):
    link = connect(device)
    window = Window(7, 1 << 40, 1000, 3, 0, 9, (WindowRow(*range(16)),))
    device.unplug()
    with pytest.raises(LinkLost):
        link.windows(LONG)
    device.plug()
    assert link.windows() == []
    device.send(encode_frame(WindowPush(window.encode()).encode()))
    assert link.windows(LONG) == [window]


def terminals():
    """Descriptors of terminals that this process has open."""
    gc.collect()
    found = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found += os.readlink(f"/proc/self/fd/{name}").startswith("/dev/pt")
    return found


@pytest.mark.slow
def test_cable_pulled_at_random_writes_nothing_twice_and_tells_the_truth(device):
    """Each write is numbered; what was told of it must be what the registers saw, and no descriptor may leak."""
    seed = 11
    print(f"seed {seed}")
    rng, link = random.Random(seed), connect(device)
    descriptors = terminals()
    told, threads = {}, []
    for number in range(1, 41):
        if number % 4 == 0:
            device.pull = rng.choice(["before", "behind"])
            threads.append(replug(device))
        try:
            link.write(4 * number, number)
            told[number] = "applied"
        except LinkLost as error:
            told[number] = error.outcome
        if threads and device.pull:
            threads[-1].join()
        device.pull = ""
    numbers = [word for _, word in device.registers.log]
    assert len(set(numbers)) == len(numbers)
    assert {number for number, outcome in told.items() if outcome == "applied"} == set(numbers)
    assert set(told.values()) == {"applied", "not applied"}
    assert terminals() == descriptors


_HOST = """
import json, sys
from device_link.uart import open_uart
link = open_uart(sys.argv[1], url="uart://killed", timeout=60.0, writer=True)
for number in range(1, 1 << 30):
    mark = link.session.mark()
    print(json.dumps([number, mark.boot_nonce, mark.session, mark.sequence]), flush=True)
    link.write(0x10, number)
"""


@pytest.mark.slow
@pytest.mark.parametrize("answered", [True, False])
def test_write_of_a_host_that_was_killed_is_settled_by_its_mark(device, answered):
    """The host writes down where each write will stand; whoever comes after it asks the device."""
    host = subprocess.Popen([sys.executable, "-c", _HOST, device.path], stdout=subprocess.PIPE, text=True)
    lines = [host.stdout.readline() for _ in range(20)]
    device.answering = answered
    if not answered:  # it waits for an answer now, or soon
        deadline = time.monotonic() + LONG
        while device.responder.repeats == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert device.responder.repeats > 0
    host.send_signal(signal.SIGKILL)
    lines += host.stdout.readlines()
    host.wait()
    device.answering = True
    number, *mark = json.loads([line for line in lines if line.endswith("\n")][-1])
    link = connect(device)
    written = link.read(0x10)[0]
    assert link.session.outcome(Mark(*mark)) == ("applied" if written == number else "not applied")
    if not answered:
        assert written == number, "it was carried out, and its answer lost"
    assert [word for _, word in device.registers.log] == list(range(1, written + 1)), "none twice, none left out"


def test_line_that_cannot_be_opened_again_says_so():
    from tests.device_link.line import LineModel

    with pytest.raises(LinkError, match="cannot be opened again by itself"):
        LineModel().reopen(1.0)
