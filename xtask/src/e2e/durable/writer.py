# A client that writes, zeroes and flushes numbered blocks over several connections until the first
# error, and then reports what each block may hold if every promise it was given was kept.
# Usage: writer.py REPORT SEED BLOCK_BYTES DEPTH FUA_PERCENT FLUSH_PERCENT ZERO_PERCENT \
#     VOLUME=URI...
#
# Every 16 bytes written are the block's own number, its volume in the upper half, and the number of
# the write. A line of the report is: VOLUME BLOCK KEPT NUMBER NUMBER..., with the numbers that the
# block may hold, the oldest first; KEPT of them came before the one that was acknowledged last.
import random
import select
import struct
import sys

import nbd

# How many blocks of a volume are written, over and over, and the longest write, in blocks.
AREA = 256
RUN = 8
# How many flushes a connection has in flight.
FLUSHES = 2

report, seed, block_bytes, depth, fua_percent, flush_percent, zero_percent = sys.argv[1:8]
block_bytes, depth = int(block_bytes), int(depth)
fua_percent, flush_percent, zero_percent = int(fua_percent), int(flush_percent), int(zero_percent)
random = random.Random(int(seed))
volume_names = ["gold", "bronze"]
number = 0
stopping = promised = False


class Block:
    def __init__(self):
        # (number of the write, number found after it) of what may be found, the oldest first.
        # Nothing, or zeroing, leaves 0.
        self.sent = [(0, 0)]
        self.acknowledged = 0
        self.busy = False

    def promise(self, write):
        """What was sent before this write, which is durable, may no longer be found."""
        self.sent = [sent for sent in self.sent if sent[0] >= write]


class Volume:
    def __init__(self, name):
        self.index = volume_names.index(name)
        self.first = random.randrange(0, 4096)
        self.blocks = [Block() for _ in range(AREA)]


class Connection:
    def __init__(self, volume, uri):
        self.volume, self.in_flight, self.flushes = volume, 0, 0
        self.h = nbd.NBD()
        self.h.connect_uri(uri)

    def fill(self):
        """Sends requests until enough are in flight."""
        while self.in_flight < depth and not stopping:
            if random.randrange(100) < flush_percent and self.flushes < FLUSHES:
                self.flush()
            elif not self.write():
                return

    def flush(self):
        # Only what was acknowledged before the flush is sent is covered by it; by whichever of the
        # volume's connections, as the server says that it can do that (NBD_FLAG_CAN_MULTI_CONN).
        covered = [(b, b.acknowledged) for b in self.volume.blocks]
        self.flushes += 1

        def done(error):
            self.flushes -= 1
            if self.ended(error):
                for block, write in covered:
                    block.promise(write)
                tell_promised()
            return 1

        self.in_flight += 1
        self.h.aio_flush(completion=done)

    def write(self):
        global number
        index = random.randrange(AREA)
        blocks = self.volume.blocks[index : index + random.randint(1, RUN)]
        # One request a block at a time, so that what may be found there is known.
        if any(block.busy for block in blocks):
            return False
        number += 1
        write, fua = number, random.randrange(100) < fua_percent
        zero = random.randrange(100) < zero_percent
        payload = bytearray()
        for at, block in enumerate(blocks, self.volume.first + index):
            block.busy = True
            block.sent.append((write, 0 if zero else write))
            payload += struct.pack("<QQ", self.volume.index << 32 | at, write) * (block_bytes // 16)
        buffer = nbd.Buffer.from_bytearray(payload)

        # The buffer is named so that it lives as long as this.
        def done(error, buffer=buffer):
            acknowledged = self.ended(error)
            for block in blocks:
                block.busy = False
                if acknowledged:
                    block.acknowledged = write
                if acknowledged and fua:
                    block.promise(write)
            if acknowledged and fua:
                tell_promised()
            return 1

        self.in_flight += 1
        offset = (self.volume.first + index) * block_bytes
        flags = nbd.CMD_FLAG_FUA if fua else 0
        if zero:
            self.h.aio_zero(len(payload), offset, completion=done, flags=flags)
        else:
            self.h.aio_pwrite(buffer, offset, completion=done, flags=flags)
        return True

    def ended(self, error):
        global stopping
        self.in_flight -= 1
        stopping = stopping or error.value != 0
        return error.value == 0

    def events(self):
        direction, events = self.h.aio_get_direction(), 0
        if direction & nbd.AIO_DIRECTION_READ:
            events |= select.POLLIN
        if direction & nbd.AIO_DIRECTION_WRITE:
            events |= select.POLLOUT
        return events

    def notify(self, events):
        direction = self.h.aio_get_direction()
        if events & ~select.POLLOUT and direction & nbd.AIO_DIRECTION_READ:
            self.h.aio_notify_read()
        elif events & select.POLLOUT and direction & nbd.AIO_DIRECTION_WRITE:
            self.h.aio_notify_write()


def tell_promised():
    """Says once that there is something to hold the server to."""
    global promised
    if not promised:
        promised = True
        print("promised", flush=True)


def work(connections):
    poll = select.poll()
    by_fd = {}
    for connection in connections:
        by_fd[connection.h.aio_get_fd()] = connection
    while not stopping:
        for fd, connection in by_fd.items():
            connection.fill()
            poll.register(fd, connection.events())
        for fd, events in poll.poll():
            by_fd[fd].notify(events)


volumes, connections = {}, []
for argument in sys.argv[8:]:
    name, uri = argument.split("=", 1)
    volume = volumes.setdefault(name, Volume(name))
    connections.append(Connection(volume, uri))
try:
    work(connections)
except nbd.Error as error:
    # The server may close a connection that it has no answer for.
    print(error, file=sys.stderr)

with open(report, "w") as out:
    for name, volume in volumes.items():
        for at, block in enumerate(volume.blocks, volume.first):
            kept = sum(write < block.acknowledged for write, _ in block.sent)
            found = " ".join(str(value) for _, value in block.sent)
            out.write(f"{name} {at} {kept} {found}\n")
