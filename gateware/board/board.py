"""`Board`: what one board is, in one frozen dataclass that imports no HDL.

Each module of `gateware.board.boards` holds one `BOARD`; its file name, with `-` for `_`, is the name that
`--board` takes. `docs/guides/boards.md` takes you through a new one.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from dataclasses import dataclass, field
from typing import Any

from morphnic.errors import InputError

from ..config import DeviceConfig

__all__ = ["Board", "Cable", "PinName", "board_names", "find_board"]

#: A pin as Amaranth's platform knows it: resource, number, and a subsignal of it or None.
PinName = tuple[str, int, str | None]


@dataclass(frozen=True)
class Cable:
    """How a board is programmed, and how its USB side is told from others.

    usb: (vendor, product) ids, shared by many cables. product: text within the USB product string, "" when the
    board's adapter carries none of its own. loader: arguments of openFPGALoader that name board and cable.
    flash_only: there is no way to load the FPGA but through its configuration flash.
    """

    usb: tuple[int, int]
    product: str
    loader: tuple[str, ...]
    flash_only: bool = False


@dataclass(frozen=True)
class Board:
    """One board.

    platform: MODULE:CLASS of the Amaranth platform. family: "ecp5" or "ice40". nextpnr: arguments that name part,
    package and speed grade. config: the device that it carries; its `clock_hz` is asked of the PLL, which gives the
    lowest frequency at or above it. leds: heartbeat, link, epoch, as many as there are. idcode: JTAG IDCODE of the
    part, None when it has none.
    """

    title: str
    platform: str
    family: str
    nextpnr: tuple[str, ...]
    config: DeviceConfig
    cable: Cable
    idcode: int | None
    uart: tuple[str, int] = ("uart", 0)
    leds: tuple[PinName, ...] = ()
    name: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if self.family not in ("ecp5", "ice40"):
            raise ValueError(f"family must be 'ecp5' or 'ice40', not {self.family!r}")
        if self.idcode is not None and not 0 < self.idcode < 1 << 32:
            raise ValueError(f"idcode must be in 1..2**32-1 or None, not {self.idcode!r}")
        if len(self.leds) > 3:
            raise ValueError(f"leds must be at most heartbeat, link and epoch, not {self.leds!r}")

    def make_platform(self) -> Any:
        """A new Amaranth platform; each is good for one build."""
        module, _, name = self.platform.partition(":")
        return getattr(importlib.import_module(module), name)()


def board_names() -> list[str]:
    """Names of all boards, in order."""
    from . import boards

    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(boards.__path__))


def find_board(name: str) -> Board:
    """The board called `name`. Raises `InputError` that lists what there is."""
    known = board_names()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else "known: " + ", ".join(known)
        raise InputError(f"there is no board '{name}'; {hint}")
    board: Board = importlib.import_module(f"{__package__}.boards.{name.replace('-', '_')}").BOARD
    object.__setattr__(board, "name", name)
    return board
