"""Transaction layer packets (TLPs) as streams: the one format between the endpoint core and a vendor's hard IP.

A TLP stream is an `amaranth.lib.stream` whose transfer is a beat: the decoded header, a piece of the payload, and
`first` and `last`. Contract:

- A TLP is one beat without payload, or as many as its payload fills; beats of two TLPs do not interleave.
- `header` is the same in every beat of a TLP, so that a sink may look at it in any of them.
- The payload is aligned by double words (DW, 32 bits): its first DW is in bits 31..0 of the first beat, whatever its
  address; byte 0 of a DW is in its low bits. Every beat but the last is full.
- `valid` does not fall and the payload does not change until the transfer (stream rules of Amaranth).

Field meanings are those of the PCI Express Base Specification 4.0: common header 2.2.1, byte enables 2.2.5, transaction
descriptor (requester id, tag, attributes, traffic class) 2.2.6, memory requests 2.2.7, completions 2.2.9, poisoned
data 2.7.2. Tags are of 8 bits. Digest, prefixes, steering tags and address types are left to the hard IP.
"""

from amaranth import *
from amaranth.lib import data, enum

__all__ = ["DATA_WIDTHS", "CompletionHeader", "CompletionStatus", "RequestHeader", "RequestKind", "byte_count",
           "check_width", "completion_layout", "first_byte", "is_posted", "request_layout"]

#: Bits of a beat that every component of the core takes.
DATA_WIDTHS = (64, 128, 256, 512)


class RequestKind(enum.Enum, shape=unsigned(3)):
    """What is asked. The core sends `READ` and `WRITE` (of memory); a completer answers the others as unsupported."""

    READ = 0
    WRITE = 1
    READ_LOCKED = 2
    IO_READ = 3
    IO_WRITE = 4
    ATOMIC = 5
    MESSAGE = 6


class CompletionStatus(enum.Enum, shape=unsigned(3)):
    """Completion status, encoded as in 2.2.9: successful, unsupported request, retry, completer abort."""

    SUCCESS = 0
    UNSUPPORTED = 1
    RETRY = 2
    ABORT = 4


class RequestHeader(data.Struct):
    """Header of a request.

    address: in DW (byte address / 4). length: of the payload (asked for, or carried) in DW, 1 to 1024. first_be,
    last_be: bytes enabled in the first and in the last DW; `last_be` is 0 when `length` is 1. bar: which base address
    register matched, for requests that arrive. poisoned: the payload is known to be wrong (EP).
    """

    kind: RequestKind
    address: 62
    length: 11
    first_be: 4
    last_be: 4
    requester_id: 16
    tag: 8
    traffic_class: 3
    attributes: 3
    poisoned: 1
    bar: 3


class CompletionHeader(data.Struct):
    """Header of a completion.

    length: of the payload in DW; 0 for one without data. byte_count: bytes that are left of the request, those of this
    completion included, 1 to 4096. lower_address: byte address, modulo 128, of the first enabled byte. locked: answers
    a locked read.
    """

    status: CompletionStatus
    length: 11
    byte_count: 13
    lower_address: 7
    requester_id: 16
    completer_id: 16
    tag: 8
    traffic_class: 3
    attributes: 3
    poisoned: 1
    locked: 1


def check_width(width: int) -> int:
    """`width`, or `ValueError` if a beat cannot have so many bits."""
    if width not in DATA_WIDTHS:
        raise ValueError(f"width must be one of {DATA_WIDTHS}, not {width!r}")
    return width


def _layout(header, width: int) -> data.StructLayout:
    return data.StructLayout({"header": header, "data": check_width(width), "first": 1, "last": 1})


def request_layout(width: int) -> data.StructLayout:
    """A beat of a stream of requests with `width` bits of payload."""
    return _layout(RequestHeader, width)


def completion_layout(width: int) -> data.StructLayout:
    """A beat of a stream of completions with `width` bits of payload."""
    return _layout(CompletionHeader, width)


def is_posted(header):
    """Condition: nobody waits for a completion of this request."""
    return (header.kind == RequestKind.WRITE) | (header.kind == RequestKind.MESSAGE)


def _lowest(enables):
    """Index of the lowest bit that is set; 0 if none is."""
    return Mux(enables[0], 0, Mux(enables[1], 1, Mux(enables[2], 2, Mux(enables[3], 3, 0))))


def _unused(enables):
    """How many bytes at the upper end are not enabled; 0 if none is enabled."""
    return Mux(enables[3], 0, Mux(enables[2], 1, Mux(enables[1], 2, Mux(enables[0], 3, 0))))


def first_byte(header):
    """Offset of the first enabled byte in the first DW of a memory read (2.3.1.1; 0 if none is)."""
    return _lowest(header.first_be)


def byte_count(header):
    """Bytes from the first to the last enabled one of a memory read (2.3.1.1); a read of no bytes counts as 1."""
    single = Mux(header.first_be == 0, 1, 4 - _lowest(header.first_be) - _unused(header.first_be))
    several = (header.length << 2) - _lowest(header.first_be) - _unused(header.last_be)
    return Mux(header.length == 1, single, several)[:13]
