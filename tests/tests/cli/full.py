"""Fills a volume that is larger than its disk. Usage: full.py fill|after URI"""

import errno
import random
import sys
import time

import nbd

MIB = 1 << 20
# Freed space comes back with a checkpoint, soon but not at once.
FREED_WITHIN_S = 20


def piece(index, version):
    return random.Random(index * 1000 + version).randbytes(MIB)


def fill(h):
    size = h.get_size()
    written = 0
    while True:
        assert (written + 1) * MIB <= size, "a disk of 128 MiB took a volume of 512 MiB"
        try:
            h.pwrite(piece(written, 0), written * MIB)
        except nbd.Error as error:
            assert error.errnum == errno.ENOSPC, error
            break
        written += 1
    print("ENOSPC after %d MiB" % written)
    assert written >= 32, "the disk took less than a quarter of its capacity"

    # The piece that was refused is old, new or a mixture by records: not read here.
    for index in range(written):
        assert h.pread(MIB, index * MIB) == piece(index, 0), index
    # What has its place can be written again, as often as one likes.
    for version in range(1, 4):
        for index in range(0, 16):
            h.pwrite(piece(index, version), index * MIB)
    for index in range(0, 16):
        assert h.pread(MIB, index * MIB) == piece(index, 3), index
    # Still full.
    try:
        for index in range(written + 1, written + 65):
            h.pwrite(piece(index, 0), index * MIB)
        raise AssertionError("64 MiB more were taken")
    except nbd.Error as error:
        assert error.errnum == errno.ENOSPC, error
    # Room again.
    h.trim(32 * MIB, 0)
    deadline = time.monotonic() + FREED_WITHIN_S
    done = 0
    while done < 16:
        try:
            h.pwrite(piece(done, 9), (400 + done) * MIB)
            done += 1
        except nbd.Error as error:
            assert error.errnum == errno.ENOSPC, error
            assert time.monotonic() < deadline, "no room %d s after the discard" % FREED_WITHIN_S
            time.sleep(0.05)
    check(h)


def check(h):
    assert h.pread(32 * MIB, 0) == bytes(32 * MIB)
    for index in range(16):
        assert h.pread(MIB, (400 + index) * MIB) == piece(index, 9), index


def after(h):
    """After a restart."""
    check(h)
    h.pwrite(piece(0, 10), 0)
    assert h.pread(MIB, 0) == piece(0, 10)
    h.trim(h.get_size(), 0)
    h.flush()


if __name__ == "__main__":
    handle = nbd.NBD()
    handle.connect_uri(sys.argv[2])
    globals()[sys.argv[1]](handle)
