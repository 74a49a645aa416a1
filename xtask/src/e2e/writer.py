# A client that writes numbered blocks as fast as it is let, until the server goes away, and then
# reports for each block the last number that was acknowledged and the last that was sent.
# Usage: writer.py URI FIRST_BLOCK BLOCKS DEPTH REPORT
import struct
import sys

import nbd

BLOCK = 4096
uri, first, blocks, depth, report = sys.argv[1:]
first, blocks, depth = int(first), int(blocks), int(depth)

sent, acknowledged, in_flight = {}, {}, set()
stopping = False


def completion(block, number):
    def done(error):
        global stopping
        in_flight.discard(block)
        if error.value == 0:
            acknowledged[block] = number
        else:
            stopping = True
        return 1

    return done


h = nbd.NBD()
h.connect_uri(uri)
number = 0
try:
    while not stopping:
        while len(in_flight) < depth:
            # One write a block at a time, so that what may be found there is known.
            block = first + number % blocks
            if block in in_flight:
                break
            number += 1
            payload = bytearray(struct.pack("<Q", number) * (BLOCK // 8))
            in_flight.add(block)
            sent[block] = number
            buffer = nbd.Buffer.from_bytearray(payload)
            h.aio_pwrite(buffer, block * BLOCK, completion=completion(block, number))
        h.poll(-1)
except nbd.Error:
    pass

with open(report, "w") as out:
    for block, last in sorted(sent.items()):
        out.write(f"{block} {acknowledged.get(block, 0)} {last}\n")
