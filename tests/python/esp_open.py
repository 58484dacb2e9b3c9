"""esp_open.py SAS CAPTURE OUTPUT: decrypts every ESP packet of a capture with scapy and the keys.

Prints one JSON document: how many frames were ESP, neighbour resolution or anything else, how many
ESP packets failed, whether a (key, IV) pair came twice, and whether numbers grew strictly."""

import json
import struct
import sys

import captures
import esp

ETHERNET = 14


def ip_payload(packet, pieces):
    """(protocol, payload) of an IP packet; fragments give None until their packet is whole."""
    if packet[0] >> 4 == 4:
        header = (packet[0] & 15) * 4
        length = struct.unpack_from("!H", packet, 2)[0]
        field = struct.unpack_from("!H", packet, 6)[0]
        key, offset, more = (packet[12:20], packet[4:6]), (field & 0x1FFF) * 8, field & 0x2000
        protocol, payload = packet[9], packet[header:length]
    else:
        protocol, header = packet[6], 40
        length = 40 + struct.unpack_from("!H", packet, 4)[0]
        if protocol != 44:
            return protocol, packet[header:length]
        protocol, field = packet[40], struct.unpack_from("!H", packet, 42)[0]
        key, offset, more = (packet[8:40], packet[44:48]), field & 0xFFF8, field & 1
        payload = packet[48:length]
    if not offset and not more:
        return protocol, payload
    held = pieces.setdefault((key, protocol), {})
    held[offset] = (payload, bool(more))
    whole, at = b"", 0
    while at in held:
        piece, more = held[at]
        whole, at = whole + piece, at + len(piece)
        if not more:
            del pieces[key, protocol]
            return protocol, whole
    return protocol, None


def is_neighbor(frame):
    """ARP, and the ICMPv6 messages by which neighbours, routers and groups are found."""
    kind = frame[12:14]
    if kind == b"\x08\x06":
        return True
    if kind != b"\x86\xdd":
        return False
    at = ETHERNET + 40
    protocol = frame[ETHERNET + 6]
    if protocol == 0:
        protocol, at = frame[at], at + (frame[at + 1] + 1) * 8
    return protocol == 58 and frame[at] in (130, 131, 132, 133, 134, 135, 136, 143)


def main(keys, source, target):
    """Reads, opens, writes, reports."""
    sas, pieces, seen, last, out = esp.load(keys), {}, set(), {}, []
    report = {"frames": 0, "esp": 0, "neighbor": 0, "failed": 0, "repeated": 0, "disorder": 0,
              "fragments": 0, "dummies": 0, "other": 0, "other_index": [], "index": [],
              "sequences": {}}
    for index, (seconds, micros, frame) in enumerate(captures.read(source)):
        report["frames"] += 1
        kind = frame[12:14]
        protocol, payload = None, None
        if is_neighbor(frame):
            report["neighbor"] += 1
            continue
        if kind in (b"\x08\x00", b"\x86\xdd"):
            protocol, payload = ip_payload(frame[ETHERNET:], pieces)
        if protocol != 50:
            report["other"] += 1
            report["other_index"].append(index)
            continue
        report["esp"] += 1
        if payload is None:
            report["fragments"] += 1
            continue
        spi = struct.unpack_from("!L", payload)[0]
        opened = sas[spi].open(payload) if spi in sas else None
        if opened is None:
            report["failed"] += 1
            continue
        number, next_header, inner = opened
        vector = payload[8 : 8 + sas[spi].facts["iv_bytes"]]
        if vector:
            report["repeated"] += (spi, vector) in seen
            seen.add((spi, vector))
        report["disorder"] += number <= last.get(spi, -1)
        last[spi] = number
        report["sequences"].setdefault(str(spi), []).append(number)
        if next_header == 59:
            report["dummies"] += 1
            continue
        ether = frame[:12] + (b"\x86\xdd" if next_header == 41 else b"\x08\x00")
        report["index"].append(index)
        out.append((seconds, micros, ether + inner))
    report["unfinished"] = len(pieces)
    captures.write(target, out)
    print(json.dumps(report))


main(*sys.argv[1:])
