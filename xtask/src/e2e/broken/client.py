# A client that sends all its requests at once, and knows how each should end.
# Usage: client.py URI KIND:OFFSET:LENGTH:ENDING...   ENDING is ok, or the name of an error.
#        client.py URI fill:OFFSET:LENGTH             writes on and on until that fails, and says
#                                                     where and how: OFFSET ENDING
# Kinds: w write, W write with FUA, r read what w wrote, h read zeroes, n read whatever, f flush,
# t trim, z zero, Z zero without making a hole.
import errno
import struct
import sys

import nbd

SECTOR = 512
uri, *orders = sys.argv[1:]
h = nbd.NBD()
# The server is to find out what is wrong, and not the library.
h.set_strict_mode(0)
h.connect_uri(uri)


def pattern(offset, length):
    first = offset // SECTOR
    sectors = range(first, first + length // SECTOR)
    return bytearray(b"".join(struct.pack("<Q", n + 1) * (SECTOR // 8) for n in sectors))


def name_of(number):
    return errno.errorcode[number] if number else "ok"


def fill(offset, length):
    while offset < h.get_size():
        try:
            h.pwrite(pattern(offset, length), offset)
        except nbd.Error as error:
            return f"{offset} {error.errno}"
        offset += length
    return f"{offset} ok"


if orders[0].startswith("fill:"):
    print(fill(*map(int, orders[0].split(":")[1:])))
    sys.exit()

left, found = len(orders), [None] * len(orders)
buffers = []


def ended(index):
    def done(error):
        global left
        left -= 1
        found[index] = name_of(error.value)
        return 1

    return done


for index, order in enumerate(orders):
    kind, offset, length = order.split(":")[:3]
    offset, length = int(offset), int(length)
    done = ended(index)
    buffer = None
    if kind in "wW":
        buffer = nbd.Buffer.from_bytearray(pattern(offset, length))
        flags = nbd.CMD_FLAG_FUA if kind == "W" else 0
        h.aio_pwrite(buffer, offset, completion=done, flags=flags)
    elif kind in "rhn":
        buffer = nbd.Buffer(length)
        h.aio_pread(buffer, offset, completion=done)
    elif kind == "f":
        h.aio_flush(completion=done)
    elif kind == "t":
        h.aio_trim(length, offset, completion=done)
    else:
        flags = nbd.CMD_FLAG_NO_HOLE if kind == "Z" else 0
        h.aio_zero(length, offset, completion=done, flags=flags)
    buffers.append(buffer)
while left > 0:
    h.poll(-1)

wrong = []
for order, ending, buffer in zip(orders, found, buffers):
    kind, offset, length, expected = order.split(":")
    if ending != expected:
        wrong.append(f"{order}: {ending}")
    elif ending == "ok" and kind in "rh":
        right = pattern(int(offset), int(length)) if kind == "r" else bytearray(int(length))
        if buffer.to_bytearray() != right:
            wrong.append(f"{order}: other data")
if wrong:
    sys.exit("; ".join(wrong))
h.shutdown()
