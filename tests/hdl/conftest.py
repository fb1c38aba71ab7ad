"""Options of the regression, the cases that it runs, and its report."""

import re
import time
from pathlib import Path

import pytest

from tests.hdl.bench import benches, parse_case
from tests.hdl.harness import Outcome

#: What `--netlist` runs unless cases are named.
NETLIST_CASES = ("skid", "link", "manager tenants=2 rounds=8", "fabric ports=2 width=32 tenants=4 pages=32",
                 "device width=32 small=1 packets=25")
ARTIFACTS = Path("build/regression")
STARTED = pytest.StashKey[float]()


def pytest_addoption(parser):
    group = parser.getgroup("regression")
    group.addoption("--case", action="append", dest="cases", metavar="TEXT",
                    help="run this case ('skid width=8 seed=3'); may be given again; default: the fixed matrix")
    group.addoption("--wave", action="store_true", dest="wave", help="keep a waveform of every test, failed or not")
    group.addoption("--lines", action="store_true", dest="lines",
                    help="count lines and toggles (another build, many times slower)")
    group.addoption("--netlist", action="store_true", dest="netlist",
                    help="run on what synthesis makes of the gateware; default: the blocks of `make netlist`")
    group.addoption("--artifacts", type=Path, dest="artifacts", metavar="DIR",
                    help=f"where outcomes, waveforms and report go (default {ARTIFACTS})")


def _folder(config):
    return config.rootpath / (config.getoption("artifacts", None) or ARTIFACTS)


def pytest_configure(config):
    config.stash[STARTED] = time.monotonic()


def pytest_generate_tests(metafunc):
    if "case" not in metafunc.fixturenames:
        return
    texts = metafunc.config.getoption("cases", None)
    if not texts and metafunc.config.getoption("netlist", False):
        texts = NETLIST_CASES
    try:
        cases = [parse_case(text) for text in texts] if texts else [
            case for bench in benches().values() for case in bench.matrix()]
    except ValueError as error:
        raise pytest.UsageError(str(error)) from error
    # What takes longer to build than all the others; named, a case runs whatever it is.
    metafunc.parametrize("case", [pytest.param(case, marks=pytest.mark.long if _takes_long(case) and not texts else ())
                                  for case in cases], ids=str)


def _takes_long(case):
    """Simulations of a whole device, and of a PCIe core with wide beats."""
    return case.bench.name in ("device", "pcie_device") or (
        case.bench.name == "pcie" and case.parameters["width"] > 64)


@pytest.fixture
def artifacts(case, pytestconfig):
    """Folder for what the case leaves behind; it stays."""
    return _folder(pytestconfig) / "cases" / re.sub(r"[^\w.]+", "-", str(case))


def pytest_runtest_logreport(report):
    """In the process that gathers the results: remember what to report."""
    if report.when == "call":
        REPORTED.extend(Path(value) for name, value in report.user_properties if name == "outcome")


REPORTED: list[Path] = []


def pytest_sessionfinish(session):
    """Write the report, once, where the results are gathered."""
    if hasattr(session.config, "workerinput") or not REPORTED:
        return
    from tests.regression.report import write_report

    outcomes = [Outcome.load(path) for path in REPORTED if path.exists()]
    seconds = time.monotonic() - session.config.stash[STARTED]
    write_report(_folder(session.config) / "report.html", outcomes, seconds)


def pytest_terminal_summary(terminalreporter):
    if REPORTED:
        terminalreporter.write_line(f"regression report: {_folder(terminalreporter.config) / 'report.html'}")
