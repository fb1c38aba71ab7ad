"""Subcommands of `host-agent`, one module each."""

from __future__ import annotations

import argparse

__all__ = ["add_manager_flag"]


def add_manager_flag(parser: argparse.ArgumentParser) -> None:
    """The manager's address, for commands that ask it."""
    parser.add_argument("--manager-url", metavar="URL", help="address of the offload manager")
