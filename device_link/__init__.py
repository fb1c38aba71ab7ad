"""How software reaches a device: transports, framing, discovery, typed register access.

`device_link.open(url)` gives a `Device`; everything that it raises is in `morphnic.errors`, in `transport` or in
`session`.
"""

from .connect import open, open_transport
from .device import Device, Identity
from .discovery import Candidate, discover
from .session import DeviceReset
from .transport import BusError, Capability, Transport
from .window import Window, WindowRow

__all__ = ["BusError", "Candidate", "Capability", "Device", "DeviceReset", "Identity", "Transport", "Window",
           "WindowRow", "discover", "open", "open_transport"]
