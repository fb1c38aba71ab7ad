"""Print what a device says about itself: identity, configuration, link, allocation and analyzer."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from morphnic.devices import add_device_flag, open_device
from morphnic.program import Context

if TYPE_CHECKING:
    from device_link import Device

RM_STATES = ("idle", "copying", "staging", "awaiting confirmation")


def configure(parser: argparse.ArgumentParser) -> None:
    """Flags of `morphnic info`."""
    add_device_flag(parser)


def run(arguments: argparse.Namespace, context: Context) -> int:
    """Read and print."""
    with open_device(context) as device:
        facts = facts_of(device)
    if context.json:
        context.document("info", facts)
        return 0
    identity, config = facts["identity"], facts["identity"]["config"]
    print(f"device      {facts['url']}")
    print(f"uid         {identity['uid']:#018x}   boot {identity['boot_nonce']:#010x}")
    print(f"build       {identity['build_id']:#018x}   register map {identity['map_hash']:#010x}")
    print(f"clock       {identity['clock_hz'] / 1e6:g} MHz, cycle {facts['cycle']} "
          f"({facts['cycle'] / identity['clock_hz']:.6g} s since reset)")
    print(f"fabric      {config['ports']} ports x {config['data_width']} bits, {config['pages']} pages a crosspoint")
    print(f"tenants     {config['tenants']}, {config['slots']} engine slots of {config['slot_bytes']} bytes a cycle, "
          f"{config['classifier_entries']} classifier entries, {config['rules']} reflex rules")
    print(f"serial      {identity['uart_baud']} baud" + (", UARTBone" if config["uartbone"] else ""))
    allocation, analyzer = facts["allocation"], facts["analyzer"]
    print(f"allocation  epoch {allocation['epoch']}, tag {allocation['tag']}, {allocation['state']}; "
          f"{allocation['commits']} commits, {allocation['rollbacks']} rollbacks, {allocation['refused']} refused")
    missing = [name.replace("_", " ") for name in ("histograms", "access_patterns", "forecasts") if not config[name]]
    print(f"analyzer    window {analyzer['window']} of {analyzer['window_cycles']} cycles"
          + (f"; no {', no '.join(missing)}" if missing else ""))
    print(f"can         {', '.join(facts['capabilities'])}")
    return 0


def facts_of(device: Device) -> dict[str, Any]:
    """Everything that is printed, as plain values, in three exchanges."""
    from device_link.device import fields_of

    identity = device.identity
    rm, analyzer = device.rm, device.analyzer
    active, status, tag, commits, rollbacks, refused, sequence, cycles = device.read([
        rm.active, rm.status, rm.active_tag, rm.commits, rm.rollbacks, rm.refused,
        analyzer.sequence, analyzer.window,
    ])
    return {
        "url": device.url,
        "identity": fields_of(identity),
        "cycle": device.cycle(),
        "allocation": {
            "epoch": active.epoch, "tag": int(tag),
            "state": RM_STATES[status.state] if status.state < len(RM_STATES) else f"state {status.state}",
            "commits": int(commits), "rollbacks": int(rollbacks), "refused": int(refused),
        },
        "analyzer": {"window": int(sequence), "window_cycles": int(cycles)},
        "capabilities": [one.name for one in device.capabilities],
    }
