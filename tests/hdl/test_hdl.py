"""Blocks under cocotb on Verilator: independent of the Python simulator and of the board."""

from __future__ import annotations

import pytest

from gateware.bridge.link import LinkBridge
from gateware.config import DeviceConfig
from gateware.manager.manager import ResourceManager
from gateware.stream.skid import SkidBuffer
from tests.hdl.harness import run_cocotb

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("seed", [1, 2])
def test_skid_buffer_keeps_the_stream(tmp_path, seed):
    run_cocotb(SkidBuffer(16), "tests.hdl.skid_cocotb", tmp_path, seed=seed, parameters={"COUNT": 300})


@pytest.mark.parametrize("seed", [1, 2])
def test_link_bridge_follows_the_protocol(tmp_path, seed):
    run_cocotb(LinkBridge(DeviceConfig(tenants=4)), "tests.hdl.link_cocotb", tmp_path, seed=seed)


@pytest.mark.parametrize("seed", [1])
def test_resource_manager_carries_out_transactions(tmp_path, seed):
    run_cocotb(ResourceManager(DeviceConfig(tenants=4)), "tests.hdl.manager_cocotb", tmp_path, seed=seed)


def test_harness_reports_a_failing_test(tmp_path):
    with pytest.raises(pytest.fail.Exception, match=r"1 of 1 cocotb tests.*seed 5"):
        run_cocotb(SkidBuffer(16), "tests.hdl.failing_cocotb", tmp_path, seed=5)


def test_harness_reports_a_module_that_does_not_exist(tmp_path):
    with pytest.raises(pytest.fail.Exception, match=r"tests\.hdl\.nowhere|without a report"):
        run_cocotb(SkidBuffer(16), "tests.hdl.nowhere", tmp_path)
