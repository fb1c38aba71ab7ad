"""A logic analyzer by itself, for what it costs: `morphnic build --board ulx3s-85f --only bench._scope:Scope64`."""

from amaranth import Signal

from gateware.config import DeviceConfig
from gateware.scope.probes import Probe
from gateware.scope.scope import Scope


class Scope64(Scope):
    """64 bits of probes, `scope_rows` rows."""

    bits = 64

    def __init__(self, config: DeviceConfig):
        super().__init__([Probe("bits", Signal(self.bits), {})], config.scope_rows)


class Scope128(Scope64):
    """The same with 128 bits."""

    bits = 128
