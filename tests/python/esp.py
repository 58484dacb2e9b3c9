"""What both scripts share: an SA as scapy knows it, from the JSON that the harness writes."""

import json
import struct
from math import lcm

import algorithms
import headers
from scapy.compat import raw
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6, in6_chksum
from scapy.layers.ipsec import ESP, SecurityAssociation, _ESPPlain, zero_mutable_fields

UDP_NUMBER = 17
ESP_NUMBER = 50
AH_NUMBER = 51
AH_LENGTH = 12


def load(path):
    """The SAs of a file, by SPI."""
    with open(path, encoding="ascii") as file:
        return {facts["spi"]: Sa(facts) for facts in json.load(file)}


def spi(packet):
    """The SPI of a packet if it is ESP or AH, else None."""
    protocol, at, _ = headers.walk(packet)
    if protocol not in (ESP_NUMBER, AH_NUMBER):
        return None
    return struct.unpack_from("!L", packet, at + (4 if protocol == AH_NUMBER else 0))[0]


def udp_checksum(packet, at):
    """What RFC 3948 and RFC 8200 want in the UDP header at `at` of a packet."""
    if packet[0] >> 4 == 4:
        return 0
    datagram = packet[at : at + 6] + b"\0\0" + packet[at + 8 :]
    return in6_chksum(UDP_NUMBER, IPv6(packet[:40]), datagram) or 0xFFFF


def into_udp(packet, ports, craft):
    """A packet of ESP, in UDP. `craft` may want another `checksum`."""
    _, at, named = headers.walk(packet)
    udp = struct.pack("!HHHH", *ports, 8 + len(packet) - at, 0)
    packet = headers.refit(packet[:at], named, UDP_NUMBER, udp + packet[at:])
    checksum = craft.get("checksum", udp_checksum(packet, at))
    return packet[: at + 6] + struct.pack("!H", checksum) + packet[at + 8 :]


def out_of_udp(packet):
    """(the ESP packet in a whole packet of UDP, its ports, whether its checksum is right); None for
    anything else."""
    protocol, at, named = headers.walk(packet)
    if protocol != UDP_NUMBER or len(packet) < at + 16 or not any(packet[at + 8 : at + 12]):
        return None
    *ports, length, checksum = struct.unpack_from("!HHHH", packet, at)
    right = length == len(packet) - at and checksum == udp_checksum(packet, at)
    return headers.refit(packet[:at], named, ESP_NUMBER, packet[at + 8 :]), ports, right


class Sa:
    """One SA of ESP or AH, in tunnel or transport mode."""

    def __init__(self, facts):
        self.facts = facts
        self.ah = facts["protocol"] == "ah"
        self.tunnel = facts["mode"] == "tunnel"
        self.gmac = "gmac" in facts["encryption"] or "gmac" in facts["integrity"]
        self.short_gcm = "gcm8" in facts["encryption"] or "gcm12" in facts["encryption"]
        six = ":" in facts["source"]
        self.header = (IPv6 if six else IP)(src=facts["source"], dst=facts["destination"])
        self.cipher_key = bytes.fromhex(facts["cipher_key"])
        self.integrity_key = bytes.fromhex(facts["integrity_key"])
        self.scapy = SecurityAssociation(
            ESP,
            spi=facts["spi"],
            crypt_algo=facts["cipher"],
            crypt_key=None if facts["cipher"] == "NULL" else self.cipher_key,
            esn_en=facts["esn"],
        )
        self.highest = facts.get("sequence", 0)

    def high(self, number):
        """What the ICV covers of a number's upper half."""
        return struct.pack("!L", number >> 32) if self.facts["esn"] else b""

    def candidates(self, low):
        """64-bit numbers whose low half is `low`."""
        if not self.facts["esn"]:
            return [low]
        high = self.highest >> 32
        highs = [high, high + 1] + ([high - 1] if high else [])
        return [one << 32 | low for one in highs]

    def vector(self, packet):
        """The IV of a packet."""
        _, at, _ = headers.walk(packet)
        start = at + (AH_LENGTH if self.ah else 8)
        return packet[start : start + self.facts["iv_bytes"]]

    def open(self, packet):
        """(64-bit sequence number, next header, opened packet) of a whole packet, or None. What
        carries no packet gives its content."""
        _, at, named = headers.walk(packet)
        low = struct.unpack_from("!L", packet, at + (8 if self.ah else 4))[0]
        for number in self.candidates(low):
            opened = self.ah_content(packet, at, number) if self.ah else self.esp_content(
                packet[at:], number
            )
            if opened is None:
                continue
            next_header, content = opened
            self.highest = max(self.highest, number)
            if not self.tunnel and next_header != 59:
                content = headers.refit(packet[:at], named, next_header, content)
            return number, next_header, content
        return None

    def esp_content(self, payload, number):
        """(next header, content) of an authentic ESP packet."""
        size = self.facts["icv_bytes"]
        algorithm = self.scapy.crypt_algo
        if self.gmac or not algorithm.is_aead:
            if self.esp_icv(payload[:-size], number) != payload[-size:]:
                return None
        if self.gmac:
            payload = payload[:8] + payload[16:]
        if self.short_gcm:
            data = payload[:4] + self.high(number) + payload[4:8]
            text = algorithms.short_gcm_open(
                self.cipher_key, payload[8:16], data, payload[16:], size
            )
            return text and (text[-1], text[: len(text) - 2 - text[-2]])
        try:
            plain = algorithm.decrypt(
                self.scapy, ESP(payload), self.scapy.crypt_key, size,
                esn_en=self.facts["esn"], esn=number >> 32,
            )
        except Exception:  # scapy wraps whatever its cipher library raises
            return None
        if plain.padlen > len(plain.data) + plain.padlen:
            return None
        return plain.nh, bytes(plain.data)

    def esp_icv(self, authenticated, number):
        """As RFC 4303 wants it: scapy leaves the high half of an extended number out."""
        if self.gmac:
            head, rest = authenticated[:4], authenticated[4:]
            covered = head + self.high(number) + rest
            return algorithms.gmac(self.cipher_key, authenticated[8:16], covered)
        mac = algorithms.mac(
            self.facts["integrity"], self.integrity_key, authenticated + self.high(number)
        )
        return mac[: self.facts["icv_bytes"]]

    def ah_icv(self, packet, at, number):
        """The ICV of a packet that holds an AH header at `at`, mutable fields by scapy, as the
        packet arrives: a sender's source route would have to be used up."""
        length = (packet[at + 1] + 2) * 4
        layer = (IP if packet[0] >> 4 == 4 else IPv6)(packet)
        masked = bytearray(raw(zero_mutable_fields(layer, sending=False)))
        if len(masked) != len(packet):
            raise SystemExit("scapy changed the length of a packet")
        # scapy zeroes padding and GMAC's vector, which count as they are.
        vector = self.facts["iv_bytes"]
        field = at + AH_LENGTH
        masked[field : at + length] = packet[field : at + length]
        size = self.facts["icv_bytes"]
        masked[field + vector : field + vector + size] = bytes(size)
        covered = bytes(masked) + self.high(number)
        if self.gmac:
            return algorithms.gmac(self.integrity_key, packet[field : field + 8], covered)
        return algorithms.mac(self.facts["integrity"], self.integrity_key, covered)[:size]

    def ah_content(self, packet, at, number):
        """(next header, content) of an authentic AH packet."""
        length = (packet[at + 1] + 2) * 4
        start = at + AH_LENGTH + self.facts["iv_bytes"]
        found = packet[start : start + self.facts["icv_bytes"]]
        if self.ah_icv(packet, at, number) != found:
            return None
        return packet[at], packet[at + length :]

    def outer(self, packet, craft):
        """(headers in front, offset of the byte that names, next header, content)."""
        if self.tunnel:
            header = self.header.copy()
            if header.version == 4:
                header.tos = craft.get("traffic_class", 0)
                header.proto = 59
            else:
                header.tc = craft.get("traffic_class", 0)
                header.nh = 59
            six = packet[:1] and packet[0] >> 4 == 6
            named = 9 if header.version == 4 else 6
            return raw(header), named, 41 if six else 4, packet
        protocol, at, named = front(packet)
        return packet[:at], named, protocol, packet[at:]

    def seal(self, inner, craft):
        """An outer packet around `inner`. `craft` gives the number and, to build what a correct
        sender never sends, `next_header`, `tail`, `padding` (hex), `padding_length`, `flip`,
        `longer` (bytes of AH behind its ICV), `unit` (its alignment), `reserved`, the outer
        `traffic_class`, and of an SA in UDP `ports` (false: bare) and `checksum`."""
        ahead, named, next_header, content = self.outer(inner, craft)
        next_header = craft.get("next_header", next_header)
        content += bytes.fromhex(craft.get("tail", ""))
        if self.ah:
            return self.seal_ah(ahead, named, next_header, content, craft)
        sealed = self.seal_esp(next_header, content, craft)
        if craft.get("flip"):
            sealed = sealed[:-1] + bytes([sealed[-1] ^ 1])
        bare = headers.refit(ahead, named, ESP_NUMBER, sealed)
        ports = craft.get("ports", self.facts["udp"])
        return into_udp(bare, ports, craft) if ports else bare

    def seal_ah(self, ahead, named, next_header, content, craft):
        """AH between headers and content."""
        number, vector = craft["number"], self.facts["iv_bytes"]
        field = vector + self.facts["icv_bytes"]
        unit = 4 if ahead[0] >> 4 == 4 else 8
        padding = -(AH_LENGTH + field) % craft.get("unit", unit) + craft.get("longer", 0)
        length = AH_LENGTH + field + padding
        header = struct.pack(
            "!BBHLL", next_header, length // 4 - 2, craft.get("reserved", 0), self.facts["spi"],
            number & 0xFFFFFFFF,
        )
        header += number.to_bytes(8, "big")[8 - vector :] + bytes(field - vector)
        header += bytes(0xA0 + at % 16 for at in range(padding))
        packet = headers.refit(ahead, named, AH_NUMBER, header + content)
        at = len(ahead)
        icv = self.ah_icv(packet, at, number)
        if craft.get("flip"):
            icv = icv[:-1] + bytes([icv[-1] ^ 1])
        start = at + AH_LENGTH + vector
        return packet[:start] + icv + packet[start + len(icv) :]

    def seal_esp(self, next_header, data, craft):
        """ESP from its header to its ICV."""
        number = craft["number"]
        unit = lcm(4, self.scapy.crypt_algo.block_size)
        padding = bytes(range(1, -(len(data) + 2) % unit + 1))
        if "padding" in craft:
            padding = bytes.fromhex(craft["padding"])
        vector = number.to_bytes(16, "big")[16 - self.facts["iv_bytes"] :]
        plain = _ESPPlain(
            spi=self.facts["spi"],
            seq=number & 0xFFFFFFFF,
            iv=vector,
            data=data,
            padding=padding,
            padlen=craft.get("padding_length", len(padding)),
            nh=next_header,
        )
        algorithm = self.scapy.crypt_algo
        sealed = bytes(algorithm.encrypt(
            self.scapy, plain, self.scapy.crypt_key, self.facts["icv_bytes"],
            esn_en=self.facts["esn"], esn=number >> 32,
        ))
        if self.gmac or not algorithm.is_aead:
            sealed += self.esp_icv(sealed, number)
        if self.short_gcm:
            sealed = sealed[: self.facts["icv_bytes"] - 16]
        return sealed


def front(packet):
    """(protocol, offset, offset of the byte that names it) of what transport mode protects: behind
    the last of hop-by-hop options, routing and fragment header."""
    if packet[0] >> 4 == 4:
        return headers.walk(packet)
    found = (packet[6], 40, 6)
    protocol, at = packet[6], 40
    while protocol in headers.WALKED:
        kind, here = protocol, at
        length = 8 if kind == 44 else (packet[at + 1] + 1) * 8
        protocol, at = packet[at], at + length
        if kind != 60:
            found = (protocol, at, here)
    return found


