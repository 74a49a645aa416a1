# A client that writes pieces of blocks, round after round, each piece with its number and that of
# the round. All pieces of a round are sent at once. Says which block sizes the server advertises.
# Usage: blocks.py URI WRITER STRIDE_SECTORS PIECE_SECTORS PIECES ROUNDS
import struct
import sys

import nbd

SECTOR = 512
uri, *numbers = sys.argv[1:]
writer, stride, length, pieces, rounds = map(int, numbers)

h = nbd.NBD()
h.connect_uri(uri)
print(h.get_block_size(nbd.SIZE_MINIMUM), h.get_block_size(nbd.SIZE_PREFERRED))
# A writer of whole blocks has number 8 or above and begins where the others do.
first = writer % 8

for number in range(1, rounds + 1):
    payload = bytearray(struct.pack("<QQ", writer, number) * (length * SECTOR // 16))
    failed, left = [], pieces

    def done(error):
        global left
        left -= 1
        if error.value != 0:
            failed.append(error.value)
        return 1

    for piece in range(pieces):
        buffer = nbd.Buffer.from_bytearray(payload)
        flags = nbd.CMD_FLAG_FUA if (piece + number) % 16 == 0 else 0
        offset = (first + piece * stride) * SECTOR
        h.aio_pwrite(buffer, offset, completion=done, flags=flags)
    while left > 0:
        h.poll(-1)
    if failed:
        sys.exit(f"writer {writer}, round {number}: errors {failed}")
h.shutdown()
