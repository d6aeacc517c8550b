"""NBD commands through libnbd, each checked against bytes computed here.

Usage: commands.py FUNCTION URI
"""

import errno
import random
import socket
import struct
import sys
from urllib.parse import parse_qs, urlparse

import nbd

MIB = 1 << 20
BLOCK = 4096


class Volume:
    """A handle and what the volume must hold, as far as this script wrote it."""

    def __init__(self, uri, strict=True):
        self.h = connect(uri, strict)
        self.size = self.h.get_size()
        # Other scripts may have written before: start from what is there.
        self.bytes = bytearray(read_all(self.h))

    def write(self, data, offset, flags=0):
        self.h.pwrite(data, offset, flags)
        self.bytes[offset : offset + len(data)] = data

    def zero(self, count, offset, flags=0):
        self.h.zero(count, offset, flags)
        self.bytes[offset : offset + count] = bytes(count)

    def trim(self, count, offset, flags=0):
        self.h.trim(count, offset, flags)
        first = -(-offset // BLOCK) * BLOCK
        end = (offset + count) // BLOCK * BLOCK
        if first < end:
            self.bytes[first:end] = bytes(end - first)

    def check(self, offset=0, count=None):
        count = self.size - offset if count is None else count
        at = offset
        while at < offset + count:
            step = min(8 * MIB, offset + count - at)
            same(self.h.pread(step, at), self.bytes[at : at + step], at)
            at += step


def connect(uri, strict=True):
    h = nbd.NBD()
    h.add_meta_context("base:allocation")
    if not strict:
        h.set_strict_mode(0)
    h.connect_uri(uri)
    return h


def read_all(h):
    step = 16 * MIB
    return b"".join(h.pread(step, at) for at in range(0, h.get_size(), step))


def same(found, expected, at=0):
    if bytes(found) != bytes(expected):
        wrong = next(i for i in range(len(expected)) if found[i] != expected[i])
        raise AssertionError("byte %d differs: %d, not %d" % (at + wrong, found[wrong], expected[wrong]))


def data(count, seed):
    return random.Random(seed).randbytes(count)


def refused(call, *wanted):
    try:
        call()
    except nbd.Error as error:
        assert error.errnum in wanted, "error %s, not %s" % (error, wanted)
        return
    raise AssertionError("was not refused")


def reads(uri):
    v = Volume(uri)
    v.write(data(3 * MIB, 1), 5 * MIB)
    # Sizes from a sector to the largest request, at every kind of offset.
    for count, offset in [
        (512, 5 * MIB),
        (512, 5 * MIB + 512),
        (4096, 5 * MIB - 512),
        (65536, 5 * MIB - 512),
        (MIB, 8 * MIB - 4096 - 512),
        (32 * MIB, 0),
        (32 * MIB, v.size - 32 * MIB),
        (512, v.size - 512),
    ]:
        same(v.h.pread(count, offset), v.bytes[offset : offset + count], offset)

    # Chunks: each byte once, in whatever pieces; with DF all in one.
    for flags in [0, nbd.CMD_FLAG_DF]:
        count, offset = 4 * MIB, 4 * MIB + 512
        buffer = bytearray(b"x" * count)
        seen = []

        def chunk(piece, at, kind, err):
            seen.append((at, len(piece), kind))
            if kind == nbd.READ_DATA:
                buffer[at - offset : at - offset + len(piece)] = piece
            else:
                assert kind == nbd.READ_HOLE, kind
                buffer[at - offset : at - offset + len(piece)] = bytes(len(piece))

        same(v.h.pread_structured(count, offset, chunk, flags), v.bytes[offset : offset + count])
        same(buffer, v.bytes[offset : offset + count], offset)
        assert sum(length for _, length, _ in seen) == count, seen
        if flags:
            assert len(seen) == 1, seen


def writes(uri):
    v = Volume(uri)
    for seed, (count, offset) in enumerate([
        (512, 0),
        (512, 4096 + 1536),
        (1024, 8192 - 512),
        (4096, 16384),
        (65536, 65536),
        (65536, 3 * 65536 - 512),
        (MIB, 2 * MIB + 4096),
        (4 * MIB, 8 * MIB),
        (32 * MIB, 32 * MIB),
        (512, v.size - 512),
        (128 * 1024, v.size - 128 * 1024),
    ]):
        v.write(data(count, seed), offset, nbd.CMD_FLAG_FUA if seed % 2 else 0)
    v.check()
    # Over each other.
    for seed in range(200):
        r = random.Random(seed)
        count = 512 * r.randint(1, 300)
        v.write(r.randbytes(count), 512 * r.randrange(0, 2000))
    v.check()
    again = Volume(uri)
    same(again.bytes, v.bytes)


def zeroes(uri):
    v = Volume(uri)
    v.write(data(16 * MIB, 2), 0)
    for flags in [
        0,
        nbd.CMD_FLAG_NO_HOLE,
        nbd.CMD_FLAG_FAST_ZERO,
        nbd.CMD_FLAG_FUA,
        nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FUA,
    ]:
        base = (1 + flags) * 128 * 1024 * 4
        for count, offset in [(512, 512), (4096, 4096), (8192, 16384 + 512), (65536, 65536), (200704, 131072 + 1024)]:
            try:
                v.zero(count, base + offset, flags)
            except nbd.Error as error:
                # A fast zero may be refused, but then changes nothing.
                assert flags & nbd.CMD_FLAG_FAST_ZERO and error.errnum == errno.ENOTSUP, error
        v.check(base, 512 * 1024)
    # More than the largest write: zeroes carry no data.
    v.zero(64 * MIB, 10 * MIB + 512)
    v.check()


def trims(uri):
    v = Volume(uri)
    v.write(data(16 * MIB, 3), 0)
    for flags in [0, nbd.CMD_FLAG_FUA]:
        base = 4 * MIB * (1 + flags)
        for count, offset in [
            (512, 512),
            (4096, 4096),
            (4096, 12288 + 512),
            (8192, 32768 + 512),
            (65536, 65536),
            (MIB, MIB + 1536),
        ]:
            v.trim(count, base + offset, flags)
            v.check(base, 4 * MIB)
    # Trimmed space takes data again.
    v.write(data(65536, 4), 4 * MIB + 65536)
    v.trim(100 * MIB, 16 * MIB)
    v.check()


def flushes_and_caches(uri):
    v = Volume(uri)
    v.write(data(MIB, 5), MIB)
    v.h.flush()
    v.h.cache(MIB, MIB)
    v.h.cache(v.size - 64 * MIB, 64 * MIB)
    v.h.flush()
    v.check(0, 3 * MIB)


def extents_of(h, count, offset, flags=0):
    found = []

    def extent(context, at, entries, err):
        assert context == "base:allocation", context
        assert at == offset, (at, offset)
        found.extend(zip(entries[0::2], entries[1::2]))

    h.block_status(count, offset, extent, flags)
    return found


def block_status(uri):
    HOLE, ZERO = nbd.STATE_HOLE, nbd.STATE_ZERO
    v = Volume(uri)
    v.trim(v.size, 0)
    assert extents_of(v.h, v.size, 0) == [(v.size, HOLE | ZERO)]
    v.write(data(3 * 65536, 6), MIB)
    v.write(data(512, 7), 4 * MIB + 512)
    v.trim(65536, MIB + 65536)
    whole = [
        (MIB, HOLE | ZERO),
        (65536, 0),
        (65536, HOLE | ZERO),
        (65536, 0),
        (4 * MIB - MIB - 3 * 65536, HOLE | ZERO),
        (4096, 0),
        (v.size - 4 * MIB - 4096, HOLE | ZERO),
    ]
    assert extents_of(v.h, v.size, 0) == whole, extents_of(v.h, v.size, 0)
    # One extent only, inside of the request.
    assert extents_of(v.h, 2 * MIB, 0, nbd.CMD_FLAG_REQ_ONE) == [(MIB, HOLE | ZERO)]
    assert extents_of(v.h, 4096, MIB, nbd.CMD_FLAG_REQ_ONE) == [(4096, 0)]
    assert extents_of(v.h, 8192, 4 * MIB) == [(4096, 0), (4096, HOLE | ZERO)]
    # Zeroes: whatever is called zero is zero, and what is kept is no hole.
    v.zero(65536, MIB, nbd.CMD_FLAG_NO_HOLE)
    (length, flags), = extents_of(v.h, 65536, MIB)
    assert length == 65536 and not flags & HOLE, (length, flags)
    v.zero(65536, MIB)
    assert extents_of(v.h, 65536, MIB) == [(65536, HOLE | ZERO)]
    r = random.Random(8)
    for _ in range(100):
        count, offset = 512 * r.randint(1, 400), 512 * r.randrange(0, 32768)
        r.choice([v.trim, v.zero, lambda c, o: v.write(r.randbytes(c), o)])(count, offset)
    at = 0
    while at < v.size:
        for length, flags in extents_of(v.h, v.size - at, at):
            if flags & ZERO:
                assert not any(v.bytes[at : at + length]), (at, length, flags)
            at += length
    assert at == v.size
    v.check()


def errors_leave_the_connection_usable(uri):
    v = Volume(uri, strict=False)
    size = v.size
    refused(lambda: v.h.pread(512, size), errno.EINVAL)
    refused(lambda: v.h.pread(1024, size - 512), errno.EINVAL)
    refused(lambda: v.h.pread(512, (1 << 63) - 512), errno.EINVAL)
    refused(lambda: v.h.pwrite(bytes(512), size), errno.ENOSPC, errno.EINVAL)
    refused(lambda: v.h.pwrite(bytes(1024), size - 512), errno.ENOSPC, errno.EINVAL)
    refused(lambda: v.h.zero(1024, size - 512), errno.ENOSPC, errno.EINVAL)
    refused(lambda: v.h.trim(1024, size - 512), errno.EINVAL, errno.ENOSPC)
    refused(lambda: v.h.cache(1024, size - 512), errno.EINVAL)
    # Not multiples of the block size that was announced.
    refused(lambda: v.h.pread(100, 0), errno.EINVAL)
    refused(lambda: v.h.pread(512, 1), errno.EINVAL)
    refused(lambda: v.h.pwrite(b"x", 0), errno.EINVAL)
    refused(lambda: v.h.zero(511, 512), errno.EINVAL)
    # Flags that no such command has.
    refused(lambda: v.h.pread(512, 0, nbd.CMD_FLAG_FAST_ZERO), errno.EINVAL)
    refused(lambda: v.h.trim(512, 0, nbd.CMD_FLAG_DF), errno.EINVAL)
    v.write(data(4096, 9), 4096)
    v.check()


def many_in_flight_out_of_order(uri):
    v = Volume(uri)
    r = random.Random(10)
    cookies = set()
    places = r.sample(range(0, v.size // 65536), 400)
    for index, place in enumerate(places):
        count = 512 * r.randint(1, 128)
        piece = r.randbytes(count)
        offset = place * 65536
        v.bytes[offset : offset + count] = piece
        cookies.add(v.h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(piece)), offset))
    drain(v.h, cookies)
    buffers = [(place * 65536, nbd.Buffer(65536)) for place in places]
    drain(v.h, {v.h.aio_pread(buffer, offset) for offset, buffer in buffers})
    for offset, buffer in buffers:
        same(buffer.to_bytearray(), v.bytes[offset : offset + 65536], offset)


def drain(h, cookies):
    while cookies:
        done = h.aio_peek_command_completed()
        if done:
            assert h.aio_command_completed(done)
            cookies.remove(done)
        else:
            h.poll(-1)


def several_connections(uri):
    handles = [connect(uri) for _ in range(4)]
    assert all(h.can_multi_conn() for h in handles)
    for seed in range(100):
        r = random.Random(seed)
        count, offset = 512 * r.randint(1, 256), 512 * r.randrange(0, 4096)
        piece = r.randbytes(count)
        writer, reader = r.sample(handles, 2)
        writer.pwrite(piece, offset)
        # What one connection was told is written, the others see, without a flush.
        same(reader.pread(count, offset), piece, offset)
    handles[0].shutdown()
    handles[1].pread(512, 0)


def simple_replies(uri):
    h = nbd.NBD()
    h.set_request_structured_replies(False)
    h.connect_uri(uri)
    assert not h.get_structured_replies_negotiated()
    piece = data(MIB, 11)
    h.pwrite(piece, 512)
    same(h.pread(MIB, 512), piece)
    h.set_strict_mode(0)
    refused(lambda: h.pread(512, h.get_size()), errno.EINVAL)
    same(h.pread(4096, 512), piece[:4096])


def haggling(uri):
    base = uri.replace("/demo", "/")

    def start():
        h = nbd.NBD()
        h.set_opt_mode(True)
        h.connect_uri(base)
        return h

    h = start()
    names = []
    h.opt_list(lambda name, description: names.append(name))
    assert names == ["demo"], names
    # Something that is not there is refused, and the haggling goes on.
    h.set_export_name("nothing")
    refused(h.opt_info, errno.ENOENT)
    refused(h.opt_go, errno.ENOENT)
    h.set_export_name("demo")
    h.set_full_info(True)
    h.opt_info()
    assert h.get_size() == 128 * MIB
    assert h.get_canonical_export_name() == "demo"
    assert h.get_export_description()
    assert h.get_block_size(nbd.SIZE_MINIMUM) == 512
    assert h.get_block_size(nbd.SIZE_MAXIMUM) == 32 * MIB
    contexts = []
    h.clear_meta_contexts()
    h.opt_list_meta_context(contexts.append)
    assert contexts == ["base:allocation"], contexts
    for query, wanted in [("base:", ["base:allocation"]), ("base:other", []), ("qemu:dirty-bitmap:x", [])]:
        h.clear_meta_contexts()
        h.add_meta_context(query)
        contexts = []
        h.opt_list_meta_context(contexts.append)
        assert contexts == wanted, (query, contexts)
    h.clear_meta_contexts()
    h.add_meta_context("base:allocation")
    h.opt_go()
    assert h.can_meta_context("base:allocation")
    h.pread(512, 0)
    h.shutdown()

    start().opt_abort()


def export_name(uri):
    """The oldest way in, which libnbd uses only against old servers."""
    for no_zeroes in [True, False]:
        parts = urlparse(uri)
        if parts.scheme == "nbd+unix":
            s = socket.socket(socket.AF_UNIX)
            s.connect(parse_qs(parts.query)["socket"][0])
        else:
            s = socket.create_connection((parts.hostname, parts.port))
        f = s.makefile("rwb")
        magic, option_magic, flags = struct.unpack(">8s8sH", f.read(18))
        assert (magic, option_magic) == (b"NBDMAGIC", b"IHAVEOPT") and flags & 3 == 3, flags
        f.write(struct.pack(">I8sII", 3 if no_zeroes else 1, b"IHAVEOPT", 1, 4) + b"demo")
        f.flush()
        size, flags = struct.unpack(">QH", f.read(10))
        assert size == 128 * MIB and flags & 1, (size, flags)
        if not no_zeroes:
            assert f.read(124) == bytes(124)
        piece = data(1024, 12)
        f.write(struct.pack(">IHHQQI", 0x25609513, 0, 1, 77, 512, 1024) + piece)
        f.write(struct.pack(">IHHQQI", 0x25609513, 0, 3, 78, 0, 0))
        f.flush()
        answers = {struct.unpack(">IIQ", f.read(16)) for _ in range(2)}
        assert answers == {(0x67446698, 0, 77), (0x67446698, 0, 78)}, answers
        f.write(struct.pack(">IHHQQI", 0x25609513, 0, 0, 79, 512, 1024))
        f.flush()
        assert struct.unpack(">IIQ", f.read(16)) == (0x67446698, 0, 79)
        same(f.read(1024), piece)
        f.write(struct.pack(">IHHQQI", 0x25609513, 0, 2, 0, 0, 0))
        f.flush()
        assert f.read() == b"", "the server closes after DISC"


def disconnects(uri):
    piece = data(MIB, 13)
    h = connect(uri)
    h.pwrite(piece, 0)
    h.shutdown()
    # In flight at the disconnect: answered before the server closes.
    h = connect(uri)
    cookies = {h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(piece)), MIB * i) for i in range(1, 17)}
    h.aio_disconnect()
    while not h.aio_is_closed():
        h.poll(-1)
    assert all(h.aio_command_completed(cookie) for cookie in cookies)
    h = connect(uri)
    for i in range(17):
        same(h.pread(MIB, MIB * i), piece, MIB * i)


def blocks_of_4096(uri):
    h = nbd.NBD()
    h.set_full_info(True)
    h.set_strict_mode(0)
    h.connect_uri(uri)
    assert h.get_block_size(nbd.SIZE_MINIMUM) == 4096
    refused(lambda: h.pread(512, 0), errno.EINVAL)
    refused(lambda: h.pwrite(bytes(4096), 512), errno.EINVAL)
    refused(lambda: h.trim(512, 0), errno.EINVAL)
    piece = data(3 * MIB, 14)
    h.pwrite(piece, 4096)
    same(h.pread(3 * MIB, 4096), piece)


if __name__ == "__main__":
    globals()[sys.argv[1]](sys.argv[2])
    print("ok", sys.argv[1], sys.argv[2])
