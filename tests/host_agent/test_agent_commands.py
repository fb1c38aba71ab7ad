"""`morphnic agent ...` as a user types it, against a stand-in manager over HTTP."""

import json
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from device_link import discovery
from device_link.discovery import Candidate
from device_link.selftest import longest
from host_agent.client import SELFTEST_S
from offload_manager import api
from offload_manager.service import CALL_TIMEOUT
from tests.host_agent.manager import (
    Manager,
    allocation,
    answer,
    decision,
    device,
    event,
    loop,
    problem,
    row,
    selftest,
    window,
)
from tests.morphnic.test_command_line import one_line

ROOT = Path(__file__).parents[2]


@pytest.fixture
def nobody(home, monkeypatch):
    """An address at which nobody listens."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))  # bound, not listening: refused, and nobody else gets the port
        url = f"http://127.0.0.1:{holder.getsockname()[1]}"
        monkeypatch.setenv("MORPHNIC_MANAGER_URL", url)
        yield url


@pytest.mark.parametrize("command", [
    ("status",), ("allocation",), ("selftest",), ("watch", "--once"),
    ("request", "3", "--weight", "+25%"), ("run", "--once", "--interval", "0.05")])
def test_manager_that_is_away_is_named_with_the_command_that_starts_it(typed, nobody, command):
    message = one_line(typed("agent", *command), 3)
    assert nobody in message
    assert "morphnic manager --device" in message


def test_what_is_no_manager_is_said(typed, manager):
    manager.answers["GET", "/v1/health"] = (404, b"<html>not found</html>")
    assert "no offload manager (HTTP 404" in one_line(typed("agent", "status"), 3)
    manager.answers["GET", "/v1/health"] = (200, b"hello")
    assert "no offload manager (no JSON" in one_line(typed("agent", "status"), 3)


def test_another_major_version_is_refused(typed, manager):
    document = json.loads(manager.answers["GET", "/v1/health"].model_dump_json(by_alias=True)) | {"schema": "2.0"}
    manager.answers["GET", "/v1/health"] = (200, json.dumps(document).encode())
    assert "update the older side" in one_line(typed("agent", "status"), 3)


def test_unknown_fields_of_a_newer_manager_are_no_fault(typed, manager):
    document = json.loads(manager.answers["GET", "/v1/health"].model_dump_json(by_alias=True))
    manager.answers["GET", "/v1/health"] = (200, json.dumps(document | {"schema": "1.9", "new": 1}).encode())
    assert typed("agent", "status").returncode == 0


def test_status_in_words_and_as_document(type_command, manager):
    done = type_command("agent", "status")
    assert done.returncode == 0, done.stderr
    assert "running, policy latency, window 12; 5 commits, 1 rollbacks, 2 refusals" in done.stdout
    assert "none has published itself in" in done.stdout
    found = json.loads(type_command("agent", "status", "--json").stdout)
    assert (found["kind"], found["agent_pid"], found["loop"]["commits"]) == ("agent-status", None, 5)


def test_status_of_a_failed_manager_exits_1(typed, manager):
    manager.answers["GET", "/v1/health"] = api.Health(
        status="failed", detail="the device does not answer", version="0.1.0", device="sim://x", loop="failed",
        window=None)
    done = typed("agent", "status")
    assert done.returncode == 1
    assert "the device does not answer" in done.stdout


def test_allocation_in_words_and_as_document(typed, manager):
    done = typed("agent", "allocation")
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert done.stdout.startswith("epoch 3, decision 7\n")
    assert lines[2] == ["0", "4096", "25.0%", "65536", "512", "4", "0xf", "0x0", "0%"]
    assert lines[3] == ["3", "12288", "75.0%", "16384", "512", "4", "0xf", "0x2", "25%"]
    found = json.loads(typed("agent", "allocation", "--json").stdout)
    assert (found["kind"], found["schema"], found["epoch"]) == ("agent-allocation", "1.0", 3)
    assert found["rows"][1]["weight"] == 12288


def test_allocation_says_that_a_table_awaits_its_confirmation_and_has_no_shares_of_nothing(typed, manager):
    manager.answers["GET", "/v1/allocation"] = allocation(awaiting_confirmation=True, tag=0, rows=[row(0, weight=0)])
    lines = typed("agent", "allocation").stdout.splitlines()
    assert lines[0] == "epoch 3, decision none, awaiting confirmation"
    assert lines[2].split()[:3] == ["0", "0", "-"]


@pytest.mark.parametrize(("outcomes", "code"), [
    ({"link": ("pass", ""), "dma": ("skip", "the link has no DMA")}, 0),
    ({"link": ("warn", "slow")}, 0), ({"link": ("pass", ""), "dma": ("fail", "memory was written")}, 1)])
def test_selftest_is_the_managers_and_fails_when_a_test_does(typed, manager, outcomes, code):
    manager.answers["POST", "/v1/selftest"] = selftest(**outcomes)
    done = typed("agent", "selftest")
    assert done.returncode == code, done.stderr
    shown = [line.split(maxsplit=3) for line in done.stdout.splitlines()]
    assert [(one[0], one[3]) for one in shown] == [
        (outcome, name + (f": {message}" if message else "")) for name, (outcome, message) in outcomes.items()]
    kinds = [outcome for outcome, _ in outcomes.values()]
    assert f"sim://x: {kinds.count('pass')} pass, {kinds.count('warn')} warn, {kinds.count('fail')} fail" in done.stderr
    found = json.loads(typed("agent", "selftest", "--only", "dma", "--json").stdout)
    assert [one["outcome"] for one in found["results"]] == kinds
    assert [body["only"] for body in manager.posted("/v1/selftest")] == [[], ["dma"]]


def test_selftest_that_the_manager_refuses_names_the_reason(typed, manager):
    manager.answers["POST", "/v1/selftest"] = problem(409, "a table awaits its confirmation", "try again")
    assert "a table awaits its confirmation; try again" in one_line(typed("agent", "selftest"), 1)


def test_agent_waits_longer_than_the_manager_may_take_for_a_self_test():
    assert longest() + CALL_TIMEOUT < SELFTEST_S


@pytest.fixture
def functions(monkeypatch):
    """Two functions on the bus, of which a driver has the first."""
    found = [Candidate("pcie://0000:02:00.0", "pcie", "Morphnic PCIe function", {"driver": "other"},
                       in_use="driver other"),
             Candidate("pcie://0000:03:00.0", "pcie", "Morphnic PCIe function", {"driver": "vfio-pci"})]
    monkeypatch.setattr(discovery, "SOURCES", (lambda: iter(found),))
    return found


def test_devices_are_found_and_the_managers_is_described(typed, manager, functions):
    manager.answers["GET", "/v1/device"] = device(url="pcie://0000:03:00.0")
    done = typed("agent", "devices")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[1].split("  ")[0] == "pcie://0000:02:00.0"
    assert lines[1].endswith("driver other")
    assert lines[2].startswith("pcie://0000:03:00.0")
    assert lines[2].endswith("the manager")
    assert "uid         0x00000000000000ab   boot 0x00000005" in lines
    assert "allocation  epoch 3, decision 7" in lines
    found = json.loads(typed("agent", "devices", "--json").stdout)
    assert [one["managed"] for one in found["devices"]] == [False, True]
    assert (found["device"]["uid"], found["epoch"], found["manager_away"]) == ("00000000000000ab", 3, None)


def test_devices_are_found_without_a_manager_which_is_said(typed, nobody, functions):
    done = typed("agent", "devices")
    assert done.returncode == 0
    assert "pcie://0000:03:00.0" in done.stdout
    assert nobody in done.stderr
    found = json.loads(typed("agent", "devices", "--json").stdout)
    assert ([one["managed"] for one in found["devices"]], found["device"]) == ([False, False], None)
    assert nobody in found["manager_away"]


def test_devices_are_found_when_the_manager_has_lost_its_own(typed, manager, functions):
    manager.answers["GET", "/v1/device"] = problem(503, "the device does not answer")
    done = typed("agent", "devices")
    assert done.returncode == 0
    assert "pcie://0000:03:00.0" in done.stdout
    assert "the device does not answer" in done.stderr


def test_host_without_a_device_says_so(typed, manager, monkeypatch):
    monkeypatch.setattr(discovery, "SOURCES", ())
    done = typed("agent", "devices")
    assert (done.returncode, "no device is found" in done.stderr) == (0, True)


@pytest.mark.parametrize(("words", "resource", "direction", "amount"), [
    (("--weight", "+25%"), "bandwidth", "more", 25.0), (("--weight", "12.5"), "bandwidth", "more", 12.5),
    (("--weight=-10%",), "bandwidth", "less", 10.0), (("--weight", "10%", "--less"), "bandwidth", "less", 10.0),
    (("--pages", "4"), "pages", "more", 4.0), (("--pages", "4", "--less"), "pages", "less", 4.0),
    (("--slots", "+1"), "slots", "more", 1.0), (("--rate", "5%"), "rate", "more", 5.0),
    (("--host-share", "50%"), "host_share", "more", 50.0),
])
def test_request_says_what_was_typed(typed, manager, words, resource, direction, amount):
    done = typed("agent", "request", "vm3", *words, "--reason", "nightly backup")
    assert done.returncode == 0, done.stderr
    assert manager.posted("/v1/requests") == [{
        "schema": "1.0", "tenant": 3, "resource": resource, "direction": direction, "amount": amount,
        "note": "nightly backup"}]


def test_granted_request_shows_before_and_after(typed, manager):
    done = typed("agent", "request", "3", "--weight", "+25%")
    assert done.stdout == "granted: tenant 3 bandwidth 10% -> 35% (decision 42)\n"


def test_refused_request_exits_1_with_reason_and_alternative(type_command, manager):
    manager.answers["POST", "/v1/requests"] = answer(
        granted=False, reason="capacity", detail="the weights of all tenants would exceed the capacity", after=10.0,
        alternative=15.0, decision=None)
    done = type_command("agent", "request", "3", "--weight", "+25%")
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout == (
        "refused (capacity): tenant 3 bandwidth stays 10%: the weights of all tenants would exceed the capacity; "
        "at most 15% would have been granted\n")
    done = type_command("agent", "request", "3", "--weight", "+25%", "--json")
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert (found["schema"], found["kind"], found["granted"]) == ("1.0", "agent-request", False)


@pytest.mark.parametrize(("words", "message"), [
    (("3", "--weight", "much"), "--weight must be an amount over 0 such as +25%, not 'much'"),
    (("3", "--weight", "0%"), "must be an amount over 0"),
    (("3", "--pages", "5%"), "--pages must be an amount over 0 such as 4, not '5%'"),
    (("3", "--pages", "1.5"), "--pages must be a whole number"),
    (("3", "--weight", "+5%", "--less"), "asks for more and less at once"),
    (("3",), "one of the arguments --weight --rate --host-share --pages --slots is required"),
    (("3", "--weight", "1%", "--pages", "1"), "not allowed with argument"),
    (("3", "--weight", "1%", "--reason", "x" * 201), "--reason must be at most 200 characters"),
    (("vm9", "--weight", "1%"), "no tenant 'vm9'; it has 0 (host), 3 (vm3)"),
    (("16", "--weight", "1%"), "no tenant '16'"),
])
def test_wrong_request_is_not_sent(typed, manager, words, message):
    assert message in one_line(typed("agent", "request", *words), 1)
    assert manager.posted("/v1/requests") == []


def test_problem_of_the_manager_is_told_with_its_remedy(typed, manager):
    manager.answers["POST", "/v1/requests"] = problem(503, "the device does not answer", "see `morphnic list`")
    message = one_line(typed("agent", "request", "3", "--weight", "+25%"), 1)
    assert "the manager refused: the device does not answer; see `morphnic list`" in message


def test_watch_into_a_pipe_prints_one_table(typed, manager):
    done = typed("agent", "watch")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "window 12, epoch 3" in lines[0]
    assert "Jain 0.987" in lines[0]
    vm3 = next(line for line in lines if line.split()[:2] == ["3", "vm3"])
    # 50,000 bytes in 100,000 cycles at 100 MHz: 50 MB/s; 250 cycles: 2.5 us
    for cell in ("50 MB/s", "40 MB/s", "25.0%", "2.5 us", "10.0 us", "bandwidth"):
        assert cell in vm3
    assert any("t3 weight 100->200" in line and "tenant 3 misses its objective" in line for line in lines)
    assert any("rolled back" in line for line in lines)


def test_watch_before_the_first_window_shows_dashes(typed, manager):
    del manager.answers["GET", "/v1/window"]
    done = typed("agent", "watch", "--once")
    assert done.returncode == 0, done.stderr
    vm3 = next(line for line in done.stdout.splitlines() if line.split()[:2] == ["3", "vm3"])
    assert "MB/s" not in vm3


def test_watch_once_as_document(typed, manager):
    found = json.loads(typed("agent", "watch", "--once", "--json").stdout)
    assert [one["name"] for one in found["tenants"]] == ["host", "vm3"]
    assert [one["id"] for one in found["decisions"]] == [2, 1]


def test_watch_as_json_prints_every_event_until_the_manager_ends(typed, manager):
    manager.events = [
        ": a comment to keep the line open\n\n",
        event("window", api.WindowEvent(window=12, report=window())),
        event("decision", api.DecisionEvent(window=12, decision=decision(3))),
        event("something-new", api.LoopEvent(window=12, loop=loop())),
        event("loop", api.LoopEvent(window=12, loop=loop(state="paused"))),
    ]
    done = typed("agent", "watch", "--json")
    assert done.returncode == 3
    assert "ended its events" in done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["kind"] for one in found] == ["agent-watch-window", "agent-watch-decision", "agent-watch-loop"]
    assert found[1]["decision"]["id"] == 3
    assert found[2]["loop"]["state"] == "paused"


def test_figures_of_this_host_need_no_manager(typed, nobody, home):
    (home / "config/morphnic/config.toml").write_text(
        '[agent.tenants.3]\nprocess = "there-is-no-such-process"\nname = "web"\n')
    done = typed("agent", "figures", "--interval", "0.05")
    assert done.returncode == 0, done.stderr
    assert "tenant 3: everything: no process named 'there-is-no-such-process' runs" in done.stdout
    found = json.loads(typed("agent", "figures", "--interval", "0.05", "--json").stdout)
    host, web = found["tenants"]
    assert host["figures"]["memory_bytes"]["value"] > 0
    assert (web["name"], web["figures"]["cpu_percent"]["value"]) == ("web", None)


def test_baseline_that_was_never_made_is_an_error_with_the_remedy(typed):
    assert "`host-agent run` makes one" in one_line(typed("agent", "baseline"), 1)


def test_run_once_sends_one_report(typed, manager):
    done = typed("agent", "run", "--once", "--interval", "0.05")
    assert done.returncode == 0, done.stderr
    (report,) = manager.posted("/v1/host-figures")
    assert report["host"] == socket.gethostname()
    assert [one["tenant"] for one in report["tenants"]] == [0]
    assert 0 <= report["tenants"][0]["memory_pressure"] <= 1


def start_agent(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "morphnic", "agent", "run", "--interval", "0.05", "--baseline-intervals", "3",
         "--log-format", "json", *arguments],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def stop_agent(agent, number=signal.SIGTERM):
    agent.send_signal(number)
    out, err = agent.communicate(timeout=30)
    assert agent.returncode == 0, err
    assert "Traceback" not in err
    return [json.loads(line) for line in err.splitlines()], out


@pytest.mark.slow
def test_daemon_reports_makes_its_baseline_and_ends_on_sigterm(type_command, manager):
    agent = start_agent()
    try:
        reports = manager.wait_for("/v1/host-figures", 6)
        status = json.loads(type_command("agent", "status", "--json").stdout)
        assert status["agent_pid"] == agent.pid
        second = type_command("agent", "run", "--interval", "0.05")
        assert f"runs already (process {agent.pid})" in one_line(second, 1)
    finally:
        log, out = stop_agent(agent)
    assert out == ""
    assert [one["sequence"] for one in reports] == list(range(len(reports)))
    assert sum(one["baseline"] for one in reports) == 1
    assert any(line["message"].startswith("reporting to the manager") and line["window"] == 12 for line in log)
    assert json.loads(type_command("agent", "status", "--json").stdout)["agent_pid"] is None
    kept = json.loads(type_command("agent", "baseline", "--json").stdout)
    assert (kept["intervals"], kept["complete"]) == (3, True)
    assert kept["tenants"]["0"]["memory_bytes"]["count"] == 3
    assert "memory_bytes" in type_command("agent", "baseline").stdout


def turn_one_away(port):
    """Return once the agent has found the manager gone: one connection is closed without an answer."""
    with socket.socket() as closed:
        closed.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        closed.bind(("127.0.0.1", port))
        closed.listen()
        closed.settimeout(30)
        closed.accept()[0].close()


@pytest.mark.slow
def test_daemon_goes_on_when_the_manager_comes_and_goes(home, monkeypatch):
    first = Manager()
    monkeypatch.setenv("MORPHNIC_MANAGER_URL", first.url)
    agent = start_agent()
    try:
        first.wait_for("/v1/host-figures", 5)
        first.close()
        turn_one_away(first.port)
        second = Manager(first.port)
        try:
            reports = second.wait_for("/v1/host-figures", 3)
        finally:
            second.close()
    finally:
        log, _ = stop_agent(agent, signal.SIGINT)
    assert reports[0]["baseline"], "a manager that comes back is told the baseline first"
    assert reports[0]["sequence"] > 5
    assert any("collecting goes on" in line["message"] for line in log)


def test_manager_at_a_unix_socket_is_reached(typed, manager, home, monkeypatch):
    """A relay stands between: the socket of a manager that listens on unix:PATH."""
    path = home / "s"
    relay = socket.socket(socket.AF_UNIX)
    relay.bind(str(path))
    relay.listen()

    def serve():
        while True:
            try:
                peer, _ = relay.accept()
            except OSError:
                return
            with peer, socket.create_connection(("127.0.0.1", manager.port)) as behind:
                behind.sendall(peer.recv(1 << 16))
                while data := behind.recv(1 << 16):
                    peer.sendall(data)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    monkeypatch.setenv("MORPHNIC_MANAGER_URL", f"unix:{path}")
    try:
        done = typed("agent", "status")
    finally:
        relay.shutdown(socket.SHUT_RDWR)
        relay.close()
        thread.join()
    assert done.returncode == 0, done.stderr
    assert f"unix:{path}" in done.stdout
