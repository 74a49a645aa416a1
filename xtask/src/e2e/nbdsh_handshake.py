# The handshake, step by step, and in every form that libnbd can ask for.
# Run by nbdsh with BLKMQ_URI in the environment: volumes gold, which is the default, and bronze,
# which is read-only, of 64 MiB or more.
import os

URI = os.environ["BLKMQ_URI"]


def connect(name, **settings):
    c = nbd.NBD()
    for setting, value in settings.items():
        getattr(c, "set_" + setting)(value)
    c.connect_uri(URI.replace("/gold", "/" + name))
    return c


def refused(errno, call, *args):
    try:
        call(*args)
    except nbd.Error as error:
        assert error.errno == errno, f"{call.__name__}{args[1:]}: {error} instead of {errno}"
        return
    raise AssertionError(f"{call.__name__}{args} was not refused")


def contexts(c, *queries):
    c.clear_meta_contexts()
    for query in queries:
        c.add_meta_context(query)
    seen = []
    c.opt_list_meta_context(lambda name: seen.append(name))
    return seen


# Options, one by one, on one connection.
c = connect("gold", opt_mode=True, full_info=True)
listed = []
c.opt_list(lambda name, description: listed.append(name))
assert listed == ["gold", "bronze"], listed
for name, canonical, read_only in (("", "gold", False), ("gold", "gold", False),
                                   ("bronze", "bronze", True)):
    c.set_export_name(name)
    c.opt_info()
    assert c.get_canonical_export_name() == canonical
    assert c.is_read_only() == read_only
    assert c.can_trim() == c.can_zero() == c.can_fast_zero() == (not read_only)
    assert c.get_size() >= 64 << 20
    sizes = [c.get_block_size(size) for size in
             (nbd.SIZE_MINIMUM, nbd.SIZE_PREFERRED, nbd.SIZE_MAXIMUM)]
    assert sizes == [512, 4096, 32 << 20], sizes
allocation = [nbd.CONTEXT_BASE_ALLOCATION]
assert contexts(c) == allocation, "no query asks for everything"
assert contexts(c, "base:") == allocation, "a wildcard asks for all of its namespace"
assert contexts(c, "base:allocation", "x-other:thing") == allocation
assert contexts(c, "base:unknown") == contexts(c, "qemu:") == []
c.set_export_name("lead")
refused("ENOENT", c.opt_info)
refused("ENOENT", c.opt_go)
# A refusal leaves the connection as it was.
c.set_export_name("gold")
c.clear_meta_contexts()
c.add_meta_context("base:")
c.add_meta_context("base:allocation")
c.opt_go()
assert c.can_meta_context("base:allocation")
c.shutdown()

c = connect("gold", opt_mode=True)
c.opt_abort()
assert c.aio_is_closed()

# Every pair of handshake flags, with and without structured replies. Without fixed newstyle
# nothing can be haggled over.
for flags in range(nbd.HANDSHAKE_FLAG_MASK + 1):
    for structured in (False, True):
        c = connect("gold", handshake_flags=flags, request_structured_replies=structured)
        fixed = flags & nbd.HANDSHAKE_FLAG_FIXED_NEWSTYLE
        assert c.get_protocol() == ("newstyle-fixed" if fixed else "newstyle")
        assert bool(c.get_structured_replies_negotiated()) == bool(structured and fixed)
        assert bool(c.can_df()) == bool(structured and fixed)
        c.pwrite(bytes([flags]) * 512, 0)
        assert c.pread(512, 0) == bytes([flags]) * 512
        c.shutdown()

# What a client should not ask is refused with the protocol's error, and the connection goes on.
c = nbd.NBD()
c.set_strict_mode(0)
c.add_meta_context("base:allocation")
c.connect_uri(URI)
size = c.get_size()
ignore = lambda *told: 0
all_of = 1 << 15
for length, offset in ((4096, size), (8192, size - 4096), (512, 1 << 62)):
    refused("ENOSPC", c.pwrite, bytes(length), offset)
    refused("ENOSPC", c.zero, length, offset)
    refused("EINVAL", c.pread, length, offset)
    refused("EINVAL", c.trim, length, offset)
    refused("EINVAL", c.cache, length, offset)
    refused("EINVAL", c.block_status, length, offset, ignore)
for length, offset in ((100, 0), (512, 100), (0, 0)):
    refused("EINVAL", c.pwrite, bytes(length), offset)
    refused("EINVAL", c.pread, length, offset)
    refused("EINVAL", c.trim, length, offset)
    refused("EINVAL", c.zero, length, offset)
    refused("EINVAL", c.cache, length, offset)
    refused("EINVAL", c.block_status, length, offset, ignore)
for flags in (all_of, nbd.CMD_FLAG_NO_HOLE):
    refused("EINVAL", c.pwrite, bytes(512), 0, flags)
    refused("EINVAL", c.trim, 512, 0, flags)
    refused("EINVAL", c.flush, flags)
    refused("EINVAL", c.cache, 512, 0, flags)
refused("EINVAL", c.zero, 512, 0, nbd.CMD_FLAG_DF)
refused("EINVAL", c.block_status, 512, 0, ignore, nbd.CMD_FLAG_DF)
# One read more than the largest payload; libnbd itself goes up to 64 MiB.
refused("EINVAL", c.pread, (32 << 20) + 512, 0)
refused("EOVERFLOW", c.pread_structured, (32 << 20) + 512, 0, ignore, nbd.CMD_FLAG_DF)
refused("EINVAL", c.pwrite, bytes((32 << 20) - 511), 0)
c.pwrite(b"!" * 512, 0)
assert c.pread(512, 0) == b"!" * 512
c.shutdown()

# Nothing is written to what is read-only.
c = nbd.NBD()
c.set_strict_mode(0)
c.connect_uri(URI.replace("/gold", "/bronze"))
assert c.is_read_only()
refused("EPERM", c.pwrite, bytes(512), 0)
refused("EPERM", c.trim, 512, 0)
refused("EPERM", c.zero, 512, 0)
c.flush()
c.cache(4096, 0)
assert c.pread(512, 0) == bytes(512)
c.shutdown()
print("all handshakes done")
