"""`morphnic demo` as a user types it: the whole loop in its own processes, on a short generated input."""

import json
import subprocess
import sys

import pytest


def demo(*arguments, cwd):
    return subprocess.run([sys.executable, "-m", "morphnic", "demo", *arguments], cwd=cwd, capture_output=True,
                          text=True, timeout=1500, check=False)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_demo_plays_both_runs_and_accounts_for_every_packet(tmp_path, monkeypatch):
    monkeypatch.delenv("MORPHNIC_DATA", raising=False)
    ran = demo("--requests", "400", "--json", "--keep", str(tmp_path / "kept"), cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr[-3000:]
    document = json.loads(ran.stdout)
    runs = {run["name"]: run for run in document["runs"]}
    assert list(runs) == ["static partition", "the loop"]
    for run in runs.values():
        assert not any(run["checks"].values())
        assert run["figures"]["delivered"] == run["figures"]["offered"] - run["figures"]["dropped"] > 0
    assert runs["the loop"]["reallocations"] > 0
    assert "sha256" in document["inputs"][0]["description"]
    text = (tmp_path / "report.html").read_text()
    assert text.count("<svg") == 2
    assert (tmp_path / "kept" / "0" / "manager.log").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "says"), [
    (["--requests", "3"], "--requests must be at least 16"),
    (["--load", "7"], "--load must be above 0 and at most 2"),
    (["--trace", "nowhere.trace"], "nowhere.trace"),
    (["--report", "no/such/folder/report.html"], "make it first"),
])
def test_wrong_input_is_one_line_and_exit_code_1(tmp_path, arguments, says):
    ran = demo(*arguments, cwd=tmp_path)
    assert ran.returncode == 1
    assert says in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_bad_line_of_a_trace_is_named(tmp_path):
    (tmp_path / "bad.trace").write_text("938513000 4 264719034 16 0\n938828000 3 oops 16 0\n")
    ran = demo("--trace", "bad.trace", cwd=tmp_path)
    assert ran.returncode == 1
    assert "bad.trace: line 2" in ran.stderr
    assert "Traceback" not in ran.stderr
