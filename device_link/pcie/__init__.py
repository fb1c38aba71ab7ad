"""PCIe functions: `pcie://0000:03:00.0` on Linux, `pcie://NAME` of a simulated device.

`function.Function` is the one interface: a word of BAR0, memory for DMA, interrupts. `sysfs`, `vfio` and `simulated`
are its three kinds, `transport` makes a `Transport` of any of them.
"""

from .function import Function, HostMemory
from .transport import BarTransport, open_pcie

__all__ = ["BarTransport", "Function", "HostMemory", "open_pcie"]
