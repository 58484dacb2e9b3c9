"""esp_seal.py SAS CAPTURE OUTPUT: seals every packet of a capture with scapy and the first key.

CAPTURE with the ending `.craft` holds a list of objects, one per packet, that says what is special
about each; see `Sa.seal`."""

import json
import os
import sys

import captures
import esp


def main(keys, source, target):
    """Reads, seals, writes."""
    sa = next(iter(esp.load(keys).values()))
    with open(os.path.splitext(source)[0] + ".craft", encoding="ascii") as file:
        crafts = json.load(file)
    out = []
    for (seconds, micros, frame), craft in zip(captures.read(source), crafts):
        outer = sa.seal(frame[14:], craft)
        kind = b"\x86\xdd" if outer[0] >> 4 == 6 else b"\x08\x00"
        out.append((seconds, micros, frame[:12] + kind + outer))
    captures.write(target, out)
    print(json.dumps({"sealed": len(out)}))


main(*sys.argv[1:])
