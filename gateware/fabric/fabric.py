"""Fabric: the crosspoint-buffered crossbar between all ports, under the allocation.

Contract: a packet offered at `inputs[i]` is admitted, dropped or made to wait at its header (see `admission`),
and an admitted packet leaves at `outputs[d]` of its resolved destination exactly once, after all of it has
arrived, or is reported as cut off (see `output`). Order within (tenant, input, output) is kept. What an output's
sink or another tenant does delays a packet within the weights, and refuses one only beyond the guaranteed pages.
Unloaded, the first beat is offered 7 cycles after the last one was; 8 if header and last beat came together. At
inputs and outputs packets follow each other without a pause.

An output arbitrates its column alone; nothing but the allocation bus, and what its rows grant the shapers, is shared
between columns. `credit[t]` tells the host's queues that a packet of tenant *t*, up to `CREDIT_BEATS`, is admitted
without waiting (see `credit`); it follows the page accounts after two cycles. While a header of the host is undecided,
it is low for that header's tenant, and for all whose next packet would need shared pages. `engine` is what the engines
let their column send (see `events`).
"""

from functools import reduce
from operator import and_

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..config import DeviceConfig
from ..manager.allocation import AllocationSignature
from ..stream.packet import PacketSignature
from .admission import Admission
from .allowances import Allowances
from .crosspoint import Crosspoint
from .events import EgressEventSignature, EngineFeedbackSignature, IngressEventSignature
from .output import Output

__all__ = ["Fabric"]


class Fabric(wiring.Component):
    """All inputs, crosspoints and outputs."""

    def __init__(self, config: DeviceConfig):
        self._config = config
        super().__init__({
            "inputs": In(PacketSignature(config)).array(config.ports),
            "outputs": Out(PacketSignature(config)).array(config.ports),
            "allocation": In(AllocationSignature(config)),
            "cycle": In(64),
            "stall_timeout": In(32),
            "credit": Out(config.tenants),
            "engine": In(EngineFeedbackSignature(config)),
            "ingress": Out(IngressEventSignature(config)).array(config.ports),
            "egress": Out(EgressEventSignature(config)).array(config.ports),
        })

    @property
    def config(self) -> DeviceConfig:
        """Parameters of the device that this fabric belongs to."""
        return self._config

    def elaborate(self, platform):
        m = Module()
        config = self._config
        admissions = [Admission(config, port) for port in range(config.ports)]
        outputs = [Output(config, port, feedback=port == config.engine_port) for port in range(config.ports)]

        for port, admission in enumerate(admissions):
            m.submodules[f"admission_{port}"] = admission
            wiring.connect(m, wiring.flipped(self.inputs[port]), admission.packets)
            wiring.connect(m, wiring.flipped(self.ingress[port]), admission.ingress)
            self._share(m, admission)
        m.submodules.allowances = allowances = Allowances(config)
        wiring.connect(m, wiring.flipped(self.allocation), allowances.allocation)
        for port, output in enumerate(outputs):
            m.submodules[f"output_{port}"] = output
            wiring.connect(m, output.packets, wiring.flipped(self.outputs[port]))
            wiring.connect(m, wiring.flipped(self.egress[port]), output.egress)
            m.d.comb += [output.stall_timeout.eq(self.stall_timeout), output.refill.eq(allowances.refill)]
            self._share(m, output)
        wiring.connect(m, wiring.flipped(self.engine), outputs[config.engine_port].engine)
        host_row = []
        for row, admission in enumerate(admissions):
            for column, output in enumerate(outputs):
                crosspoint = Crosspoint(config, credit=row == config.host_port)
                m.submodules[f"crosspoint_{row}_{column}"] = crosspoint
                wiring.connect(m, wiring.flipped(self.allocation), crosspoint.allocation)
                wiring.connect(m, admission.bookings[column], crosspoint.booking)
                wiring.connect(m, admission.crosspoints[column], crosspoint.w)
                wiring.connect(m, output.crosspoints[row], crosspoint.r)
                if row == config.host_port:
                    host_row.append(crosspoint)
        self._give_credit(m, host_row, admissions[config.host_port].pending)
        return m

    def _give_credit(self, m, crosspoints, pending):
        """A host queue does not know where its next packet will be resolved to: credit needs room everywhere.

        The accounts do not know an undecided packet yet. It may take what is shared, and what is its own tenant's.
        """
        room = reduce(and_, (crosspoint.room for crosspoint in crosspoints))
        own = reduce(and_, (crosspoint.own for crosspoint in crosspoints))
        undecided = pending.any().replicate(self._config.tenants)
        m.d.sync += self.credit.eq(room & (~undecided | (own & ~pending)))

    def _share(self, m, part):
        """The allocation and the time, which every input and output needs."""
        wiring.connect(m, wiring.flipped(self.allocation), part.allocation)
        m.d.comb += part.cycle.eq(self.cycle)
