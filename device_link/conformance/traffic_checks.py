"""Self-test of the packet path: the device's own generator and checker."""

from __future__ import annotations

from .bench import Bench, CheckSkipped

PACKETS = 200


def generator_loop(bench: Bench) -> None:
    """Packets that the device sends through the fabric to its host port come back whole, in order, all of them."""
    device, config = bench.device, bench.identity.config
    row = device.read([device.active[0].weight, device.active[0].ports])
    if not row[0].weight or not row[1].ports & 1 << config.host_port:
        raise CheckSkipped("tenant 0 may not send to the host port under the allocation in force")
    generator = device.generator
    counters = [generator.sent, generator.received, generator.corrupted, generator.missequenced]
    port = device.port[config.host_port]
    with bench.restored([generator.packet, generator.interval, generator.count, generator.control]):
        for length in (64, 16 * config.beat_bytes, 16):
            generator.control.write(clear=1)
            admitted = int(port.admitted.read())
            device.write([
                (generator.packet, {"tenant": 0, "destination": config.host_port, "length": length}),
                (generator.interval, 0), (generator.count, PACKETS), (generator.control, {"enable": 1})])
            bench.until(lambda: int(generator.received.read()) >= PACKETS,
                        f"the return of {PACKETS} packets of {length} bytes")
            values = [int(value) for value in device.read(counters)]
            bench.equal(values, [PACKETS, PACKETS, 0, 0], "generator.(sent, received, corrupted, missequenced)")
            bench.expect(int(port.admitted.read()) - admitted & 0xFFFF_FFFF >= PACKETS,
                         "the host port counted fewer packets than came back")
            generator.control.write(enable=0)
