"""The rules of an allocation table, as claims about its rows: what the resource manager is proven to keep."""

from functools import reduce
from operator import add

from amaranth import *

from gateware.manager.allocation import FULL_RATE

WEIGHT_CAPACITY = 1 << 16
LARGEST_PACKET = 256
FULL_HOST_SHARE = 256


def legal_sums(rows, config):
    """What the rules say about a table as a whole."""
    yield reduce(add, (row.weight for row in rows)) <= WEIGHT_CAPACITY
    yield reduce(add, (row.pages for row in rows)) <= config.pages


def legal_row(rows, number, config):
    """What the rules say about row `number`, and about it together with the rows before it."""
    row = rows[number]
    yield row.rate <= FULL_RATE
    yield (row.rate != 0) | (row.weight == 0)
    yield row.burst >= LARGEST_PACKET
    yield row.ports >> config.ports == 0
    yield row.slots >> config.slots == 0
    yield row.host_share <= FULL_HOST_SHARE
    for other in rows[:number]:
        yield (row.slots & other.slots) == 0


def legal(rows, config):
    """What the rules say about a table, the guaranteed minimum left out."""
    yield from legal_sums(rows, config)
    for number in range(len(rows)):
        yield from legal_row(rows, number, config)


def all_of(claims):
    """One bit for all of them."""
    return Cat(claims).all()
