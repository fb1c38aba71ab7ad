"""What the control documents of a simulated device do to its board; the table is in `sim/server.py`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from device_link.serving import Refusal
from morphnic.errors import LinkError

from .board import Board, Ready
from .options import ServerOptions
from .workloads import Workload

PORT_COUNTERS = 0x7000 // 4  # word address of port[0]; four words a port: admitted, dropped, left, cut
_RECORDS = ("completions", "twins", "faults")


class Controller:
    """Carries out the operations that need nothing but the board."""

    def __init__(self, board: Board, options: ServerOptions) -> None:
        self._board, self._options = board, options
        self._operations = {
            "status": self._status, "load": self._load, "traffic": self._traffic, "account": self._account,
            "records": self._records, "sink": self._sink, "twin": self._twin, "waveform": self._waveform,
        }

    def operate(self, op: str, document: dict[str, Any]) -> dict[str, Any]:
        """The answer to `op`; raises `Refusal` and other `MorphnicError`s."""
        if op not in self._operations:
            known = ", ".join([*self._operations, "attach", "acquire", "release", "describe", "advance", "wait",
                               "reset", "shutdown"])
            raise Refusal("unknown", f"op must be one of {known}, not {op!r}")
        return {"ok": True, **self._operations[op](document)}

    def _status(self, _: dict[str, Any]) -> dict[str, Any]:
        board = self._board
        return {"name": self._options.name, "mode": "lockstep" if self._options.lockstep else "free-running",
                "cycle": board.cycle, "epoch": board.epoch, "config": asdict(board.config),
                "model": board.model.key, "boot_nonce": board.boot_nonce, "uid": board.uid}

    def _load(self, document: dict[str, Any]) -> dict[str, Any]:
        workload = Workload.load(Path(document["path"]))
        at = int(document.get("at", self._board.cycle))
        first = self._board.load(workload.packets, workload.payload, at=at)
        return {"first": first, "packets": len(workload.packets), "cycle": at, "name": workload.name,
                "sha256": workload.sha256}

    def _traffic(self, _: dict[str, Any]) -> dict[str, Any]:
        rows = self._board.tenants()
        tenants = [dict(zip(rows.dtype.names or (), row, strict=True)) for row in rows.tolist()]
        return {"stats": self._board.stats(), "tenants": tenants, "ports": self._board.ports().tolist()}

    def _account(self, _: dict[str, Any]) -> dict[str, Any]:
        dropped, cut = drop_counters(self._board)
        account = self._board.account(dropped=dropped, cut=cut)
        return {**asdict(account), "clean": account.clean, "text": str(account)}

    def _records(self, document: dict[str, Any]) -> dict[str, Any]:
        kind = document.get("kind", "completions")
        if kind not in _RECORDS:
            raise Refusal("input", f"kind must be one of {', '.join(_RECORDS)}, not {kind!r}")
        rows = getattr(self._board, kind)(int(document.get("since", 0)))
        path = Path(document["path"])
        with open(path, "wb") as file:
            np.save(file, rows, allow_pickle=False)
        if "payloads" in document:
            if kind == "faults":
                raise Refusal("input", "payloads can be had of completions and twins, not of faults")
            with open(document["payloads"], "wb") as file:
                file.writelines(self._board.payload(int(index)) for index in rows["index"])
        return {"count": len(rows), "path": str(path)}

    def _sink(self, document: dict[str, Any]) -> dict[str, Any]:
        name = str(document["ready"]).upper()
        if name not in Ready.__members__:
            raise Refusal("input", f"ready must be always, random, periodic or never, not {document['ready']!r}")
        self._board.sink(int(document["port"]), Ready[name], int(document.get("a", 0)), int(document.get("b", 0)),
                         seed=int(document.get("seed", 1)))
        return {}

    def _twin(self, document: dict[str, Any]) -> dict[str, Any]:
        self._board.twin(cores=int(document["cores"]), cycles_per_packet=int(document["cycles_per_packet"]),
                         cycles_per_byte=float(document["cycles_per_byte"]))
        return {}

    def _waveform(self, document: dict[str, Any]) -> dict[str, Any]:
        first, end = self._board.waveform(
            document["path"], start=document.get("start"), trigger=document.get("trigger"),
            cycles=int(document.get("cycles", 1000)), before=int(document.get("before", 100)))
        return {"first": first, "end": end, "path": str(document["path"])}


def drop_counters(board: Board) -> tuple[int, int]:
    """Packets that the device says it dropped by policy and cut off, over all ports, since reset."""
    dropped = cut = 0
    for port in range(board.config.ports):
        try:
            dropped += board.read(PORT_COUNTERS + 4 * port + 1)
            cut += board.read(PORT_COUNTERS + 4 * port + 3)
        except LinkError as error:
            raise Refusal("state", f"the device has no port counters, so lost packets cannot be told from "
                          f"dropped ones ({error})") from error
    return dropped, cut
