"""Tenants that are processes: ids, names and QEMU guests, from trees of files."""

import os

import pytest

from host_agent.collect.collector import Collector, label
from host_agent.collect.kernel import Roots
from host_agent.collect.process import find_by_name, find_vm
from morphnic.settings import TenantSettings
from tests.host_agent.trees import put

PAGE = os.sysconf("SC_PAGE_SIZE")


def test_processes_are_summed(host, figures_of):
    def change():
        host.process(10, cpu_s=1.5, resident_pages=100, read=4096, written=100, wait_s=(0.5, 0.25))
        host.process(11, cpu_s=0.5, resident_pages=50, read=0, written=1000, wait_s=(0.25,))

    host.process(10, cpu_s=1.0)
    host.process(11)
    found = figures_of(TenantSettings(pids=(10, 11)), change)
    assert found["cpu_percent"].value == pytest.approx(50.0)
    assert found["memory_bytes"].value == 150 * PAGE
    assert found["disk_bytes_per_second"].value == (4096 + 1100) / 2
    assert found["cpu_pressure"].value == pytest.approx(0.5)
    assert found["memory_pressure"].value == pytest.approx(150 * PAGE / (8_000_000 * 1024))
    assert found["disk_iops"].value is None
    assert "by cgroup" in found["disk_iops"].reason


def test_pressure_is_at_most_one(host, figures_of):
    host.process(10)
    found = figures_of(TenantSettings(pids=(10,)), lambda: host.process(10, wait_s=(2.0, 2.0)))
    assert found["cpu_pressure"].value == 1.0


def test_process_born_in_the_interval_counts_whole(host, figures_of):
    host.process(10, name="db")
    found = figures_of(TenantSettings(process="db"), lambda: host.process(11, name="db", start_s=1001.0, cpu_s=0.5))
    assert found["cpu_percent"].value == pytest.approx(25.0)


def test_old_process_that_joins_counts_nothing_of_its_past(host, figures_of):
    host.process(10, name="db")
    found = figures_of(TenantSettings(process="db"), lambda: host.process(11, name="db", start_s=50.0, cpu_s=500.0))
    assert found["cpu_percent"].value == 0.0


def test_reused_process_id_is_another_process(host, figures_of):
    """The old process 10 had used 500 s; the new one, with the same id, 0.2 s."""
    host.process(10, cpu_s=500.0)
    found = figures_of(TenantSettings(pids=(10,)), lambda: host.process(10, start_s=1001.0, cpu_s=0.2))
    assert found["cpu_percent"].value == pytest.approx(10.0)


def test_ended_process_leaves_the_others(host, figures_of):
    host.process(10, cpu_s=3.0)
    host.process(11)

    def change():
        host.end(10)
        host.process(11, cpu_s=1.0)

    assert figures_of(TenantSettings(pids=(10, 11)), change)["cpu_percent"].value == pytest.approx(50.0)


@pytest.mark.parametrize(("settings", "reason"), [
    (TenantSettings(pids=(77, 78)), "no process with the id 77, 78 runs"),
    (TenantSettings(process="nginx"), "no process named 'nginx' runs"),
    (TenantSettings(vm="web"), "no QEMU runs the guest 'web'"),
])
def test_tenant_that_is_not_there_has_no_figure_at_all(host, figures_of, settings, reason):
    found = figures_of(settings, lambda: None)
    assert {figure.value for figure in found.values()} == {None}
    assert {figure.reason for figure in found.values()} == {reason}


def test_tenant_that_appears_has_rates_from_its_second_reading_on(host, clock):
    collector = Collector({3: TenantSettings(process="nginx")}, Roots(host.proc, host.sys))
    collector.sample()
    host.process(10, name="nginx", start_s=1000.5, cpu_s=1.0)
    clock.advance(1)
    figure = collector.sample().tenants[3]["cpu_percent"]
    assert figure.value is None
    assert "first reading" in figure.reason
    host.process(10, name="nginx", start_s=1000.5, cpu_s=1.25)
    clock.advance(1)
    assert collector.sample().tenants[3]["cpu_percent"].value == pytest.approx(25.0)


def test_name_matches_command_or_executable_and_odd_names_are_parsed(host):
    host.process(10, name="tmux: server (x) y")
    host.process(11, name="a-very-long-pro", arguments=("/usr/bin/a-very-long-program", "-x"))
    roots = Roots(host.proc, host.sys)
    assert find_by_name(roots, "tmux: server (x") == [10]
    assert find_by_name(roots, "tmux: server") == []
    assert find_by_name(roots, "a-very-long-program") == [11]
    assert find_by_name(roots, "very") == []


def test_process_name_with_brackets_does_not_shift_its_figures(host, figures_of):
    host.process(10, name="odd) R 5 (name")
    found = figures_of(TenantSettings(pids=(10,)), lambda: host.process(10, name="odd) R 5 (name", cpu_s=1.0))
    assert found["cpu_percent"].value == pytest.approx(50.0)


@pytest.mark.parametrize("arguments", [
    ("-name", "web"), ("-name", "guest=web,debug-threads=on"), ("-m", "1G", "-name", "web,process=x"),
    ("-uuid", "web"), ("--name", "guest=web"),
])
def test_guest_is_found_by_the_way_qemu_was_started(host, arguments):
    host.process(10, name="qemu-system-x86", arguments=("/usr/bin/qemu-system-x86_64", *arguments))
    host.process(11, name="qemu-system-x86", arguments=("/usr/bin/qemu-system-x86_64", "-name", "web2"))
    host.process(12, name="bash", arguments=("bash", "-name", "web"))
    assert find_vm(Roots(host.proc, host.sys), "web") == [10]


def test_network_of_a_namespace_of_its_own_is_read_inside_it(host, figures_of):
    host.process(10, namespace=5)
    host.net_dev({"lo": (0, 0), "eth0": (0, 0)}, process=10)
    found = figures_of(TenantSettings(pids=(10,)),
                       lambda: host.net_dev({"lo": (999, 999), "eth0": (600, 400)}, process=10))
    assert found["network_bytes_per_second"].value == 500.0


def test_network_in_the_hosts_namespace_is_absent_with_the_remedy(host, figures_of):
    host.process(10)
    reason = figures_of(TenantSettings(pids=(10,)), lambda: None)["network_bytes_per_second"].reason
    assert "shares the host's network namespace" in reason
    assert "[agent.tenants.3] interfaces" in reason


def test_named_interface_that_is_missing_is_said(host, figures_of):
    host.process(10)
    figure = figures_of(TenantSettings(pids=(10,), interfaces=("eth0", "tap9")), lambda: None)[
        "network_bytes_per_second"]
    assert (figure.value, figure.reason) == (None, "there is no interface tap9 on this host")


def test_one_unreadable_process_makes_the_sum_absent_not_smaller(host, figures_of):
    host.process(10)
    host.process(11)
    for file in ("io", "statm", "task/11/schedstat"):
        put(host.proc / "11" / file, "")
    found = figures_of(TenantSettings(pids=(10, 11)), lambda: None)
    assert found["disk_bytes_per_second"].value is None
    assert "11/io" in found["disk_bytes_per_second"].reason
    assert "11/statm" in found["memory_bytes"].reason
    assert found["cpu_pressure"].source.startswith("estimated")


@pytest.mark.parametrize(("settings", "expected"), [
    (TenantSettings(name="x", vm="y"), "x"), (TenantSettings(vm="y"), "y"), (TenantSettings(pids=(1, 2)), "pid 1,2"),
    (TenantSettings(cgroup="a/b"), "a/b"), (TenantSettings(), "tenant 4"),
])
def test_label_is_the_name_or_what_the_tenant_is(settings, expected):
    assert label(4, settings) == expected
