"""Capture files, the classic format, as lists of (seconds, microseconds, frame)."""

import struct

HEADER = struct.Struct("<LHHLLLL")
RECORD = struct.Struct("<LLLL")


def read(path):
    """All frames of a file, whatever its byte order and unit of time."""
    with open(path, "rb") as file:
        data = file.read()
    order = "<" if data[0] in (0xD4, 0x4D) else ">"
    magic = struct.unpack_from(order + "L", data)[0]
    if magic not in (0xA1B2C3D4, 0xA1B23C4D):
        raise SystemExit(f"{path}: not a classic capture")
    scale = 1 if magic == 0xA1B2C3D4 else 1000
    record = struct.Struct(order + "LLLL")
    at, frames = HEADER.size, []
    while at < len(data):
        seconds, fraction, length, _ = record.unpack_from(data, at)
        at += record.size
        frames.append((seconds, fraction // scale, data[at : at + length]))
        at += length
    return frames


def write(path, frames):
    """Writes what `read` returns."""
    with open(path, "wb") as file:
        file.write(HEADER.pack(0xA1B2C3D4, 2, 4, 0, 0, 0x40000, 1))
        for seconds, micros, frame in frames:
            file.write(RECORD.pack(seconds, micros, len(frame), len(frame)) + frame)
