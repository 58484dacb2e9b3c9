"""IP headers as bytes: where the protocol stands, and a packet made of the headers of another."""

import struct

WALKED = (0, 43, 44, 60)


def walk(packet):
    """(protocol, its offset, offset of the byte that names it), behind IPv6 extension headers."""
    if packet[0] >> 4 == 4:
        return packet[9], (packet[0] & 15) * 4, 9
    protocol, at, named = packet[6], 40, 6
    while protocol in WALKED:
        named = at
        length = 8 if protocol == 44 else (packet[at + 1] + 1) * 8
        protocol, at = packet[at], at + length
    return protocol, at, named


def checksum(header):
    """The internet checksum of a header whose field is zero."""
    total = sum(struct.unpack(f"!{len(header) // 2}H", header))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def refit(front, named, protocol, payload):
    """A packet of the headers `front`, in which the byte at `named` names `protocol`."""
    front = bytearray(front)
    front[named] = protocol
    if front[0] >> 4 == 4:
        struct.pack_into("!H", front, 2, len(front) + len(payload))
        front[10:12] = b"\0\0"
        struct.pack_into("!H", front, 10, checksum(bytes(front)))
    else:
        struct.pack_into("!H", front, 4, len(front) - 40 + len(payload))
    return bytes(front) + payload


def whole(packet, pieces):
    """The packet, cut to its length; of fragments None until all are in `pieces`, then their packet
    without a trace of it."""
    if packet[0] >> 4 == 4:
        header = (packet[0] & 15) * 4
        packet = packet[: struct.unpack_from("!H", packet, 2)[0]]
        field = struct.unpack_from("!H", packet, 6)[0]
        key = (packet[12:20], packet[4:6], packet[9])
        offset, more, front, named = (field & 0x1FFF) * 8, field & 0x2000, header, 9
        protocol = packet[9]
    else:
        packet = packet[: 40 + struct.unpack_from("!H", packet, 4)[0]]
        protocol, front, named = packet[6], 40, 6
        while protocol in (0, 43, 60):
            named = front
            protocol, front = packet[front], front + (packet[front + 1] + 1) * 8
        if protocol != 44:
            return packet
        protocol, field = packet[front], struct.unpack_from("!H", packet, front + 2)[0]
        key = (packet[8:40], packet[front + 4 : front + 8], protocol)
        offset, more, header = field & 0xFFF8, field & 1, front + 8
    if not offset and not more:
        return packet
    held = pieces.setdefault(key, {})
    held[offset] = (packet[:front], packet[header:], bool(more))
    payload, at = b"", 0
    while at in held:
        _, piece, more = held[at]
        payload, at = payload + piece, at + len(piece)
        if not more:
            first = bytearray(held[0][0])
            if first[0] >> 4 == 4:
                first[6:8] = b"\0\0"
            del pieces[key]
            return refit(first, named, protocol, payload)
    return None
