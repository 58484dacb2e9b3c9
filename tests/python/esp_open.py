"""esp_open.py SAS CAPTURE OUTPUT: opens every ESP and AH packet of a capture by scapy and the keys.

Prints one JSON document: how many frames were ESP or AH, neighbour resolution or anything else, how
many of them failed, whether a (key, IV) pair came twice, whether numbers grew strictly, and of what
came in UDP the ports and how many checksums were wrong."""

import json
import sys

import captures
import esp
import headers

ETHERNET = 14


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


def unwrap(packet, sas, report, seen, last):
    """The packet inside, through one SA after the other; None for a dummy or what is not good."""
    spi = esp.spi(packet)
    while spi is not None:
        sa = sas.get(spi)
        opened = sa.open(packet) if sa else None
        if opened is None:
            report["failed"] += 1
            return None
        number, next_header, inner = opened
        vector = sa.vector(packet)
        if vector:
            report["repeated"] += (spi, vector) in seen
            seen.add((spi, vector))
        report["disorder"] += number <= last.get(spi, -1)
        last[spi] = number
        report["sequences"].setdefault(str(spi), []).append(number)
        if next_header == 59:
            report["dummies"] += 1
            return None
        packet = inner
        spi = esp.spi(packet) if packet and packet[0] >> 4 in (4, 6) else None
        if spi not in sas:
            spi = None
    return packet


def main(keys, source, target):
    """Reads, opens, writes, reports."""
    sas, pieces, seen, last, out = esp.load(keys), {}, set(), {}, []
    report = {"frames": 0, "esp": 0, "neighbor": 0, "failed": 0, "repeated": 0, "disorder": 0,
              "fragments": 0, "dummies": 0, "other": 0, "other_index": [], "index": [],
              "sequences": {}, "ports": [], "checksum": 0}
    in_udp = any(sa.facts["udp"] for sa in sas.values())
    for index, (seconds, micros, frame) in enumerate(captures.read(source)):
        report["frames"] += 1
        if is_neighbor(frame):
            report["neighbor"] += 1
            continue
        packet = frame[ETHERNET:]
        ip = frame[12:14] in (b"\x08\x00", b"\x86\xdd")
        protocol = headers.walk(packet)[0] if ip else None
        if protocol == esp.UDP_NUMBER and in_udp:
            packet = headers.whole(packet, pieces)
            bare = packet and esp.out_of_udp(packet)
            if bare:
                packet, ports, right = bare
                report["checksum"] += not right
                if ports not in report["ports"]:
                    report["ports"].append(ports)
            if bare or packet is None:
                protocol = esp.ESP_NUMBER
        if protocol not in (esp.ESP_NUMBER, esp.AH_NUMBER):
            report["other"] += 1
            report["other_index"].append(index)
            continue
        report["esp"] += 1
        packet = packet and headers.whole(packet, pieces)
        if packet is None:
            report["fragments"] += 1
            continue
        inner = unwrap(packet, sas, report, seen, last)
        if inner is None:
            continue
        ether = frame[:12] + (b"\x86\xdd" if inner[:1] and inner[0] >> 4 == 6 else b"\x08\x00")
        report["index"].append(index)
        out.append((seconds, micros, ether + inner))
    report["unfinished"] = len(pieces)
    captures.write(target, out)
    print(json.dumps(report))


main(*sys.argv[1:])
