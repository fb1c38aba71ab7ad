"""How close DMA and host queues over PCIe come to the payload that the link carries, in a model of UltraScale+.

The model is cocotbext-pcie's. The link is of the third generation at 250 MHz, with as many lanes as fill the width of a
beat: 2, 4, 8 and 16 at 64 to 512 bits. The limit is the rate of its lanes, less the header (3 DWs) and the 8 bytes of
framing, sequence number and LCRC of each TLP, at a maximum payload of 256 bytes and read requests of 512.
Acknowledgements and credit updates are in the model and count against the core. In simulation, not on hardware.

The rows of the host queues count the packets' bytes alone. Their limit is what the protocol leaves for these in the
direction in which they go: beside a packet's own TLPs its descriptor of 16 bytes, written back (of packets received) or
read (of those sent) in TLPs that are full of descriptors; and the requests for descriptors, as long as they may be.
Interrupts, and descriptors in TLPs that are not full, are the device's choice and count against it. The ratio to the
limit of DMA is shown beside it. Transmitted packets are at most 32 beats long, so that narrow links have no row for
longer ones.
"""

import contextlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from _figures import Figure, arguments, progress, report
from _pcie_cocotb import BENCH
from _pcie_queues_cocotb import BENCH as QUEUES
from _pcie_queues_cocotb import SIZES, TENANTS
from cocotbext.pcie.core.port import PCIE_GEN_RATE

from gateware.config import CREDIT_BEATS
from tests.hdl.bench import Bench, Case, Value
from tests.hdl.harness import run_case
from tests.hdl.pcie_host import LANES

PAYLOAD, READ, OVERHEAD, DESCRIPTOR = 256, 512, 12 + 8, 16
TARGET, QUEUE_TARGET = 0.95, 0.9


def run(bench: Bench, changes: dict[str, Value]) -> Any:
    """What a case of `bench` measured."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        case = Case(bench, bench.defaults({**changes, "result": str(result)}), 1)
        with contextlib.redirect_stdout(sys.stderr):  # stdout carries figures only
            outcome = run_case(case, Path(folder) / "run")
        if not outcome.passed:
            raise RuntimeError(outcome.summary())
        return json.loads(result.read_text())


def limit_of(width: int) -> float:
    """Bytes of payload in a nanosecond."""
    return float(PCIE_GEN_RATE[3] / 8 * LANES[width] / 1e9 * PAYLOAD / (PAYLOAD + OVERHEAD))


def queue_limit(width: int, way: str, size: int) -> float:
    """Bytes of packets of `size` bytes in a nanosecond, with the least that their descriptors take."""
    tlps = -(-size // PAYLOAD)
    descriptor = DESCRIPTOR + OVERHEAD * DESCRIPTOR / PAYLOAD
    request = OVERHEAD * DESCRIPTOR / READ if way == "rx" else 0
    return float(PCIE_GEN_RATE[3] / 8 * LANES[width] / 1e9 * size / (size + tlps * OVERHEAD + descriptor + request))


def figure(name: str, width: int, rate: float, limit: float, target: float, **conditions: Value) -> Figure:
    return Figure(f"pcie.{name}_over_limit", rate / limit, "ratio", {"limit GB/s": limit}, (">=", target),
                  {"width": width, "lanes": LANES[width], "GB/s": rate, "payload": PAYLOAD, "read request": READ,
                   **conditions})


def dma(width: int, commands: int) -> list[Figure]:
    """Steady rates of writes and reads."""
    progress(f"{width} bits, {LANES[width]} lanes: DMA")
    found = run(BENCH, {"width": width, "commands": commands})
    return [figure(f"dma_{way}", width, found[way], limit_of(width), TARGET) for way in ("read", "write")]


def queues(width: int, sizes: list[int], tenants: int) -> list[Figure]:
    """Steady rates of packets that are sent and received, of `tenants` tenants in turn."""
    figures = []
    for way in ("tx", "rx"):
        for size in sizes:
            if way == "tx" and size > CREDIT_BEATS * width // 8:
                continue
            progress(f"{width} bits, {LANES[width]} lanes: {way} of {size} bytes")
            rate = run(QUEUES, {"width": width, "bytes": size, "way": way, "queues": tenants})
            figures.append(figure(f"queue_{way}", width, rate, queue_limit(width, way, size), QUEUE_TARGET, bytes=size,
                                  queues=tenants, **{"over DMA's limit": rate / limit_of(width)}))
    return figures


def main() -> None:
    """Measure every width that is asked for, and report."""
    options = arguments(__doc__.splitlines()[0],
                        widths={"type": int, "nargs": "+", "default": list(LANES), "help": "bits of a beat"},
                        commands={"type": int, "default": 4, "help": "of 16 KiB each (default %(default)s)"},
                        only={"choices": ("dma", "queues"), "help": "leave the other out"},
                        queues={"type": int, "choices": (1, TENANTS), "default": 1,
                                "help": "tenants whose rings are in use (default %(default)s)"},
                        sizes={"type": int, "nargs": "+", "default": list(SIZES), "help": "bytes of a packet"})
    figures: list[Figure] = []
    for width in options.widths:
        if options.only != "queues":
            figures += dma(width, options.commands)
        if options.only != "dma":
            figures += queues(width, options.sizes, options.queues)
    report(figures, as_json=options.json)


if __name__ == "__main__":
    main()
