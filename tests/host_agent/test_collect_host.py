"""Tenant 0: the host, read from a tree of files and, against psutil and time, from this machine."""

import os
import time

import psutil
import pytest

from host_agent.collect.collector import Collector
from host_agent.collect.figures import FIGURES
from host_agent.collect.kernel import Roots
from morphnic.settings import TenantSettings
from tests.host_agent.trees import put


def test_rates_come_from_two_readings_and_their_distance(host, figures_of):
    def change():
        host.stat(user=1.5, nice=0.1, system=0.2, idle=50, iowait=9, irq=0.1, softirq=0.1, guest=1.0)
        host.net_dev({"lo": (10**9, 10**9), "eth0": (3000, 1000), "br0": (3000, 1000), "tap0": (7, 7)})
        host.diskstats({"sda": (10, 4096, 20, 8192), "sda1": (10, 4096, 20, 8192), "loop0": (9, 9 * 512, 9, 0)})
        host.meminfo(8_000_000, 5_000_000)
        host.pressure(host.proc / "pressure/cpu", 1.5)
        host.pressure(host.proc / "pressure/memory", 0.25)

    host.pressure(host.proc / "pressure/cpu", 1.0)
    host.pressure(host.proc / "pressure/memory", 0.0)
    found = figures_of(TenantSettings(), change, tenant=0)
    assert {name: figure.value for name, figure in found.items()} == pytest.approx({
        "cpu_percent": 100.0, "cpu_pressure": 0.25, "memory_bytes": 3_000_000 * 1024, "memory_pressure": 0.125,
        "network_bytes_per_second": 2000.0, "disk_bytes_per_second": 6144.0, "disk_iops": 15.0,
    })
    assert "eth0" in found["network_bytes_per_second"].source


def test_without_pressure_files_the_estimate_names_itself(host, figures_of):
    found = figures_of(TenantSettings(), lambda: host.stat(user=0.5), tenant=0)
    assert found["cpu_pressure"].value == pytest.approx(0.25 / os.cpu_count())
    assert found["cpu_pressure"].source.startswith("estimated")
    assert found["memory_pressure"].value == pytest.approx(0.25)
    assert found["memory_pressure"].source.startswith("estimated")


def test_interfaces_of_the_settings_replace_the_hardware_ones(host, figures_of):
    def change():
        host.net_dev({"lo": (5, 5), "eth0": (9999, 0), "br0": (500, 300)})

    host.net_dev({"lo": (5, 5), "eth0": (0, 0), "br0": (0, 0)})
    found = figures_of(TenantSettings(interfaces=("br0",)), change, tenant=0)
    assert found["network_bytes_per_second"].value == 400.0


@pytest.mark.parametrize(("file", "names", "said"), [
    ("stat", {"cpu_percent", "cpu_pressure"}, "proc/stat"),
    ("meminfo", {"memory_bytes", "memory_pressure"}, "proc/meminfo"),
    ("net/dev", {"network_bytes_per_second"}, "net/dev"),
    # psutil falls back to /sys/block, where the disk of this tree is not
    ("diskstats", {"disk_bytes_per_second", "disk_iops"}, "no disk with hardware"),
])
def test_a_file_that_cannot_be_read_makes_its_figures_absent_with_the_reason(host, figures_of, file, names, said):
    (host.proc / file).unlink()
    found = figures_of(TenantSettings(), lambda: None, tenant=0)
    assert {name for name, figure in found.items() if figure.value is None} == names
    for name in names:
        assert said in found[name].reason


def test_a_damaged_file_makes_its_figures_absent(host, figures_of):
    put(host.proc / "diskstats", "what is this\n")
    put(host.proc / "pressure/cpu", "nothing\n")
    found = figures_of(TenantSettings(), lambda: None, tenant=0)
    assert found["disk_iops"].value is None
    assert "diskstats" in found["disk_iops"].reason
    assert found["cpu_pressure"].source.startswith("estimated")


def test_a_counter_that_fell_is_not_turned_into_a_rate(host, figures_of):
    host.net_dev({"lo": (5, 5), "eth0": (5000, 5000)})
    found = figures_of(TenantSettings(), lambda: host.net_dev({"lo": (5, 5), "eth0": (10, 10)}), tenant=0)
    assert found["network_bytes_per_second"].value is None
    assert "eth0 fell" in found["network_bytes_per_second"].reason


def test_a_host_without_hardware_says_so(host, figures_of):
    host.net_dev({"lo": (5, 5)})
    host.diskstats({"loop0": (1, 1, 1, 1)})
    found = figures_of(TenantSettings(), lambda: None, tenant=0)
    assert "no network interface with hardware" in found["network_bytes_per_second"].reason
    assert "no disk with hardware" in found["disk_iops"].reason


def test_this_machine_gives_every_figure_a_value_or_a_reason():
    psutil.PROCFS_PATH = "/proc"
    collector = Collector({1: TenantSettings(pids=(os.getpid(),)), 2: TenantSettings(cgroup="/")}, Roots())
    collector.sample()
    start = psutil.Process().cpu_times()
    began = time.monotonic()
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        sum(range(1000))
    sample = collector.sample()
    spent = psutil.Process().cpu_times()
    assert sample.tenants.keys() == {0, 1, 2}
    for tenant, figures in sample.tenants.items():
        assert figures.keys() == FIGURES.keys()
        for name, figure in figures.items():
            assert (figure.value is None) == bool(figure.reason), (tenant, name)
            assert (figure.value is None) == (not figure.source), (tenant, name)
            assert figure.value is None or figure.value >= 0
    # psutil reads the same process by a way of its own; both count in ticks of 10 ms.
    expected = (spent.user + spent.system - start.user - start.system) / (time.monotonic() - began) * 100
    assert sample.tenants[1]["cpu_percent"].value == pytest.approx(expected, abs=15)
    assert sample.tenants[1]["memory_bytes"].value == pytest.approx(psutil.Process().memory_info().rss, rel=0.2)
    assert sample.tenants[0]["memory_bytes"].value > 0
