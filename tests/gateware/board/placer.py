"""A tool that fails for one seed, in place of a placer."""

from pathlib import Path

from gateware.board import tools


def placer_failing_at(seed: int, folder: Path) -> Path:
    """nextpnr for iCE40, but for `seed`, at which it says why and ends."""
    path = folder / "placer"
    path.write_text("#!/bin/sh\n"
                    f'case "$*" in *"--seed {seed}"*) echo "ERROR: no way left"; exit 1; esac\n'
                    f'exec "{tools.command("nextpnr-ice40")}" "$@"\n')
    path.chmod(0o755)
    return path
