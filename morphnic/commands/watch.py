"""Follow a device window by window: what each tenant did, straight from the analyzer's snapshot registers.

Only registers are read, so that it works beside a manager and on every link. A snapshot is read between two
readings of the window number: when the numbers differ, it is read again. Windows that passed in between are told.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from morphnic.devices import add_device_flag, open_device
from morphnic.errors import InputError, LinkError
from morphnic.program import Context
from morphnic.table import plain_table, quantity

if TYPE_CHECKING:
    from device_link import Device

POLL_S = 0.02
ATTEMPTS = 20
LIST_WORDS = 240  # of one exchange
COLUMNS = ("tenant", "in", "out", "packets", "requests", "sequential", "drops", "depth", "waiting", "engine",
           "latency", "max", "misses")


def configure(parser: argparse.ArgumentParser) -> None:
    """Flags of `morphnic watch`."""
    add_device_flag(parser)
    parser.add_argument("--windows", type=int, metavar="N", help="end after N windows (default: never)")
    parser.add_argument("--timeout", type=float, default=10.0, metavar="SECONDS",
                        help="give up when no window ends for so long (default 10)")
    parser.add_argument("--all", action="store_true", help="idle tenants too")


def run(arguments: argparse.Namespace, context: Context) -> int:
    """Print every window."""
    if arguments.windows is not None and arguments.windows < 1:
        raise InputError(f"--windows must be at least 1, not {arguments.windows}")
    if not arguments.timeout > 0:
        raise InputError(f"--timeout must be over 0, not {arguments.timeout}")
    with open_device(context) as device:
        for count, window in enumerate(windows(device, arguments.timeout), 1):
            if context.json:
                context.line("watch", window)
            else:
                print(text(window, idle=arguments.all) + "\n", flush=True)
            if count == arguments.windows:
                break
    return 0


def windows(device: Device, timeout: float) -> Iterator[dict[str, Any]]:
    """Windows as they end; the first is the last complete one."""
    last: int | None = None
    deadline = time.monotonic() + timeout
    while True:
        number = int(device.analyzer.sequence.read())
        if number and number != last:
            window = snapshot(device)
            window["missed"] = 0 if last is None else (window["number"] - last - 1) % (1 << 32)
            last = window["number"]
            yield window
            deadline = time.monotonic() + timeout
        elif time.monotonic() > deadline:
            raise LinkError(
                f"{device.url}: no window has ended for {timeout:g} s; device time does not pass (a simulated "
                "device in lockstep waits for its manager), or analyzer.window is longer than that"
            )
        else:
            time.sleep(POLL_S)


def snapshot(device: Device) -> dict[str, Any]:
    """The newest window, all of one moment."""
    tenants = range(device.identity.config.tenants)
    names = list(device.map.block("snapshot").template)
    analyzer = device.analyzer
    for _ in range(ATTEMPTS):
        head = [int(word) for word in device.read(
            [analyzer.sequence, analyzer.start_lo, analyzer.start_hi, analyzer.cycles, analyzer.skipped,
             device.rm.active])]
        words: list[int] = []
        addresses = [register.address for tenant in tenants
                     for register in device.map.block("snapshot").registers(tenant)]
        for start in range(0, len(addresses), LIST_WORDS):
            words += device.transport.read_many(addresses[start:start + LIST_WORDS])
        if int(analyzer.sequence.read()) == head[0]:
            break
    else:
        raise LinkError(
            f"{device.url}: windows end faster than the link reads one; make them longer: "
            "`morphnic regs write analyzer.window=1000000`"
        )
    rows = [dict(zip(names, words[tenant * len(names):(tenant + 1) * len(names)], strict=True)) for tenant in tenants]
    return {
        "number": head[0], "start": head[1] | head[2] << 32, "cycles": head[3], "skipped": head[4],
        "epoch": head[5] & 0xFF, "clock_hz": device.identity.clock_hz,
        "tenants": [{"tenant": tenant, **row} for tenant, row in zip(tenants, rows, strict=True)],
    }


def text(window: dict[str, Any], *, idle: bool) -> str:
    """One window for people: rates by the device's clock, latency in microseconds."""
    per_second = window["clock_hz"] / window["cycles"] if window["cycles"] else None
    microseconds = 1e6 / window["clock_hz"]

    def rate(count: int) -> str:
        return quantity(None if per_second is None else count * per_second, "B/s")

    rows = []
    for row in window["tenants"]:
        packets, latency = row["packets_out"], "-"
        if packets:
            cycles = row["flags"] >> 24 << 32 | row["latency_sum_low"]
            latency = f"{cycles / packets * microseconds:.2f} us"
        if not idle and not (row["packets_in"] or packets or row["drops"]):
            continue
        rows.append([
            str(row["tenant"]), rate(row["bytes_in"]), rate(row["bytes_out"]), str(packets), str(row["requests"]),
            str(row["sequential"]), str(row["drops"]), str(row["peak"] & 0xFFFF),
            share(row["backpressure_cycles"], window["cycles"]), share(row["engine_cycles"], window["cycles"]),
            latency, f"{row['latency_max'] * microseconds:.2f} us" if packets else "-", str(row["slo_misses"]),
        ])
    missed = f", {window['missed']} missed" if window["missed"] else ""
    head = (f"window {window['number']}{missed}: {window['cycles']} cycles from {window['start']}, "
            f"epoch {window['epoch']}")
    return head + "\n" + (plain_table(COLUMNS, rows, right=range(len(COLUMNS))) if rows else "all tenants were idle")


def share(cycles: int, of: int) -> str:
    """Part of the window."""
    return f"{cycles / of:.0%}" if of else "-"
