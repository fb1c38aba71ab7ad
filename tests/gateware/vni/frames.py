"""Frames for the classifier: built with dpkt, or taken from a capture; and what the classifier makes of them."""

import os
import random
import socket
from pathlib import Path

import dpkt

DEFAULT = {"tenant": 0, "destination": 0, "flow_class": 0}


def capture_path():
    """The recorded capture, or None where there is none."""
    path = Path(os.environ.get("MORPHNIC_DATA") or "nowhere") / "pcapplusplus_example.pcap"
    return path if path.exists() else None


def captured(limit):
    """First `limit` frames of the capture."""
    with capture_path().open("rb") as file:
        return [frame for _, (_, frame) in zip(range(limit), dpkt.pcap.Reader(file), strict=False)]


def transport(rng):
    ports = {"sport": rng.getrandbits(16), "dport": rng.getrandbits(16)}
    body = rng.randbytes(rng.randrange(80))
    kind = rng.choice(["tcp", "udp", "icmp", "short"])
    if kind == "tcp":
        return dpkt.ip.IP_PROTO_TCP, dpkt.tcp.TCP(data=body, **ports)
    if kind == "udp":
        return dpkt.ip.IP_PROTO_UDP, dpkt.udp.UDP(data=body, ulen=8 + len(body), **ports)
    if kind == "icmp":
        return dpkt.ip.IP_PROTO_ICMP, dpkt.icmp.ICMP(data=dpkt.icmp.ICMP.Echo(data=body))
    return rng.choice([6, 17]), rng.randbytes(rng.randrange(4))  # too short to hold both ports


def network(rng):
    """(type, layer 3 packet)."""
    number, upper = transport(rng)
    if rng.random() < 0.5:
        packet = dpkt.ip.IP(src=rng.randbytes(4), dst=rng.randbytes(4), p=number, ttl=rng.randrange(256),
                            data=upper)
        if rng.random() < 0.2:
            packet.opts = rng.randbytes(4 * rng.randint(1, 3))
            packet.hl = 5 + len(packet.opts) // 4
        if rng.random() < 0.2:
            packet.mf, packet.offset = rng.choice([(1, 0), (1, 185 * 8), (0, 370 * 8)])
        packet.df = rng.random() < 0.5
        packet.len = len(packet)
        return dpkt.ethernet.ETH_TYPE_IP, bytes(packet)
    packet = dpkt.ip6.IP6(src=rng.randbytes(16), dst=rng.randbytes(16), nxt=number, hlim=rng.randrange(256),
                          data=upper, plen=len(upper))
    packet.extension_hdrs, packet.all_extension_headers = {}, []
    return dpkt.ethernet.ETH_TYPE_IP6, bytes(packet)


def build(rng, macs=(), vlans=()):
    """A random frame; MAC addresses and VLAN ids are often of those given."""
    destination = rng.choice(macs) if macs and rng.random() < 0.6 else rng.randbytes(6)
    kind, body = network(rng) if rng.random() < 0.8 else (rng.choice([0x0806, 0x88B5]), rng.randbytes(50))
    head = destination + rng.randbytes(6)
    if rng.random() < 0.5:
        vlan = rng.choice(vlans) if vlans and rng.random() < 0.7 else rng.randrange(4096)
        head += (0x8100).to_bytes(2, "big") + (rng.randrange(16) << 12 | vlan).to_bytes(2, "big")
    frame = head + kind.to_bytes(2, "big") + body
    return frame[:rng.randint(14, len(frame))] if rng.random() < 0.2 else frame


def rotate_left(value, amount):
    return (value << amount | value >> 16 - amount) & 0xFFFF


def flow_hash(frame):
    """The hash as documented: over dpkt-free, byte-wise parsing of the headers."""
    def word(place):
        return int.from_bytes(frame[place:place + 2], "big") if place + 2 <= len(frame) else None

    tagged = word(12) == 0x8100
    base = 18 if tagged else 14
    kind = word(base - 2)
    if kind == 0x0800:
        upper = word(base + 8)
        words = [None if upper is None else upper & 0xFF, *(word(base + place) for place in (12, 14, 16, 18))]
        fragment = word(base + 6)
        if word(base) is not None and word(base) >> 8 == 0x45 and fragment is not None and not fragment & 0x3FFF \
                and words[0] in (6, 17):
            words += [word(base + 20), word(base + 22)]
    elif kind == 0x86DD:
        upper = word(base + 6)
        words = [None if upper is None else upper >> 8, *(word(base + place) for place in range(8, 40, 2))]
        if words[0] in (6, 17):
            words += [word(base + 40), word(base + 42)]
    else:
        words = [word(place) for place in range(0, 12, 2)]
    result = 0
    for value in words:
        if value is not None:
            result = rotate_left(result, 3) ^ value
    result ^= result >> 8
    return result ^ result >> 4


def vlan_of(frame):
    if len(frame) >= 16 and frame[12:14] == b"\x81\x00":
        return int.from_bytes(frame[14:16], "big") & 0xFFF
    return None


def classify(frame, port, entries):
    """Header fields that the first matching entry gives."""
    for entry in entries:
        key = entry["key"]
        hit = {0: lambda: True,
               1: lambda key=key: vlan_of(frame) == key,
               2: lambda key=key: int.from_bytes(frame[:6], "big") == key,
               3: lambda: False}[entry["kind"]]
        if entry["enable"] and entry["port"] == port and hit():
            return {name: entry[name] for name in DEFAULT}
    return dict(DEFAULT)


def ipv4(source, destination, sport, dport, *, ttl=64):
    """A plain TCP frame, for tests of one property of the hash."""
    packet = dpkt.ip.IP(src=socket.inet_aton(source), dst=socket.inet_aton(destination), p=6, ttl=ttl,
                        data=dpkt.tcp.TCP(sport=sport, dport=dport))
    packet.len = len(packet)
    return random.Random(ttl).randbytes(12) + b"\x08\x00" + bytes(packet)
