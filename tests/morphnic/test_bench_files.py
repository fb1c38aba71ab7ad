"""The bench of the guide: its script on devices that are shared, its job, its rules."""

import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from device_link.conformance import CHECKS
from device_link.selftest import SELFTESTS
from tests.device_link.device_model import DeviceModel
from tests.device_link.network import Shared

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "deploy" / "bench" / "run.sh"


def run(*arguments):
    return subprocess.run([SCRIPT, *arguments], capture_output=True, text=True, cwd=ROOT, timeout=120,
                          env=os.environ | {"MORPHNIC": f"{sys.executable} -m morphnic"})


@pytest.mark.slow
def test_script_tests_every_device_and_keeps_reports_and_records(home, typed):
    model = DeviceModel()
    model.poke("analyzer.window", 0)
    shared = Shared(model)
    url = f"tcp://127.0.0.1:{shared.server.listen_tcp(('127.0.0.1', 0))}"
    shared.start()
    try:
        good = run(str(home / "good"), url)
        assert good.returncode == 0, good.stdout + good.stderr
        both = run(str(home / "both"), "tcp://127.0.0.1:1", url)
    finally:
        shared.finish()
    assert both.returncode == 1, "the first device does not answer"
    assert "no server answers at 127.0.0.1:1" in both.stderr
    for folder in ("good", "both"):
        files = {path.suffix: path for path in (home / folder).iterdir() if "selftest" not in path.name}
        suite = ElementTree.parse(files[".xml"]).getroot().find("testsuite")
        assert (int(suite.get("tests")), suite.get("failures")) == (len(CHECKS), "0")
        (selftest,) = (home / folder).glob("*-selftest.xml")
        assert int(ElementTree.parse(selftest).getroot().find("testsuite").get("tests")) == len(SELFTESTS)
    assert typed("test", "--device", f"replay://{files['.jsonl']}").returncode == 0


def test_script_without_devices_says_how_it_is_used():
    done = run("reports")
    assert (done.returncode, done.stderr.startswith("usage:")) == (1, True)


def test_job_runs_the_script_and_collects_what_it_writes():
    job = yaml.safe_load((ROOT / "deploy" / "bench" / "job.yml").read_text())["bench"]
    assert "deploy/bench/run.sh reports " in job["script"][-1]
    assert job["artifacts"]["paths"] == ["reports/"]
    assert job["artifacts"]["reports"]["junit"] == "reports/*.xml"


def test_rule_starts_the_unit_of_the_name_that_it_gives():
    rules = (ROOT / "deploy" / "udev" / "72-morphnic-bench.rules").read_text()
    (link,) = re.findall(r'SYMLINK\+="([a-z0-9]+)"', rules)
    assert f'ENV{{SYSTEMD_WANTS}}+="morphnic-serve@{link}.service"' in rules
    unit = (ROOT / "deploy" / "systemd" / "morphnic-serve@.service").read_text()
    assert "--device uart:///dev/%I --name %i" in unit
