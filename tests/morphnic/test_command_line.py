"""The command line as a user types it: exit codes, one line an error, data on stdout only."""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from morphnic.main import PROGRAM
from morphnic.program import Command, Program
from morphnic.version import __version__

ROOT = Path(__file__).parents[2]


def one_line(done, code):
    """The single error line, after checking exit code and silence of stdout."""
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("morphnic: ")]
    assert len(errors) == 1, done.stderr
    return errors[0]


def test_help_names_every_command_and_exit_code(type_command):
    done = type_command("--help")
    assert done.returncode == 0
    assert done.stderr == ""
    for name, command in PROGRAM.commands.items():
        assert f"  {name} " in done.stdout
        assert command.help in done.stdout
    assert "130 interrupted" in done.stdout


def test_version(type_command):
    assert type_command("--version").stdout == f"morphnic {__version__}\n"


@pytest.mark.parametrize("name", ["doctor", "list", "info", "regs", "watch"])
def test_each_command_explains_itself_with_the_global_flags(typed, name):
    done = typed(name, "--help")
    assert done.returncode == 0, done.stderr
    for flag in ("--json", "--verbose", "--log-format", "--config"):
        assert flag in done.stdout


def test_command_that_does_not_exist_suggests_a_close_one(typed):
    assert "did you mean 'list'?" in one_line(typed("lst"), 1)


def test_missing_command_exits_1_with_the_help(typed):
    done = typed()
    assert "a command is missing" in one_line(done, 1)
    assert "commands:" in done.stderr


def test_unknown_flag_is_the_users_fault_not_a_build_failure(typed):
    assert "unrecognized arguments: --frob" in one_line(typed("list", "--frob"), 1)


def test_bad_toml_names_file_and_line(type_command, home):
    path = home / "config" / "morphnic" / "config.toml"
    path.write_text("[manager]\nurl = \n")
    message = one_line(type_command("doctor"), 1)
    assert str(path) in message
    assert "line 2" in message


def test_unknown_key_names_file_and_key(typed, home):
    path = home / "mine.toml"
    path.write_text("[agent]\nintervall = 2\n")
    message = one_line(typed("--config", str(path), "doctor"), 1)
    assert f"{path}: unknown key 'agent.intervall'; did you mean 'agent.interval'?" in message


def test_bad_flag_value_names_the_flag(typed):
    assert "--log-format: log_format must be 'text' or 'json'" in one_line(
        typed("doctor", "--log-format", "xml"), 1)


def test_no_device_is_an_error_with_the_remedy(type_command):
    message = one_line(type_command("info"), 1)
    assert "no device is found" in message
    assert "morphnic sim run" in message


def test_list_without_devices_is_no_failure(typed):
    done = typed("list")
    assert (done.returncode, done.stdout) == (0, "")
    assert json.loads(typed("list", "--json").stdout) == {"schema": "1.0", "kind": "list", "devices": []}


@pytest.mark.parametrize("order", [("--json", "list"), ("list", "--json")])
def test_global_flag_works_before_and_after_the_command(typed, order):
    assert json.loads(typed(*order).stdout)["kind"] == "list"


def test_log_goes_to_stderr_in_json_and_leaves_stdout_alone(type_command):
    done = type_command("list", "--json", "-vv", "--log-format", "json",
                        variables={"MORPHNIC_DEVICEE": "x"})
    json.loads(done.stdout)
    (line,) = (json.loads(line) for line in done.stderr.splitlines())
    assert line["schema"] == "1.0"
    assert "did you mean MORPHNIC_DEVICE?" in line["message"]


def test_closed_pipe_is_no_error(home):
    """`| true`: the reader is gone before the first line."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run([sys.executable, "-m", "morphnic", "list", "--json"], stdout=writer,
                              stderr=subprocess.PIPE, text=True, cwd=ROOT, timeout=60, check=False)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_interrupt_exits_130_without_a_traceback(stand_in):
    stand_in.registers.set("analyzer.sequence", 0)  # no window ever ends: watch waits
    waiting = subprocess.Popen([sys.executable, "-m", "morphnic", "watch", "--timeout", "60"], cwd=ROOT,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    sequence = stand_in.registers.map.register("analyzer.sequence").address
    polls = []
    stand_in.registers.on_read = lambda address: polls.append(address) if address == sequence else None
    deadline = time.monotonic() + 30
    while len(polls) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    waiting.send_signal(signal.SIGINT)
    out, err = waiting.communicate(timeout=30)
    assert waiting.returncode == 130, err
    assert (out, err) == ("", "morphnic: interrupted\n")


def test_missing_extra_names_the_package_and_the_line_to_type(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "numpy", None)
    program = Program("morphnic", "", {"x": Command("numpy.fft", "")})
    assert program.main(["x"]) == 3
    assert "pip install 'morphnic[manager]'" in capsys.readouterr().err


def test_a_missing_module_of_our_own_is_a_bug_and_shows_itself():
    with pytest.raises(ModuleNotFoundError):
        Program("morphnic", "", {"x": Command("morphnic.commands.nothing", "")}).main(["x"])


def test_every_registered_command_can_be_imported():
    def import_all(program):
        for command in program.commands.values():
            module = importlib.import_module(command.module)
            if hasattr(module, "PROGRAM"):
                import_all(module.PROGRAM)
            else:
                assert hasattr(module, "main") or (hasattr(module, "configure") and hasattr(module, "run"))

    import_all(PROGRAM)
