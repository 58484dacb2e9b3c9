"""Capture files, the classic format, as lists of (seconds, microseconds, frame)."""

import struct

HEADER = struct.Struct("<LHHLLLL")
RECORD = struct.Struct("<LLLL")


def read(path):
    """All frames of a file of this machine's byte order."""
    with open(path, "rb") as file:
        data = file.read()
    if HEADER.unpack_from(data)[0] != 0xA1B2C3D4:
        raise SystemExit(f"{path}: not a classic capture in microseconds")
    at, frames = HEADER.size, []
    while at < len(data):
        seconds, micros, length, _ = RECORD.unpack_from(data, at)
        at += RECORD.size
        frames.append((seconds, micros, data[at : at + length]))
        at += length
    return frames


def write(path, frames):
    """Writes what `read` returns."""
    with open(path, "wb") as file:
        file.write(HEADER.pack(0xA1B2C3D4, 2, 4, 0, 0, 0x40000, 1))
        for seconds, micros, frame in frames:
            file.write(RECORD.pack(seconds, micros, len(frame), len(frame)) + frame)
