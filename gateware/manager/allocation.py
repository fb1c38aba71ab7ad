"""The allocation as the rest of the device sees it: one row a tenant, and the bus that spreads the table.

The resource manager broadcasts every row it writes, with the bank it is written to; each consumer keeps the
columns it needs in its own three-bank memory (a small distributed RAM, read combinationally). A commit then
moves no data: `active_bank` and `epoch` change together in one cycle, for everybody.

Contract of the bus:

- `write` high: `row` of `tenant` is stored into `bank`. It is never the active bank.
- Banks and consumers agree after configuration: bank 0 is active, epoch 0, and holds `reset_row(tenant)` in every row
  (tenant 0 owns everything). Consumers initialise their copies with the same function. A later reset of the domain
  does not bring the rows back (see `fabric/rows.py`).
- `sum_pages` is the sum of `pages` over the rows of the active bank (the rest of a crosspoint's pages is the
  shared pool).
"""

from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import Out

from ..config import DeviceConfig

__all__ = ["BANKS", "FULL_RATE", "AllocationRow", "AllocationSignature", "reset_row"]

BANKS = 3
FULL_RATE = 1 << 16  # beats a cycle, in 1/65536


class AllocationRow(data.Struct):
    """What one tenant is granted. The layout is that of a row of the register map (`rm.staging[t]`).

    weight: share of every output's bandwidth (and, multiplied with nothing else, of engine time); 0: nothing
        is admitted for this tenant.
    rate: shaper rate at each output, in 1/65536 beat a cycle; `FULL_RATE` does not limit.
    burst: bucket depth of the shaper in beats, at least one packet (256); any rate is reached with ten (see 0085).
    pages: guaranteed buffer pages in each crosspoint.
    ports: bit *p*: fabric port *p* may be a destination.
    slots: bit *s*: engine slot *s* belongs to this tenant alone; slots that nobody owns are shared by all.
    host_share: of 256 `PROCESS` packets, how many are sent to the host's software twin.
    """

    weight: 16
    rate: 17
    burst: 15
    pages: 16
    ports: 16
    slots: 16
    host_share: 9


def reset_row(tenant: int, config: DeviceConfig) -> dict[str, int]:
    """Row of `tenant` after reset: tenant 0 owns everything, everybody else nothing.

    Burst and rate are harmless defaults, so that a row that only raises `weight` is legal.
    """
    mine = tenant == 0
    return {
        "weight": 4096 if mine else 0,
        "rate": FULL_RATE,
        "burst": 512,
        "pages": config.pages if mine else 0,
        "ports": (1 << config.ports) - 1 if mine else 0,
        "slots": (1 << config.slots) - 1 if mine else 0,
        "host_share": 0,
    }


class AllocationSignature(wiring.Signature):
    """The allocation bus, seen from the resource manager."""

    def __init__(self, config: DeviceConfig):
        self._config = config
        super().__init__({
            "write": Out(1),
            "bank": Out(range(BANKS)),
            "tenant": Out(range(config.tenants)),
            "row": Out(AllocationRow),
            "active_bank": Out(range(BANKS)),
            "epoch": Out(8),
            "sum_pages": Out(range(config.pages + 1)),
        })

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AllocationSignature) and self._config == other._config

    def __repr__(self) -> str:
        return f"AllocationSignature({self._config!r})"
