"""Signals by hand: the device in pyverilator, to poke and peek at a prompt. Far too slow for traffic.

pyverilator 0.7.0 does not work as installed: it imports tclwrapper, which fails on Python 3.11, and cannot read the
headers of Verilator 5. So its C++ template is given the ports that `sim.build` read, the library is built (and
cached) like every model, and `PyVerilator` opens it unchanged.
"""

from __future__ import annotations

import code
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gateware.config import DeviceConfig
from morphnic.errors import EnvironmentFault

from .build import Harness, Port, Progress, Variant, build, print_progress, to_verilog
from .harness import device_verilog
from .toolchain import package_version


def _pyverilator() -> Any:
    """The package, imported with a stand-in for tclwrapper, which only its GTKWave view needs."""
    if package_version("pyverilator") is None:
        raise EnvironmentFault("pyverilator is not installed: pip install 'morphnic[sim]'")
    if "tclwrapper" not in sys.modules:
        sys.modules["tclwrapper"] = types.ModuleType("tclwrapper")
    import pyverilator

    return pyverilator


def _harness() -> Harness:
    from inspect import getsource

    _pyverilator()
    import pyverilator.verilatorcpp as cpp

    def generate(ports: Sequence[Port]) -> dict[str, str]:
        # The names are the C++ members; `interrupt` is a word of C++ and becomes __SYM__interrupt there.
        inputs = [(port.member, port.width) for port in ports if port.direction == "in"]
        outputs = [(port.member, port.width) for port in ports if port.direction == "out"]
        return {"pyverilator_wrapper.cpp": cpp.template_cpp("top", inputs, outputs, [], '"null"')}

    # The template brings its own vl_finish; the runtime has one too, and the first is taken.
    return Harness("pyverilator", generate=generate, version=getsource(cpp) + Path(__file__).read_text(),
                   link=("-Wl,--allow-multiple-definition",))


class SignalSim:
    """A top level with its pins: `sim["mmio__address"] = 3`, `sim.step()`, `sim["mmio__r_data"]`."""

    def __init__(self, verilog: str, *, progress: Progress = print_progress) -> None:
        # The template traces waveforms, so the trace build it is.
        model = build(verilog, _harness(), variant=Variant.TRACE, progress=progress,
                      what="the signal-level model")
        self.raw = _pyverilator().PyVerilator(str(model.library))
        self.ports = {port.name: port for port in model.ports}
        self.cycle = 0
        self.raw.auto_eval = False
        self["clk"] = 0
        self.raw.eval()

    def _port(self, name: str) -> Port:
        if name not in self.ports:
            near = [one for one in self.ports if name.split("_")[0] in one]
            raise KeyError(f"no pin {name!r}; " + (f"near it: {', '.join(near[:8])}" if near else "see .ports"))
        return self.ports[name]

    def __getitem__(self, name: str) -> int:
        port = self._port(name)
        if port.width <= 32:
            return int(self.raw._read_32(port.member))
        if port.width <= 64:
            return int(self.raw._read_64(port.member))
        return int(self.raw._read_words(port.member, (port.width + 31) // 32))

    def __setitem__(self, name: str, value: int) -> None:
        port = self._port(name)
        if port.direction != "in":
            raise ValueError(f"{name} is driven by the device")
        if not 0 <= value < 1 << port.width:
            raise ValueError(f"{name} has {port.width} bits; {value!r} does not fit")
        if port.width <= 32:
            self.raw._write_32(port.member, value)
        elif port.width <= 64:
            self.raw._write_64(port.member, value)
        else:
            self.raw._write_words(port.member, (port.width + 31) // 32, value)

    def step(self, cycles: int = 1) -> None:
        """Run clock cycles; combinational outputs are settled afterwards."""
        for _ in range(cycles):
            self["clk"] = 1
            self.raw.eval()
            self["clk"] = 0
            self.raw.eval()
            self.cycle += 1

    def settle(self) -> None:
        """Let combinational outputs follow the inputs, without a clock edge."""
        self.raw.eval()

    def read(self, address: int) -> int:
        """The register at a word address, by the pins of the register bus."""
        return self._access(address, 0, write=False)

    def write(self, address: int, value: int) -> None:
        """Write the register at a word address, by the pins of the register bus."""
        self._access(address, value, write=True)

    def _access(self, address: int, value: int, *, write: bool) -> int:
        self["mmio__address"], self["mmio__write"] = address, int(write)
        self["mmio__w_data"], self["mmio__w_mask"], self["mmio__valid"] = value, 15, 1
        self.settle()
        for _ in range(64):
            if self["mmio__ready"]:
                break
            self.step()
        ready, error, data = self["mmio__ready"], self["mmio__error"], self["mmio__r_data"]
        self.step()
        self["mmio__valid"] = 0
        self.settle()
        if not ready or error:
            raise ValueError(f"register 0x{address * 4:05x} " + ("refused" if ready else "does not answer"))
        return data


def open_device(config: DeviceConfig | None = None, *, component: Callable[[], Any] | None = None,
                progress: Progress = print_progress) -> SignalSim:
    """The device (or another top level) at signal level."""
    verilog = to_verilog(component()) if component else device_verilog(config or DeviceConfig(), progress)
    return SignalSim(verilog, progress=progress)


def interact(config: DeviceConfig | None = None) -> None:
    """A Python prompt with `sim`; what `morphnic sim repl` runs."""
    sim = open_device(config)
    banner = (f"sim: the device at signal level, {len(sim.ports)} pins, cycle {sim.cycle}\n"
              "  sim['epoch']           read a pin       sim['mmio__valid'] = 1   drive one\n"
              "  sim.step(10)           run the clock    sim.read(0)              read a register (word address)\n"
              "  sorted(sim.ports)      the pins         Ctrl-D                   leave")
    code.interact(banner=banner, local={"sim": sim}, exitmsg="")
