"""The register map and what is derived from it: hash, drift, `regmap.json`, C header."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from rtl.registers import generate, registermap


def changed_map(tmp_path: Path, old: str, new: str) -> registermap.RegisterMap:
    text = registermap.rdl_path().read_text(encoding="utf-8")
    assert text.count(old) >= 1, f"{old!r} is no longer in the map"
    path = tmp_path / "changed.rdl"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return registermap.compile_map(path)


def test_derived_files_are_those_of_the_map():
    stale = [str(path) for path in generate.stale(generate.ROOT)]
    assert not stale, f"{', '.join(stale)}: differs from the register map; remake with `make registers`"


def test_check_reports_a_missing_and_a_changed_file(tmp_path):
    for path, text in generate.derived().items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text, encoding="utf-8")
    assert generate.stale(tmp_path) == []
    (tmp_path / "rtl/registers/morphnic.h").unlink()
    regmap = tmp_path / "rtl/registers/regmap.json"
    regmap.write_text(regmap.read_text(encoding="utf-8").replace("4096", "4100", 1), encoding="utf-8")
    assert [path.name for path in generate.stale(tmp_path)] == ["regmap.json", "morphnic.h"]


def test_check_command_names_the_file_and_the_remedy(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    assert generate.main(["--check"]) == 2
    message = capsys.readouterr().err
    assert "docs/reference/registers.md" in message
    assert "make registers" in message
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_generate_writes_what_check_accepts(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    assert generate.main([]) == 0
    assert capsys.readouterr().out.count("wrote") == 3
    assert generate.main(["--check"]) == 0
    assert generate.main([]) == 0
    assert "wrote" not in capsys.readouterr().out


@pytest.mark.parametrize(("old", "new"), [
    ("Commits that came into force.", "Tables that came into force."),
    ("cycles[31:0] = 0x186A0", "cycles[31:0] = 0x186A1"),
])
def test_hash_ignores_descriptions_and_resets(tmp_path, old, new):
    assert changed_map(tmp_path, old, new).hash() == registermap.map_hash()


@pytest.mark.slow
@pytest.mark.parametrize(("old", "new"), [
    ("@ 0x09000", "@ 0x09400"),
    ("scratch @ 0x30", "scratched @ 0x30"),
    ("port[16]  @ 0x07000 += 16", "port[16]  @ 0x07000 += 32"),
    ("burst[14:0]", "burst[13:0]"),
    ("mementries = 16384", "mementries = 8192"),
    ("field { sw = rw; hw = r; desc = \"Free for tests", "field { sw = r; hw = w; desc = \"Free for tests"),
])
def test_hash_follows_addresses_names_fields_and_access(tmp_path, old, new):
    assert changed_map(tmp_path, old, new).hash() != registermap.map_hash()


@pytest.mark.slow
@pytest.mark.parametrize(("old", "new", "message"), [
    ("addrmap morphnic {", "addrmap morphnic {{", "line [0-9]+"),
    ("@ 0x30000;", "@ 0x34000;", "scope_rows must end below 0x40000"),
    ("link_block      link      @ 0x00400", "link_block      link      @ 0x00010", "overlaps"),
    ("port[16]  @", "port[4][4]  @", "port must have one dimension"),
    ("word_ro frames_sent     @ 0x08", "word_ro frames_sent[2]  @ 0x08", "frames_sent"),
])
def test_a_bad_map_is_refused_with_file_and_reason(tmp_path, old, new, message):
    with pytest.raises(registermap.RegisterMapError, match=f"changed.rdl: .*{message}"):
        changed_map(tmp_path, old, new)


def test_unknown_block_names_those_that_exist():
    with pytest.raises(ValueError, match=r"block must be one of id, link, .*not 'nothing'"):
        registermap.node("nothing")


def test_regmap_json_holds_every_field_at_its_address():
    document = json.loads((generate.ROOT / "rtl/registers/regmap.json").read_text(encoding="utf-8"))
    assert document["schema"] == 1
    assert document["map_hash"] == registermap.map_hash()
    blocks = {block["name"]: block for block in document["blocks"]}
    assert blocks["histogram"]["memory"] == {"words": 16384, "access": "r"}
    assert (blocks["staging"]["count"], blocks["staging"]["stride"]) == (64, 32)
    found = {
        (block["name"], register["name"], field["name"]):
            (register["address"], field["lsb"], field["width"], field["access"], field["reset"],
             field.get("singlepulse", False))
        for block in blocks.values() for register in block.get("registers", ()) for field in register["fields"]
    }
    assert found["rm", "status", "result"] == (0x1004, 8, 4, "r", 0, False)
    assert found["staging", "burst", "burst"] == (0x2008, 0, 15, "rw", 0, False)
    assert found["active", "burst", "burst"] == (0x3008, 0, 15, "r", 0, False)
    assert found["generator", "control", "clear"] == (0x9000, 1, 1, "rw", 0, True)
    assert found["analyzer", "window", "cycles"] == (0x4000, 0, 32, "rw", 100000, False)
    expected = sum(len(register.fields) for block in registermap.nodes() for register in block.registers)
    assert len(found) == expected


def test_c_header_agrees_with_the_map(tmp_path):
    """Compiled, not read: the offsets of the structures are those of the map."""
    checks = [f"_Static_assert(MORPHNIC_MAP_HASH == {registermap.map_hash()}u, \"hash\");"]
    for block in registermap.nodes():
        if block.is_memory:
            continue
        for register in block.registers:
            for index in {0, (block.count or 1) - 1}:
                element = block.name if block.count is None else f"{block.name}[{index}]"
                address = block.address + index * block.stride + register.offset
                checks.append(f"_Static_assert(offsetof(morphnic_t, {element}.{register.name}) == {address}, "
                              f"\"{element}.{register.name}\");")
    source = tmp_path / "check.c"
    source.write_text('#include <stddef.h>\n#include "morphnic.h"\n' + "\n".join(checks) + "\n", encoding="utf-8")
    compiler = shutil.which("gcc") or shutil.which("cc")
    assert compiler, "a C compiler is required (apt install g++)"
    folder = str(generate.ROOT / "rtl/registers")
    done = subprocess.run([compiler, "-std=c11", "-fsyntax-only", "-I", folder, str(source)],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_reference_names_every_register():
    text = (generate.ROOT / "docs/reference/registers.md").read_text(encoding="utf-8")
    for block in registermap.nodes():
        assert f"## {block.name}: {block.title}" in text
        for register in block.registers:
            for field in register.fields:
                assert f"`{register.name}`" in text
                assert f"`{field.name}`" in text
