# Clients that mean no good, over a unix socket and by hand.
# Usage: hostile.py table SOCKET              malformed clients, one after the other
#        hostile.py crowd SOCKET ROLE=N ...   many clients of each role at once, until killed
import heapq
import os
import resource
import select
import socket
import struct
import sys
import time

READ, WRITE, DISC, FLUSH, TRIM, CACHE, ZEROES, STATUS = range(8)
ABORT, LIST, GO, STRUCTURED, META = 2, 3, 7, 8, 10
ACK, UNSUP, INVALID, UNKNOWN, TOO_BIG = 1, 1 << 31 | 1, 1 << 31 | 3, 1 << 31 | 6, 1 << 31 | 9
EPERM, EINVAL, ENOSPC, EOVERFLOW = 1, 22, 28, 75
PATIENCE = 10


def option(number, data=b"", length=None, magic=b"IHAVEOPT"):
    return magic + struct.pack(">II", number, len(data) if length is None else length) + data


def go(name=b"gold"):
    return option(GO, struct.pack(">I", len(name)) + name + b"\0\0")


def request(kind, offset=0, length=4096, flags=0, cookie=7, magic=0x25609513):
    return struct.pack(">IHHQQI", magic, flags, kind, cookie, offset, length)


class Client:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(path)

    def greet(self, flags=3):
        greeting = self.read(18)
        assert greeting[:16] == b"NBDMAGICIHAVEOPT", greeting
        self.send(struct.pack(">I", flags))
        return self

    def enter(self, name=b"gold"):
        self.greet().send(go(name))
        while self.option_reply() != ACK:
            pass
        return self

    def send(self, data):
        self.socket.sendall(data)

    def send_to_who_may_have_closed(self, data):
        try:
            self.send(data)
        except ConnectionError:
            pass

    def read(self, length):
        data = b""
        while len(data) < length:
            piece = self.socket.recv(length - len(data))
            if not piece:
                raise EOFError(f"closed after {len(data)} of {length} bytes")
            data += piece
        return data

    def option_reply(self):
        magic, _, kind, length = struct.unpack(">QIII", self.read(20))
        assert magic == 0x3E889045565A9, hex(magic)
        self.read(length)
        return kind

    def reply(self):
        magic, error, cookie = struct.unpack(">IIQ", self.read(16))
        assert magic == 0x67446698 and cookie == 7, (hex(magic), cookie)
        return error

    def is_closed(self):
        """Whether the server closes without another word."""
        try:
            data = self.socket.recv(65536)
        except ConnectionError:
            return True
        assert data == b"", f"the server says {data[:64]}"
        return True


# The cases: what is sent, and what comes of it. A function answers whether that is right.


def haggling(data, *kinds):
    """An option that is refused, after which another one works."""

    def case(path):
        client = Client(path).greet()
        client.send(data)
        kind = client.option_reply()
        client.send(go())
        while client.option_reply() != ACK:
            pass
        return kind in kinds

    return case


def closed_haggling(data, flags=3):
    def case(path):
        client = Client(path).greet(flags)
        client.send_to_who_may_have_closed(data)
        return client.is_closed()

    return case


def asking(data, *errors, export=b"gold"):
    """A request that is answered with an error, after which another one works."""

    def case(path):
        client = Client(path).enter(export)
        client.send(data)
        error = client.reply()
        client.send(request(READ))
        assert client.reply() == 0
        client.read(4096)
        return error in errors or f"error {error}"

    return case


def closed_asking(data):
    def case(path):
        client = Client(path).enter()
        client.send_to_who_may_have_closed(data)
        return client.is_closed()

    return case


def silence(data, enter):
    """Half of something and then nothing, which ends within handshake_timeout, here a second."""

    def case(path):
        client = Client(path)
        client.enter() if enter else client.greet()
        client.send(data)
        start = time.monotonic()
        client.is_closed()
        took = time.monotonic() - start
        return 0.7 < took < 3 or f"it took {took:.1f} s"

    return case


def half_a_write(path):
    before = read_block(path)
    assert silence(request(WRITE) + b"x" * 2000, True)(path) is True
    return read_block(path) == before or "half a write was written"


def read_block(path):
    client = Client(path).enter()
    client.send(request(READ))
    assert client.reply() == 0
    return client.read(4096)


def drip(path):
    """Slow, but in time."""
    client = Client(path).enter()
    for byte in request(READ):
        client.send(bytes([byte]))
        time.sleep(0.02)
    return client.reply() == 0 and len(client.read(4096)) == 4096


def leave(path):
    client = Client(path).enter()
    client.send(request(DISC) + request(READ))
    return client.is_closed()


def abrupt(path):
    """The whole life of a client, cut off at every third byte."""
    steps = [
        struct.pack(">I", 3),
        option(STRUCTURED),
        go(),
        request(WRITE, 0, 8192) + b"y" * 8192,
        request(READ, 0, 1 << 20),
        request(FLUSH, 0, 0),
        request(WRITE, 8192, 1 << 20) + b"z" * 100,
    ]
    life = b"".join(steps)
    ends = [*range(0, 200, 3), *range(200, len(life), 501), len(life)]
    for end in ends:
        client = Client(path)
        client.send_to_who_may_have_closed(life[:end])
        client.socket.close()
    return True


def too_many(path):
    """More than max_connections, here 32: those beyond are closed, and places come free again."""
    clients = [Client(path) for _ in range(64)]
    served = 0
    for client in clients:
        try:
            served += client.greet() is not None
        except (EOFError, ConnectionError):
            pass
    for client in clients:
        client.socket.close()
    return 30 <= served <= 32 or f"{served} were served"


def flood(path):
    """Thousands of refusals and maps asked for without a look at the answers."""
    client = Client(path).greet()
    client.send(option(STRUCTURED))
    assert client.option_reply() == ACK
    query = struct.pack(">I", 4) + b"gold" + struct.pack(">II", 1, 15) + b"base:allocation"
    client.send(option(META, query))
    while client.option_reply() != ACK:
        pass
    client.send(go())
    while client.option_reply() != ACK:
        pass
    client.socket.settimeout(0.5)
    many = (request(99) + request(STATUS, 0, 16 << 20)) * 40000
    try:
        client.send(many)
        return "the server took 80000 requests and none of its answers was read"
    except TimeoutError:
        return True


BEYOND = 1 << 62
CASES = {
    "wrong client flags": closed_haggling(go(), flags=0xFFFFFFFF),
    "wrong magic of an option": closed_haggling(option(GO, magic=b"IHATEOPT")),
    "another protocol": closed_haggling(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "an option of 4 GiB": closed_haggling(option(GO, b"x" * 64, length=0xFFFFFFFF)),
    "an unknown option": haggling(option(0x7777, b"what?"), UNSUP),
    "an unknown option of 100 KiB": haggling(option(0x7777, b"x" * 102400), UNSUP, TOO_BIG),
    "an export name beyond its option": haggling(
        option(GO, struct.pack(">I", 999) + b"gold\0\0"), INVALID
    ),
    "an unknown export": haggling(go(b"silver"), UNKNOWN),
    "a list with data": haggling(option(LIST, b"all"), INVALID),
    "four billion contexts": haggling(
        option(META, struct.pack(">I", 4) + b"gold" + b"\xff" * 4), INVALID
    ),
    "half an option, then silence": silence(go()[:11], False),
    "flags, then silence": silence(b"", False),
    "wrong magic of a request": closed_asking(request(READ, magic=0x25609514)),
    "a read of 4 GiB": asking(request(READ, 0, 0xFFFFFFFF), EINVAL, EOVERFLOW),
    "a read past the end": asking(request(READ, BEYOND), EINVAL),
    "a read across the end of 64 bits": asking(request(READ, 2**64 - 512), EINVAL),
    "a write past the end": asking(request(WRITE, BEYOND) + b"x" * 4096, ENOSPC, EINVAL),
    "a write of 4 GiB": closed_asking(request(WRITE, 0, 0xFFFFFFFF) + b"x" * 64),
    "zeroes past the end": asking(request(ZEROES, BEYOND), ENOSPC, EINVAL),
    "a trim past the end": asking(request(TRIM, BEYOND), EINVAL, ENOSPC),
    "an unknown command": asking(request(99), EINVAL),
    "unknown flags": asking(request(READ, flags=0x8000), EINVAL),
    "a map that was not agreed on": asking(request(STATUS), EINVAL),
    "a write to what is read-only": asking(
        request(WRITE) + b"x" * 4096, EPERM, export=b"bronze"
    ),
    "half a header, then silence": silence(request(READ)[:14], True),
    "half a payload, then silence": half_a_write,
    "a header in 28 pieces": drip,
    "requests after the leave": leave,
    "abrupt closes at every step": abrupt,
    "a flood without reading": flood,
    "more clients than there may be": too_many,
}


def table(path):
    failed = 0
    for name, case in CASES.items():
        try:
            outcome = case(path)
            # Whatever it was, the next client is served.
            for _ in range(200):
                try:
                    read_block(path)
                    break
                except (EOFError, ConnectionError):
                    # The places of those who have just closed come free in a moment.
                    time.sleep(0.01)
            else:
                outcome = "nobody is served any more"
        except Exception as error:
            outcome = f"{type(error).__name__}: {error}"
        failed += outcome is not True
        print("ok" if outcome is True else "FAIL", name, "" if outcome is True else outcome)
    sys.exit(failed > 0)


# The crowd. Each member is a generator that yields how many seconds to leave it alone.


def idle(path):
    client = Client(path).enter(b"bronze")
    yield from until_gone(client)


def half(path):
    """Half a handshake or half a request, and then silence until the server has enough."""
    client = Client(path)
    if os.urandom(1)[0] & 1:
        client.greet().send(go()[:9])
    else:
        client.enter(b"bronze").send(request(READ)[:17])
    yield from until_gone(client)


def stalled(path):
    """Asks for all it may, and reads nothing."""
    client = Client(path).enter(b"bronze")
    client.socket.setblocking(False)
    asked = b"".join(request(READ, n << 18, 1 << 18) for n in range(64)) * 40
    try:
        client.socket.send(asked)
    except BlockingIOError:
        pass
    yield from until_gone(client)


def small(path):
    """Asks for small things, by the thousand, and reads nothing."""
    client = Client(path).enter(b"bronze")
    client.socket.setblocking(False)
    try:
        client.socket.send(b"".join(request(READ, n << 12) for n in range(4000)))
    except BlockingIOError:
        pass
    yield from until_gone(client)


def trickle(path):
    """A write of 32 MiB, by a hundred bytes at a time."""
    client = Client(path).enter(b"bronze")
    client.send(request(WRITE, 0, 32 << 20))
    while True:
        client.socket.send(b"x" * 100, socket.MSG_DONTWAIT)
        yield 0.25


def churn(path):
    """Comes, says half of something or something wrong, and goes without a word."""
    said = [
        b"",
        b"\0\0",
        b"x" * 100,
        struct.pack(">I", 3) + go()[:20],
        struct.pack(">I", 3) + go(b"bronze") + request(READ, 0, 1 << 16),
        struct.pack(">I", 3) + go(b"bronze") + request(WRITE, 0, 1 << 20) + b"x" * 999,
        struct.pack(">I", 3) + go(b"bronze") + request(READ, BEYOND) * 20,
        struct.pack(">I", 3) + go(b"bronze") + b"\xff" * 28,
    ]
    for data in said:
        client = Client(path)
        try:
            client.send(data)
        finally:
            client.socket.close()
        yield 0.1


def until_gone(client):
    poll = select.poll()
    poll.register(client.socket, 0)
    while not poll.poll(0):
        yield 1
    client.socket.close()


ROLES = {
    "idle": idle,
    "half": half,
    "stalled": stalled,
    "small": small,
    "trickle": trickle,
    "churn": churn,
}


def crowd(path, counts):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    due, number = [], 0
    for word in counts:
        role, count = word.split("=")
        for _ in range(int(count)):
            due.append((0, number, ROLES[role], None))
            number += 1
    told = False
    while due:
        at, number, role, member = due[0]
        # The first round brings everybody up.
        if at > 0 and not told:
            told = True
            print("up", flush=True)
        time.sleep(max(0, at - time.monotonic()))
        try:
            member = member or role(path)
            pause = next(member)
        except (StopIteration, EOFError, OSError, AssertionError):
            # It is gone, and another one comes in its place.
            member, pause = None, 0.5
        heapq.heapreplace(due, (time.monotonic() + pause, number, role, member))


if sys.argv[1] == "table":
    table(sys.argv[2])
else:
    crowd(sys.argv[2], sys.argv[3:])
