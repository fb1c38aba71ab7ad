"""Every case of the regression's fixed matrix, and with `--case` those that are named."""

import pytest

from tests.hdl.harness import Variant, run_case

pytestmark = pytest.mark.slow


@pytest.mark.slow
def test_bench(case, artifacts, pytestconfig, record_property):
    """One case. What it leaves is in its folder of artifacts; a failure says how to repeat it."""
    variant = (Variant.COVERAGE if pytestconfig.getoption("lines", False)
               else Variant.NETLIST if pytestconfig.getoption("netlist", False) else Variant.FAST)
    outcome = run_case(case, artifacts, wave=pytestconfig.getoption("wave", False), variant=variant)
    record_property("seed", outcome.seed)
    record_property("parameters", " ".join(f"{name}={value}" for name, value in outcome.parameters.items()))
    record_property("command", outcome.command)
    for path in outcome.waveforms:
        record_property("waveform", path)
    record_property("outcome", str(artifacts / "outcome.json"))
    if not outcome.passed:
        pytest.fail(outcome.summary(), pytrace=False)
