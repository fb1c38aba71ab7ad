"""What was done to a board since its reset, so that a build that traces can repeat it for a waveform."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .records import ACCESS_LIMIT

if TYPE_CHECKING:
    from .board import Board

LOG_LIMIT = 2_000_000  # calls; waveforms of a longer run are refused


class InputLog:
    """Calls of a board's methods, in order. keep: whether anything is noted at all."""

    def __init__(self, keep: bool) -> None:
        self._calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.complete = keep

    def note(self, name: str, *arguments: Any, **options: Any) -> None:
        """The board's method `name` was called; arguments must not change any more."""
        if self.complete:
            self._calls.append((name, arguments, options))
            if len(self._calls) > LOG_LIMIT:
                self.give_up()

    def advanced(self, cycles: int) -> None:
        """The board ran for `cycles`; runs that follow each other are one."""
        if self._calls and self._calls[-1][0] == "advance":
            cycles += self._calls.pop()[1][0]
        self.note("advance", cycles)

    def clear(self) -> None:
        """The board was reset."""
        self._calls.clear()

    def give_up(self) -> None:
        """Something happened that cannot be repeated."""
        self._calls.clear()
        self.complete = False

    def repeat(self, board: Board, begin: Callable[[], None], first: int, end: int) -> None:
        """Do the same to another board up to cycle `end`; call `begin` once, at cycle `first` or before an access
        that may run past it."""
        begun = False

        def begin_by(cycle: int) -> None:
            nonlocal begun
            if not begun and cycle >= first:
                begun = True
                begin()

        for name, arguments, options in self._calls:
            if name == "advance":
                left = arguments[0]
                left -= board.advance(max(min(left, first - board.cycle), 0))
                begin_by(board.cycle)
                board.advance(max(min(left, end - board.cycle), 0))
            else:
                if name == "access":
                    begin_by(board.cycle + ACCESS_LIMIT * len(arguments[0]))
                getattr(board, name)(*arguments, **options)
            if board.cycle >= end:
                break
