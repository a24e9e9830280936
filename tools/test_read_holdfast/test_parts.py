"""Numbers, names, checksums, and the code of the parity, against known values."""

from __future__ import annotations

import re
import struct
import unittest
from pathlib import Path

from read_holdfast.crypto import crc32c, digest
from read_holdfast.errors import Damage
from read_holdfast.parity import Vector, leopard_encode
from read_holdfast.records import RECORD_READERS, BackupHeld, KeysChanged, ServerLocked, ServerOrigin
from read_holdfast.wire import Cursor, backup_name

from .writer import varint


class Parts(unittest.TestCase):
    def test_crc32c(self):
        self.assertEqual(crc32c(b"123456789"), 0xE3069283)

    def test_backup_name(self):
        self.assertEqual(backup_name(bytes(16)), "0" * 26)
        self.assertEqual(backup_name(b"\xff" * 16), "z" * 25 + "w")

    def test_varint(self):
        def parse(data: bytes) -> int:
            cur = Cursor(data, "test", "")
            value = cur.varint()
            cur.end()
            return value

        for value in (0, 1, 127, 128, 300, 2**63, 2**64 - 1):
            self.assertEqual(parse(varint(value)), value)
        for wrong in (b"\x80\x00", b"\x80", b"\xff" * 9 + b"\x02", b"\xff" * 11):
            with self.assertRaises(Damage):
                parse(wrong)

    def test_every_kind_of_record_that_the_text_names_is_read(self):
        text = (Path(__file__).parents[2] / "format-spec/record.md").read_text()
        named = {int(kind) for kind in re.findall(r"^\| (\d+) \| \w+ \|", text, re.M)}
        self.assertEqual(named, set(RECORD_READERS))

    def test_records_that_say_what_is_kept_and_where_it_came_from(self):
        def text(value: str) -> bytes:
            return struct.pack("<I", len(value)) + value.encode()

        one, two, none = b"\1" * 16, b"\2" * 16, b"\0"
        moment = struct.pack("<q", -7)
        for kind, data, wanted in (
            (15, text("rotated"), KeysChanged("rotated")),
            (19, one + b"\1" + text("[]") + text("why"), ServerLocked(one, "[]", "why")),
            (19, one + none + text(""), ServerLocked(one, None, "")),
            (20, one + b"\1" + text("why"), BackupHeld(one, True, "why")),
            (20, one + b"\0" + text(""), BackupHeld(one, False, "")),
            (21, one + none + text("shop") + none * 3, ServerOrigin(one, None, "shop", None, None, None)),
            (
                21,
                one + b"\1" + two + text("shop") + b"\1" + two + b"\1" + moment + b"\1" + moment,
                ServerOrigin(one, two, "shop", two, -7, -7),
            ),
        ):
            cur = Cursor(data, "test", "")
            self.assertEqual(RECORD_READERS[kind](cur), wanted)
            cur.end()
        with self.assertRaises(Damage):
            RECORD_READERS[20](Cursor(one + b"\2" + text(""), "test", ""))

    def test_leopard_is_that_of_the_crate(self):
        """BLAKE3 of the parity shards that reed-solomon-simd 3.1.0 computed of `numbers`."""
        for (data, parity, size), wanted in LEOPARD_VECTORS.items():
            shards = (Vector.of_shard(self.numbers(i, size)) for i in range(data))
            found = b"".join(v.shard() for v in leopard_encode(shards, parity, size // 2))
            self.assertEqual(digest(found).hex()[:16], wanted, (data, parity))

    @staticmethod
    def numbers(index: int, size: int) -> bytes:
        mask = (1 << 64) - 1
        state = (7 + index * 0x9E3779B97F4A7C15) & mask | 1
        out = bytearray()
        for _ in range(size):
            state ^= state << 13 & mask
            state ^= state >> 7
            state ^= state << 17 & mask
            out.append(state >> 24 & 255)
        return bytes(out)


LEOPARD_VECTORS = {
    (2, 2, 128): "b3d4f6895f0bdaf7",
    (3, 2, 64): "c63af80f5a1bb1dd",
    (5, 2, 192): "f9f2bfa768bb336f",
    (41, 2, 64): "9fe9f34f0ccb4f90",
    (81, 3, 64): "c08b6c307d7400e3",
    (121, 4, 64): "2c07b0ab1bd25c46",
    (1000, 25, 64): "00c5df35ef7cf2ac",
    (1024, 26, 64): "c628b1262bf4c6bb",
}


if __name__ == "__main__":
    unittest.main()
