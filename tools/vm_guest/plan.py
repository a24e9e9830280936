"""From the log of dm-log-writes to a plan that a shell can carry out: which sectors of the log go where, and where the
disk is looked at. The log's format is that of the kernel's documentation (admin-guide/device-mapper/log-writes) and of
drivers/md/dm-log-writes.c.

    python3 plan.py LOG PLAN CUTS

CUTS: how many places to look at, spread evenly; 0 for all.
"""

import struct
import sys

MAGIC = 0x6A736677736872
FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8
SECTOR = 512


def main(log_path, plan_path, wanted):
    lines, writes = [], 0
    with open(log_path, "rb") as log:
        magic, version, entries, sector_bytes = struct.unpack("<QQQI", log.read(28))
        if magic != MAGIC or version != 1:
            raise SystemExit(f"{log_path} is no log of dm-log-writes")
        unit = sector_bytes // SECTOR
        at = sector_bytes  # bytes; one block for the superblock
        for number in range(entries):
            log.seek(at)
            sector, count, flags, data_len = struct.unpack("<QQQQ", log.read(32))
            at += sector_bytes
            if flags & MARK:
                log.seek(at - sector_bytes + 32)
                name = log.read(data_len).rstrip(b"\0").decode()
                # The kernel adds a mark of its own at the end.
                if name.startswith("ack-"):
                    lines.append(f"A {name.removeprefix('ack-')}")
                continue
            # Before the writes of a flush reach the disk, everything that came before it is there.
            if flags & FLUSH:
                lines.append(f"C {number}")
            if count and flags & DISCARD:
                lines.append(f"Z 0 {sector * unit} {count * unit}")
            elif count:
                lines.append(f"W {at // SECTOR} {sector * unit} {count * unit}")
                at += count * sector_bytes
                writes += 1
            if flags & FUA:
                lines.append(f"C {number}")
    lines.append(f"C {entries}")
    places = [at for at, line in enumerate(lines) if line.startswith("C ")]
    wanted = int(wanted) or len(places)
    if wanted < len(places):
        kept = {places[round(n * (len(places) - 1) / max(wanted - 1, 1))] for n in range(wanted)}
        lines = [line for at, line in enumerate(lines) if at in kept or not line.startswith("C ")]
    text = ("\n".join(lines) + "\n").encode()
    with open(plan_path, "wb") as plan:
        plan.write(text.ljust(-(-len(text) // 4096) * 4096, b"\0"))
    print(f"plan: {entries} entries, {writes} writes, {len(places)} flushes, {min(wanted, len(places))} looked at")


if __name__ == "__main__":
    main(*sys.argv[1:])
