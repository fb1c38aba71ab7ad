"""The C++ board as a harness of a model: its sources, and the header that binds it to the ports of one device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gateware.config import DeviceConfig
from morphnic.errors import BuildError

from .build import Harness, Model, Port, Progress, Variant, build, cached_verilog, print_progress, to_verilog
from .wrapper import TOP, wrap

_ROOT = Path(__file__).parent.parent
_FOLDER = Path(__file__).parent / "board"
_SOURCES = tuple(_FOLDER / name for name in (
    "board.cpp", "bits.hpp", "board.hpp", "commits.hpp", "epochs.hpp", "pins.hpp", "root.hpp", "scoreboard.hpp",
    "serial.hpp", "streams.hpp", "traffic.hpp"))


def board_harness(config: DeviceConfig) -> Harness:
    """Harness of a device with the ports of `gateware.device.Device` for `config`."""
    def generate(ports: Sequence[Port]) -> dict[str, str]:
        return {"board_ports.h": _bindings(ports, config)}

    return Harness("board", _SOURCES, generate, version=config.digest() + Path(__file__).read_text())


def device_model(config: DeviceConfig, *, component: Callable[[], Any] | None = None,
                 variant: Variant = Variant.FAST, progress: Progress = print_progress) -> Model:
    """The built model of a device.

    component: makes the top level; by default `gateware.device.Device(config)`.
    """
    if component is not None:
        verilog = to_verilog(component())
    else:
        verilog = device_verilog(config, progress)
    return build(wrap(verilog), board_harness(config), variant=variant, top=TOP, progress=progress)


def device_verilog(config: DeviceConfig, progress: Progress = print_progress) -> str:
    """Verilog of `gateware.device.Device(config)`, from the cache when the sources have not changed."""
    def elaborate() -> str:
        from gateware.device import Device

        return to_verilog(Device(config))

    sources = [*(_ROOT / "gateware").rglob("*.py"), *(_ROOT / "rtl" / "registers").glob("*.rdl"),
               *(_ROOT / "rtl" / "registers").glob("*.py")]
    return cached_verilog([config.digest()], sources, elaborate, progress)


def _bindings(ports: Sequence[Port], config: DeviceConfig) -> str:
    """Text of `board_ports.h`: sizes, types, and one source and sink for each packet port."""
    members = {port.name: port.member for port in ports}

    def member(name: str) -> str:
        if name not in members:
            raise BuildError(f"the device has no port {name}; is it a `gateware.device.Device` of this configuration?")
        return members[name]

    def packet_pins(prefix: str) -> str:
        names = ("header__payload", "header__valid", "header__ready", "data__payload", "data__valid", "data__ready")
        return ", ".join(f"&t.{member(f'{prefix}__{name}')}" for name in names)

    def frame_pins(prefix: str) -> str:
        names = ("payload", "valid", "ready")
        return "nullptr, nullptr, nullptr, " + ", ".join(f"&t.{member(f'{prefix}__{name}')}" for name in names)

    binds = [f"sources.emplace_back(StreamPins{{{packet_pins('host_rx')}}}, store, score, MAX_TENANTS);",
             f"sinks.emplace_back(StreamPins{{{packet_pins('host_tx')}}}, score, 0);"]
    for index, port in enumerate(config.net_ports):
        binds.append(f"sources.emplace_back(StreamPins{{{frame_pins(f'net_rx__{index}')}}}, store, score, 1);")
        binds.append(f"sinks.emplace_back(StreamPins{{{packet_pins(f'net_tx__{index}')}}}, score, {port});")
    lines = [
        "#pragma once", "#include <type_traits>", "#include <utility>",
        f"#define BOARD_PORTS {config.ports}",
        f"#define BOARD_DATA_WIDTH {config.data_width}",
        f"#define BOARD_CLOCK_HZ {config.clock_hz}",
        f"#define BOARD_BAUD {config.uart_baud}",
        f"#define BOARD_INTERRUPT {member('interrupt')}",
        f"#define BOARD_CREDIT t.{member('host_credit')}",
        f"#define BOARD_BEAT_TYPE {_type_of(member('host_rx__data__payload'))}",
        f"#define BOARD_HEADER_TYPE {_type_of(member('host_rx__header__payload'))}",
        *([f"#define BOARD_PCIE_WIDTH {config.pcie_width}"] if config.pcie_width else []),
        "#define BOARD_BIND \\\n    " + " \\\n    ".join(binds),
    ]
    return "\n".join(lines) + "\n"


def _type_of(member: str) -> str:
    return f"std::remove_reference_t<decltype(std::declval<Vtop&>().{member})>"
