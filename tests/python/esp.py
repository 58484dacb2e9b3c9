"""What both scripts share: an SA as scapy knows it, from the JSON that the harness writes."""

import hashlib
import hmac
import json
import struct

from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.layers.ipsec import ESP, SecurityAssociation, _ESPPlain

HASHES = {"HMAC-SHA1-96": hashlib.sha1, "SHA2-256-128": hashlib.sha256}


def load(path):
    """The SAs of a file, by SPI."""
    with open(path, encoding="ascii") as file:
        return {facts["spi"]: Sa(facts) for facts in json.load(file)}


class Sa:
    """One ESP tunnel SA."""

    def __init__(self, facts):
        self.facts = facts
        six = ":" in facts["source"]
        header = (IPv6 if six else IP)(src=facts["source"], dst=facts["destination"])
        self.scapy = SecurityAssociation(
            ESP,
            spi=facts["spi"],
            crypt_algo=facts["cipher"],
            crypt_key=bytes.fromhex(facts["cipher_key"]) or None,
            auth_algo=None if facts["integrity"] == "NULL" else facts["integrity"],
            auth_key=bytes.fromhex(facts["integrity_key"]) or None,
            tunnel_header=header,
            esn_en=facts["esn"],
        )
        self.highest = 0

    def icv(self, authenticated, high):
        """HMAC as RFC 4303 wants it: scapy leaves the high half of an extended number out."""
        key = bytes.fromhex(self.facts["integrity_key"])
        digest = HASHES[self.facts["integrity"]]
        tail = struct.pack("!L", high) if self.facts["esn"] else b""
        return hmac.new(key, authenticated + tail, digest).digest()[: self.facts["icv_bytes"]]

    def epochs(self, low):
        """Candidates for the high half of the number whose low half is `low`."""
        if not self.facts["esn"]:
            return [0]
        high = self.highest >> 32
        return [high, high + 1] + ([high - 1] if high else [])

    def open(self, payload):
        """(64-bit sequence number, next header, inner bytes) of an ESP packet, or None."""
        low = struct.unpack("!L", payload[4:8])[0]
        for high in self.epochs(low):
            esp = ESP(payload)
            algorithm = self.scapy.crypt_algo
            size = self.facts["icv_bytes"]
            if not algorithm.is_aead and self.icv(payload[:-size], high) != payload[-size:]:
                continue
            try:
                plain = algorithm.decrypt(
                    self.scapy, esp, self.scapy.crypt_key, size, esn_en=self.facts["esn"], esn=high
                )
            except Exception:  # scapy wraps whatever its cipher library raises
                continue
            if plain.padlen > len(plain.data) + plain.padlen:
                continue
            self.highest = max(self.highest, high << 32 | low)
            return high << 32 | low, plain.nh, bytes(plain.data)
        return None

    def seal(self, inner, craft):
        """An outer packet around `inner`. `craft` gives the number and, to build what a correct
        sender never sends, `next_header`, `tail`, `padding` (hex), `padding_length`, `flip`, and
        the outer `traffic_class`."""
        number = craft["number"]
        low, high = number & 0xFFFFFFFF, number >> 32
        data = inner + bytes.fromhex(craft.get("tail", ""))
        padding = bytes(range(1, -(len(data) + 2) % 4 + 1))
        if "padding" in craft:
            padding = bytes.fromhex(craft["padding"])
        plain = _ESPPlain(
            spi=self.facts["spi"],
            seq=low,
            iv=number.to_bytes(8, "big")[8 - self.facts["iv_bytes"] :],
            data=data,
            padding=padding,
            padlen=craft.get("padding_length", len(padding)),
            nh=craft.get("next_header", 41 if inner[:1] and inner[0] >> 4 == 6 else 4),
        )
        size = self.facts["icv_bytes"]
        algorithm = self.scapy.crypt_algo
        esp = algorithm.encrypt(
            self.scapy, plain, self.scapy.crypt_key, size, esn_en=self.facts["esn"], esn=high
        )
        sealed = bytes(esp)
        if not algorithm.is_aead:
            sealed += self.icv(sealed, high)
        if craft.get("flip"):
            sealed = sealed[:-1] + bytes([sealed[-1] ^ 1])
        header = self.scapy.tunnel_header.copy()
        if header.version == 4:
            header.proto, header.tos = 50, craft.get("traffic_class", 0)
        else:
            header.nh, header.tc = 50, craft.get("traffic_class", 0)
        return bytes(header / sealed)
