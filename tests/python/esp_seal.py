"""esp_seal.py SAS CAPTURE OUTPUT: seals every packet of a capture with scapy and the first key.

CAPTURE with the ending `.craft` holds a list of objects, one per packet, that says what is special
about each: `spis`, the SAs to go through, innermost first, and what `Sa.seal` knows."""

import json
import os
import sys

import captures
import esp


def main(keys, source, target):
    """Reads, seals, writes."""
    sas = esp.load(keys)
    with open(os.path.splitext(source)[0] + ".craft", encoding="ascii") as file:
        crafts = json.load(file)
    out = []
    for (seconds, micros, frame), craft in zip(captures.read(source), crafts):
        outer = frame[14:]
        for spi in craft.get("spis", list(sas)[:1]):
            outer = sas[spi].seal(outer, craft)
        kind = b"\x86\xdd" if outer[0] >> 4 == 6 else b"\x08\x00"
        out.append((seconds, micros, frame[:12] + kind + outer))
    captures.write(target, out)
    print(json.dumps({"sealed": len(out)}))


main(*sys.argv[1:])
