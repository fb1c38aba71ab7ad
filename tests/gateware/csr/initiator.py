"""One access on a CSR bus, as an initiator makes it, with the checks that every access gets."""

from typing import Any

from amaranth import Cat, Const


async def access(ctx: Any, bus: Any, address: int, value: int | None = None, mask: int = 0xF,
                 *, limit: int = 16, watch: Any = None) -> tuple[int, ...]:
    """Access the word at byte `address`; error, data read, cycles taken. Leaves `valid` low.

    `watch`: a value to be sampled in the cycle of the answer, and returned last.
    """
    ctx.set(bus.valid, 1)
    ctx.set(bus.write, value is not None)
    ctx.set(bus.address, address // 4)
    ctx.set(bus.w_data, value or 0)
    ctx.set(bus.w_mask, mask)
    for cycles in range(1, limit + 1):
        _, _, ready, error, data, watched = await ctx.tick().sample(
            bus.ready, bus.error, bus.r_data, Const(0) if watch is None else watch)
        if ready:
            ctx.set(bus.valid, 0)
            answer = int(error), int(data), cycles
            return answer if watch is None else (*answer, int(watched))
    raise AssertionError(f"no answer at {address:#x} within {limit} cycles")


def outputs(ctx: Any, ports: dict[str, Any]) -> dict[str, int]:
    """Values of several ports at once."""
    if not ports:
        return {}
    word = ctx.get(Cat(*ports.values()))
    values = {}
    for name, port in ports.items():
        values[name] = word & (1 << len(port)) - 1
        word >>= len(port)
    return values
