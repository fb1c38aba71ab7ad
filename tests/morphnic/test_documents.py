"""The guides and the units name commands that exist, and the settings that there are."""

import re
import shlex
from pathlib import Path

import pytest

from morphnic import main as entry
from morphnic.settings import KEYS, PREFIX

ROOT = Path(__file__).parents[2]
GUIDES = [ROOT / "docs" / "guides" / name for name in ("command-line.md", "host-agent.md", "bench.md")]
UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
ENTRIES = {"morphnic": entry.main, "host-agent": entry.host_agent, "offload-manager": entry.offload_manager}


def examples():
    """Command lines in code blocks, without their comments."""
    for path in GUIDES:
        for block in re.findall(r"^```\w*\n(.*?)^```", path.read_text(), re.S | re.M):
            for line in block.splitlines():
                words = shlex.split(line.removeprefix("$ "), comments=True)
                if words and words[0] in ENTRIES:
                    yield words


def in_units():
    for path in UNITS:
        (line,) = re.findall(r"^ExecStart=(.*)$", path.read_text(), re.M)
        program, *arguments = shlex.split(line)
        yield [Path(program).name, *arguments]


@pytest.mark.parametrize("words", [*examples(), *in_units()], ids=" ".join)
def test_command_of_a_guide_or_unit_exists(home, capsys, words):
    with pytest.raises(SystemExit) as end:
        ENTRIES[words[0]]([*words[1:], "--help"])
    assert not end.value.code
    assert capsys.readouterr().out.startswith("usage:")


def test_guide_lists_every_setting_and_its_variable():
    text = GUIDES[0].read_text()
    for key in KEYS:
        assert f"| `{key}` | `{PREFIX}{key.replace('.', '_').upper()}` |" in text


def test_guide_explains_every_command():
    text = GUIDES[0].read_text()
    for name in entry.PROGRAM.commands:
        assert f"morphnic {name}" in text, name
