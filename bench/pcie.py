"""How close DMA over PCIe comes to what the link can carry as payload, in a model of the UltraScale+ block.

The model is cocotbext-pcie's. The link is of the third generation at 250 MHz, with as many lanes as fill the width of a
beat: 2, 4, 8 and 16 at 64 to 512 bits. The limit is the rate of its lanes, less the header (3 DWs) and the 8 bytes of
framing, sequence number and LCRC of each TLP, at a maximum payload of 256 bytes and read requests of 512.
Acknowledgements and credit updates are in the model and count against the core. In simulation, not on hardware.
"""

import contextlib
import json
import sys
import tempfile
from pathlib import Path

from _figures import Figure, arguments, progress, report
from _pcie_cocotb import BENCH
from cocotbext.pcie.core.port import PCIE_GEN_RATE

from tests.hdl.bench import Case
from tests.hdl.harness import run_case
from tests.hdl.pcie_host import LANES

PAYLOAD, OVERHEAD = 256, 12 + 8
TARGET = 0.95


def measure(width: int, commands: int) -> dict[str, float]:
    """Steady rates of writes and reads, in bytes a nanosecond."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        case = Case(BENCH, BENCH.defaults({"width": width, "commands": commands, "result": str(result)}), 1)
        with contextlib.redirect_stdout(sys.stderr):  # stdout carries figures only
            outcome = run_case(case, Path(folder) / "run")
        if not outcome.passed:
            raise RuntimeError(outcome.summary())
        return dict(json.loads(result.read_text()))


def main() -> None:
    """Measure every width that is asked for, and report."""
    options = arguments(__doc__.splitlines()[0],
                        widths={"type": int, "nargs": "+", "default": list(LANES), "help": "bits of a beat"},
                        commands={"type": int, "default": 4, "help": "of 16 KiB each (default %(default)s)"})
    figures = []
    for width in options.widths:
        progress(f"{width} bits, {LANES[width]} lanes")
        found = measure(width, options.commands)
        limit = PCIE_GEN_RATE[3] / 8 * LANES[width] / 1e9 * PAYLOAD / (PAYLOAD + OVERHEAD)
        for way in ("read", "write"):
            figures.append(Figure(
                f"pcie.dma_{way}_over_limit", found[way] / limit, "ratio", {"limit GB/s": limit}, (">=", TARGET),
                {"width": width, "lanes": LANES[width], "GB/s": found[way], "payload": PAYLOAD, "read request": 512}))
    report(figures, as_json=options.json)


if __name__ == "__main__":
    main()
