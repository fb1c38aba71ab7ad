"""`morphnic serve`: typed by a user, against the stand-in; every command works at the URLs that it prints."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from device_link import rundir
from tests.morphnic.conftest import ROOT
from tests.morphnic.test_command_line import one_line


@pytest.fixture
def serve(stand_in):
    """Starts `morphnic serve --device sim://stand-in ...`; gives its URLs, the first of which is its Unix socket."""
    processes = []

    def start(*arguments, variables=None):
        process = subprocess.Popen(
            [sys.executable, "-m", "morphnic", "serve", "--device", "sim://stand-in", *arguments, "--json"], cwd=ROOT,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | (variables or {}))
        processes.append(process)
        line = process.stdout.readline()
        assert line, process.stderr.read()
        return json.loads(line)["urls"]

    start.processes = processes
    yield start
    for process in processes:
        process.kill()
        process.communicate(timeout=20)


@pytest.mark.slow
def test_every_command_works_at_the_urls_that_are_printed(serve, typed, stand_in):
    urls = serve("--listen", "tcp://:0", "--listen", f"unix://{os.environ['XDG_RUNTIME_DIR']}/more.sock")
    assert [url.partition(":")[0] for url in urls] == ["unix", "unix", "tcp"]
    for number, url in enumerate(urls):
        found = json.loads(typed("info", "--device", url, "--json").stdout)
        assert found["identity"]["uid"] == 0x1234
        assert typed("regs", "write", "--device", url, f"id.scratch={number + 1}").returncode == 0
        assert stand_in.registers.get("id.scratch") == number + 1
        assert json.loads(typed("watch", "--device", url, "--windows", "1", "--json").stdout)["number"] == 9
        assert typed("test", "--device", url, "--only", "identity", "--only", "scratch").returncode == 0
    assert "the right to write" in one_line(typed("regs", "write", "--device", "sim://stand-in", "id.scratch=5"), 1)
    process = serve.processes[0]
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    assert [one.name for one in rundir.running()] == ["stand-in"]
    assert "start it with `morphnic serve`" in one_line(typed("info", "--device", urls[1]), 1)


@pytest.mark.slow
def test_right_of_a_killed_writer_goes_to_the_next(serve, typed):
    url = serve()[0]
    script = ("import device_link, time; "
              f"dev = device_link.open({url!r}, writer=True); print('x', flush=True); time.sleep(60)")
    holder = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert holder.stdout.readline() == "x\n"
    message = one_line(typed("regs", "write", "--device", url, "id.scratch=5"), 1)
    assert f"process {holder.pid}" in message
    holder.kill()
    holder.communicate()
    assert typed("regs", "write", "--device", url, "id.scratch=5").returncode == 0


@pytest.mark.slow
def test_killed_server_is_named_and_can_be_started_again(serve, typed):
    url = serve()[0]
    serve.processes[0].kill()
    serve.processes[0].wait()
    assert "no server answers" in one_line(typed("info", "--device", url), 1)
    deadline = time.monotonic() + 10
    while typed("info", "--device", serve()[0]).returncode and time.monotonic() < deadline:
        pass
    assert typed("info", "--device", url).returncode == 0


@pytest.mark.parametrize(("arguments", "message"), [
    (("--listen", "tcp://0.0.0.0:0"), "anybody could write the device: give --token-file FILE"),
    (("--listen", "tcp://[::]:0"), "can be reached from other machines"),
    (("--listen", "http://x"), "--listen must be tcp://[HOST][:PORT] or unix:///PATH"),
    (("--listen", "unix://x"), "--listen must be"),
    (("--listen", "tcp://:70000"), "with a port in 0..65535"),
    (("--listen", "tcp://no.such.host.invalid:1"), "there is no host"),
    (("--lease", "0"), "--lease must be over 0"),
    (("--timeout", "-1"), "--timeout must be over 0"),
    (("--name", "a/b"), "--name must be"),
    (("--tls-key", "x"), "need --tls-cert"),
    (("--tls-cert", "/nowhere"), "certificates cannot be used"),
    (("--token-file", "/nowhere"), "the token file /nowhere cannot be read"),
    (("--device", "sim://nobody"), "no simulated device 'nobody' runs"),
])
def test_wrong_arguments_start_no_server(typed, stand_in, arguments, message):
    given = arguments if "--device" in arguments else ("--device", "sim://stand-in", *arguments)
    done = typed("serve", *given)
    assert done.returncode in (1, 3)
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert [one.name for one in rundir.running()] == ["stand-in"]


def test_name_in_use_is_told_with_the_process(typed, stand_in):
    with rundir.claimed("taken"):
        message = one_line(typed("serve", "--device", "sim://stand-in", "--name", "taken"), 3)
    assert f"the name 'taken' is in use by process {os.getpid()}" in message


def test_port_in_use_is_told(typed, stand_in):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        message = one_line(typed("serve", "--device", "sim://stand-in", "--listen", f"tcp://:{port}"), 3)
    assert f"cannot listen on 127.0.0.1 port {port} (Address already in use)" in message


def test_device_that_another_holds_is_not_served(typed, stand_in):
    stand_in.hold()
    assert "the offload manager holds it" in one_line(typed("serve", "--device", "sim://stand-in"), 1)
