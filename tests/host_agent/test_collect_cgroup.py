"""Tenants that are cgroups: version 1, version 2 and both mixed, from trees of files."""

import os

import pytest

from host_agent.collect.cgroup import member_pids
from morphnic.settings import TenantSettings
from tests.host_agent.trees import put

GROUP = "machine.slice/vm3.scope"
TENANT = TenantSettings(cgroup=GROUP)
V1 = ("cpu", "cpuacct", "memory", "blkio")


def v1(host, cpu_s=0.0, memory=0, limit=9223372036854771712, disk=(), quota=-1, together=False):
    """`disk`: (device, read bytes, written bytes, reads, writes)."""
    if together:
        host.mounts(v1=("memory", "blkio"), together=("cpu", "cpuacct"))
    else:
        host.mounts(v1=V1)
    processor = "cpu,cpuacct" if together else "cpuacct"
    put(host.cgroup / processor / GROUP / "cpuacct.usage", f"{round(cpu_s * 1e9)}\n")
    folder = host.cgroup / ("cpu,cpuacct" if together else "cpu") / GROUP
    put(folder / "cpu.cfs_quota_us", f"{quota}\n")
    put(folder / "cpu.cfs_period_us", "100000\n")
    put(host.cgroup / "memory" / GROUP / "memory.usage_in_bytes", f"{memory}\n")
    put(host.cgroup / "memory" / GROUP / "memory.limit_in_bytes", f"{limit}\n")
    for name, column in (("io_service_bytes", 1), ("io_serviced", 3)):
        rows = "".join(f"{one[0]} Read {one[column]}\n{one[0]} Write {one[column + 1]}\n"
                       f"{one[0]} Total {one[column] + one[column + 1]}\n" for one in disk)
        put(host.cgroup / "blkio" / GROUP / f"blkio.throttle.{name}_recursive", rows + "Total 0\n")


def v2(host, cpu_s=0.0, memory=0, limit="max", disk="", quota="max 100000"):
    host.mounts(v2=True)
    folder = host.cgroup / "unified" / GROUP
    put(folder / "cpu.stat", f"usage_usec {round(cpu_s * 1e6)}\nuser_usec 1\nsystem_usec 1\n")
    put(folder / "cpu.max", quota + "\n")
    put(folder / "memory.current", f"{memory}\n")
    put(folder / "memory.max", f"{limit}\n")
    put(folder / "io.stat", disk)


@pytest.mark.parametrize("together", [False, True])
def test_version_1(host, figures_of, together):
    v1(host, cpu_s=1.0, disk=[("8:0", 0, 0, 0, 0)], together=together)
    found = figures_of(TENANT, lambda: v1(
        host, cpu_s=2.0, memory=3 << 20, limit=12 << 20, disk=[("8:0", 4096, 1024, 4, 2), ("8:16", 0, 1000, 0, 2)],
        together=together))
    assert found["cpu_percent"].value == pytest.approx(50.0)
    assert found["memory_bytes"].value == 3 << 20
    assert found["memory_pressure"].value == 0.25
    assert found["memory_pressure"].source == "estimated: use / limit (memory.limit_in_bytes)"
    assert found["disk_bytes_per_second"].value == (4096 + 1024 + 1000) / 2
    assert found["disk_iops"].value == 4.0


def test_version_1_without_limit_is_measured_against_the_host(host, figures_of):
    v1(host)
    found = figures_of(TENANT, lambda: v1(host, memory=2_000_000 * 1024))
    assert found["memory_pressure"].value == 0.25
    assert "MemTotal" in found["memory_pressure"].source


def test_version_1_cpu_pressure_is_the_run_queue_wait_of_its_members(host, figures_of):
    v1(host)
    host.process(10)
    put(host.cgroup / "memory" / GROUP / "cgroup.procs", "10\n")
    found = figures_of(TENANT, lambda: host.process(10, wait_s=(0.5,)))
    assert found["cpu_pressure"].value == pytest.approx(0.25)
    assert "schedstat" in found["cpu_pressure"].source


def test_version_2(host, figures_of):
    v2(host, cpu_s=1.0, disk="8:0 rbytes=0 wbytes=0 rios=0 wios=0 dbytes=0 dios=0\n")
    folder = host.cgroup / "unified" / GROUP
    host.pressure(folder / "cpu.pressure", 1.0)
    host.pressure(folder / "memory.pressure", 0.0)

    def change():
        v2(host, cpu_s=1.5, memory=5 << 20,
           disk="8:0 rbytes=4096 wbytes=1024 rios=4 wios=2 dbytes=9 dios=9\n8:16 rbytes=0 wbytes=1000 rios=0 wios=2\n")
        host.pressure(folder / "cpu.pressure", 1.5)
        host.pressure(folder / "memory.pressure", 0.1)

    found = figures_of(TENANT, change)
    assert found["cpu_percent"].value == pytest.approx(25.0)
    assert found["memory_bytes"].value == 5 << 20
    assert found["cpu_pressure"].value == pytest.approx(0.25)
    assert found["memory_pressure"].value == pytest.approx(0.05)
    assert found["disk_bytes_per_second"].value == (4096 + 1024 + 1000) / 2
    assert found["disk_iops"].value == 4.0
    assert found["cpu_pressure"].source == "pressure of the cgroup, cpu.pressure"


def test_version_2_without_pressure_or_readable_members_uses_the_quota(host, figures_of):
    v2(host, quota="50000 100000")
    put(host.cgroup / "unified" / GROUP / "cgroup.procs", "10\n")
    host.process(10)
    os.remove(host.proc / "10" / "task" / "10" / "schedstat")
    found = figures_of(TENANT, lambda: v2(host, cpu_s=0.5, quota="50000 100000"))
    assert found["cpu_pressure"].value == pytest.approx(0.5)
    assert found["cpu_pressure"].source == "estimated: use / CPUs allowed (cpu.max)"


def test_mixed_host_takes_each_figure_where_its_controller_is(host, figures_of):
    """Controllers in v1, pressure in the v2 tree: what systemd calls hybrid."""
    v1(host)
    host.mounts(v1=V1, v2=True)
    folder = host.cgroup / "unified" / GROUP
    put(folder / "cpu.stat", "usage_usec 999999999\n")
    host.pressure(folder / "cpu.pressure", 0.0)

    def change():
        v1(host, cpu_s=1.0)
        host.mounts(v1=V1, v2=True)
        host.pressure(folder / "cpu.pressure", 1.0)

    found = figures_of(TENANT, change)
    assert found["cpu_percent"].value == pytest.approx(50.0)
    assert found["cpu_percent"].source == "cpuacct.usage"
    assert found["cpu_pressure"].value == pytest.approx(0.5)


def test_controller_that_is_nowhere_makes_its_figure_absent(host, figures_of):
    host.mounts(v1=("memory",))
    put(host.cgroup / "memory" / GROUP / "memory.usage_in_bytes", "4096\n")
    found = figures_of(TENANT, lambda: None)
    assert found["memory_bytes"].value == 4096
    assert found["cpu_percent"].reason == f"cgroup '{GROUP}' has no CPU controller on this host"
    assert found["disk_iops"].reason == f"cgroup '{GROUP}' has no disk controller on this host"


def test_cgroup_that_does_not_exist_is_named(host, figures_of):
    host.mounts(v1=V1, v2=True)
    found = figures_of(TENANT, lambda: None)
    assert {figure.reason for figure in found.values()} == {f"there is no cgroup '{GROUP}' on this host"}


def test_host_without_cgroups_is_said(host, figures_of):
    found = figures_of(TENANT, lambda: None)
    assert {figure.reason for figure in found.values()} == {"no cgroup file system is mounted"}


def test_cgroup_made_anew_gives_no_rate(host, figures_of):
    v2(host, cpu_s=100.0)
    found = figures_of(TENANT, lambda: v2(host, cpu_s=1.0))
    assert found["cpu_percent"].value is None
    assert "fell" in found["cpu_percent"].reason


def test_disk_used_for_the_first_time_counts_whole(host, figures_of):
    v2(host)
    found = figures_of(TENANT, lambda: v2(host, disk="8:0 rbytes=2000 wbytes=0 rios=2 wios=0\n"))
    assert found["disk_bytes_per_second"].value == 1000.0


def test_members_are_those_of_the_cgroups_below_too(host):
    put(host.cgroup / "a/cgroup.procs", "5\n7\n")
    put(host.cgroup / "a/b/cgroup.procs", "9\n0\n")
    assert member_pids([host.cgroup / "a"]) == [5, 7, 9]
