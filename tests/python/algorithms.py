"""The algorithms that scapy lacks or does otherwise, by their names in the configuration: MACs over
any bytes, and AES-GMAC."""

import hashlib
import hmac

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.cmac import CMAC

HASHES = {
    "md5_96": hashlib.md5,
    "sha1_96": hashlib.sha1,
    "sha256_128": hashlib.sha256,
    "sha384_192": hashlib.sha384,
    "sha512_256": hashlib.sha512,
}


def block(key, data):
    """One block through AES."""
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    return encryptor.update(data) + encryptor.finalize()


def xor(left, right):
    """Byte by byte."""
    return bytes(a ^ b for a, b in zip(left, right))


def xcbc(key, data):
    """AES-XCBC-MAC (RFC 3566 section 4)."""
    inner, whole, padded = (block(key, bytes([fill]) * 16) for fill in (1, 2, 3))
    count = max(1, -(-len(data) // 16))
    pieces = [data[16 * at : 16 * at + 16] for at in range(count)]
    chain = bytes(16)
    for piece in pieces[:-1]:
        chain = block(inner, xor(chain, piece))
    last, mask = pieces[-1], whole
    if len(last) < 16:
        last, mask = (last + b"\x80").ljust(16, b"\0"), padded
    return block(inner, xor(xor(chain, last), mask))


def mac(name, key, data):
    """The whole MAC; an ICV is its first bytes."""
    if name in HASHES:
        return hmac.new(key, data, HASHES[name]).digest()
    if name == "aes128_xcbc_96":
        return xcbc(key, data)
    if name == "aes128_cmac_96":
        cmac = CMAC(algorithms.AES(key))
        cmac.update(data)
        return cmac.finalize()
    raise SystemExit(f"no MAC {name}")


def gmac(key, vector, data):
    """AES-GMAC (RFC 4543): the salt stands at the key's end."""
    return AESGCM(key[:-4]).encrypt(key[-4:] + vector, b"", data)


def short_gcm_open(key, vector, data, sealed, size):
    """The text of AES-GCM with an ICV of less than 16 bytes, which scapy's library refuses; None if
    it is not authentic."""
    mode = modes.GCM(key[-4:] + vector, sealed[-size:], size)
    decryptor = Cipher(algorithms.AES(key[:-4]), mode).decryptor()
    decryptor.authenticate_additional_data(data)
    try:
        return decryptor.update(sealed[:-size]) + decryptor.finalize()
    except InvalidTag:
        return None
