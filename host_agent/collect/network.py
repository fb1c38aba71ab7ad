"""Network bytes of a tenant: from interfaces named in the settings, or from a network namespace of its own.

Linux counts bytes by interface, not by process: for a tenant that shares the host's namespace, and whose
interfaces nobody named, the figure is absent.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from host_agent.collect.figures import Absent, Counter
from host_agent.collect.kernel import Roots, net_dev

__all__ = ["tenant_network"]


def tenant_network(
    roots: Roots, tenant: int, interfaces: Sequence[str], pids: Sequence[int]
) -> Counter | Absent:
    """Bytes in both directions, seen from the host for named interfaces, else from inside the namespace."""
    if interfaces:
        return named_interfaces(roots, interfaces)
    setting = f"name its interfaces in the settings: [agent.tenants.{tenant}] interfaces = [...]"
    if not pids:
        return Absent(f"no process to find its network namespace by; {setting}")
    own = _namespace(roots, "self")
    for pid in pids:
        namespace = _namespace(roots, str(pid))
        if isinstance(namespace, Absent) or isinstance(own, Absent):
            continue
        if namespace == own:
            return Absent(f"shares the host's network namespace; {setting}")
        counts = net_dev(roots.proc / str(pid) / "net" / "dev")
        if not isinstance(counts, Absent):
            values = {f"{namespace} {name}": float(count) for name, count in counts.items() if name != "lo"}
            return Counter(values, f"/proc/{pid}/net/dev")
    return Absent(f"the network namespace of its processes cannot be read (root may); {setting}")


def named_interfaces(roots: Roots, interfaces: Sequence[str]) -> Counter | Absent:
    """The sum over interfaces; one that is not there makes the sum wrong, so it makes it absent."""
    counts = net_dev(roots.proc / "net" / "dev")
    if isinstance(counts, Absent):
        return counts
    missing = [name for name in interfaces if name not in counts]
    if missing:
        return Absent(f"there is no interface {', '.join(missing)} on this host")
    return Counter({name: float(counts[name]) for name in interfaces}, "/proc/net/dev " + ", ".join(interfaces))


def _namespace(roots: Roots, process: str) -> str | Absent:
    path = roots.proc / process / "ns" / "net"
    try:
        return os.readlink(path)
    except OSError as error:
        return Absent(f"{path}: {error.strerror}")
