"""The traffic of the speed bench, the same for every simulator: tenant 0 sends 64-beat packets to the host port.

After reset tenant 0 owns everything, so nothing has to be set up. Packets follow each other as fast as they are taken.
"""

BEATS = 64
LENGTH = BEATS * 8
WARM_UP = 200  # cycles


def header() -> int:
    """Bits of the header: tenant 0, destination 0 and class 0 are all zero."""
    return LENGTH << 22


def beat(index: int) -> int:
    """Bits of beat `index` of a packet: data, no empty bytes, last."""
    return (index * 0x0101010101010101 & (1 << 64) - 1) | (int(index == BEATS - 1) << 67)


class Source:
    """What the host port offers next; call `header_taken` and `beat_taken` as the device takes them."""

    def __init__(self) -> None:
        self.header_offered, self.index, self.packets = True, 0, 0

    def header_taken(self) -> None:
        """The header went; the next is offered with its packet."""
        self.header_offered = False

    def beat_taken(self) -> None:
        """A beat went."""
        self.index += 1
        if self.index == BEATS:
            self.index, self.header_offered = 0, True
            self.packets += 1
