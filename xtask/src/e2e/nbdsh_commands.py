# Every command with every flag that libnbd knows, and what each has done to the volume.
# Run by nbdsh, which has connected `h` to a volume of 64 MiB or more that is empty.
MIB = 1 << 20

# What a newer libnbd knows beyond this has to be tried too, so that it is not passed over. PAYLOAD
# belongs to extended headers, which libnbd sets by itself.
tried = {"FUA", "NO_HOLE", "DF", "REQ_ONE", "FAST_ZERO", "PAYLOAD_LEN", "MASK"}
known = {name[9:] for name in dir(nbd) if name.startswith("CMD_FLAG_")}
assert known <= tried, f"flags that are not tried: {known - tried}"

for ability in ("flush", "fua", "trim", "zero", "df", "multi_conn", "cache", "fast_zero"):
    assert getattr(h, "can_" + ability)(), f"the server cannot {ability}"
assert h.can_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
assert not h.is_read_only() and not h.is_rotational()
assert h.get_structured_replies_negotiated()


def extents(offset, length, flags=0):
    told = []

    def extent(context, start, entries, error):
        assert (context, start) == (nbd.CONTEXT_BASE_ALLOCATION, offset)
        told.extend(zip(entries[::2], entries[1::2]))

    h.block_status(length, offset, extent, flags)
    assert told and all(size for size, _ in told)
    return told


def chunks(offset, length, flags=0):
    """What a structured read is made of, and what it has read."""
    seen = []

    def chunk(piece, start, status, error):
        seen.append((start, len(piece), status))

    return h.pread_structured(length, offset, chunk, flags), seen


HOLE_AND_ZERO = nbd.STATE_HOLE | nbd.STATE_ZERO
assert extents(0, 8 * MIB) == [(8 * MIB, HOLE_AND_ZERO)], "an empty volume is no hole"

# Write, with and without FUA; one byte each, so that what is where can be told.
for index, flags in enumerate((0, nbd.CMD_FLAG_FUA)):
    h.pwrite(bytes([index + 1]) * MIB, index * MIB, flags)
h.flush()

# Read, simple to ask; structured, fragmented or not.
assert h.pread(2 * MIB, 0) == b"\1" * MIB + b"\2" * MIB
for flags in (0, nbd.CMD_FLAG_DF):
    data, seen = chunks(MIB // 2, 4 * MIB, flags)
    assert data == b"\1" * (MIB // 2) + b"\2" * MIB + bytes(5 * MIB // 2)
    assert sum(size for _, size, _ in seen) == 4 * MIB
    assert flags == 0 or len(seen) == 1, f"asked for one chunk, and got {seen}"

# Block status, of all and of one extent. The last may go beyond what was asked about.
told = extents(MIB, 2 * MIB)
assert told[0] == (MIB, 0), told
assert told[1][0] >= MIB and told[1][1] == HOLE_AND_ZERO, told
assert extents(MIB, 2 * MIB, nbd.CMD_FLAG_REQ_ONE) == [(MIB, 0)]
assert extents(MIB + 4096, 8192, nbd.CMD_FLAG_REQ_ONE) == [(8192, 0)]

# Cache changes nothing.
h.cache(4 * MIB, 0)
assert h.pread(2 * MIB, 0) == b"\1" * MIB + b"\2" * MIB

# Trim, with and without FUA. What was trimmed may read as anything; its neighbours may not.
for flags in (0, nbd.CMD_FLAG_FUA):
    h.pwrite(b"\3" * (3 * MIB), 8 * MIB)
    h.trim(MIB, 9 * MIB, flags)
    assert h.pread(MIB, 8 * MIB) == h.pread(MIB, 10 * MIB) == b"\3" * MIB

# Write-zeroes, with all eight sets of its flags. A fast one may be refused, and then has changed
# nothing; any other succeeds.
for bits in range(8):
    fua, no_hole, fast = bits & 1, bits & 2, bits & 4
    flags = (nbd.CMD_FLAG_FUA if fua else 0) | (nbd.CMD_FLAG_NO_HOLE if no_hole else 0)
    offset = (16 + 4 * bits) * MIB
    h.pwrite(b"\4" * (3 * MIB), offset)
    try:
        h.zero(MIB, offset + MIB, flags | (nbd.CMD_FLAG_FAST_ZERO if fast else 0))
        expected = bytes(MIB)
    except nbd.Error as error:
        assert fast and error.errno == "ENOTSUP", f"zero with {bits}: {error}"
        expected = b"\4" * MIB
    assert h.pread(3 * MIB, offset) == b"\4" * MIB + expected + b"\4" * MIB, bits
    if no_hole:
        # What must not be a hole is none; that it is empty the server may know or not.
        assert all(not state & nbd.STATE_HOLE for _, state in extents(offset, 3 * MIB)), bits

# Many at once, in both directions and of all kinds.
done = []
for index in range(64):
    offset = (index % 16) * MIB
    buffer = nbd.Buffer.from_bytearray(bytearray(65536))
    done += [
        h.aio_pwrite(buffer, offset),
        h.aio_pread(nbd.Buffer(65536), offset + 65536),
        h.aio_zero(65536, offset + 131072),
        h.aio_trim(65536, offset + 196608),
        h.aio_cache(65536, offset),
        h.aio_flush(),
    ]
while h.aio_in_flight():
    h.poll(-1)
assert all(h.aio_command_completed(cookie) for cookie in done)
h.shutdown()
print("all commands done")
