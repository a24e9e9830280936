"""Deltas, carriers, parity, ways in: what the text describes, written by `writer.py`."""

from __future__ import annotations

import random
import shutil
import unittest

from read_holdfast.limits import BLOCK, PAGE, VERSION
from read_holdfast.wire import Address, backup_name, le

from .workplace import Result, Workplace, run
from .writer import (
    REPOSITORY, Frame, RepositoryWriter, SegmentWriter, blob, content, edited, hashed, make_keyring, make_recovery_kit,
)


class Written(Workplace):
    def setUp(self) -> None:
        super().setUp()
        self.repo = RepositoryWriter(self.tmp / "repo")

    def read(self, *args: str, secret=None) -> Result:
        return run(self.repo.root, *args, secret=secret or self.repo.secret)

    def restored(self, name: str = "") -> bytes:
        target = self.fresh()
        told = self.read("restore", name or backup_name(b"B" * 16), str(target))
        self.assertEqual(told.status, 0, told.err)
        return (target / "dir" / "f").read_bytes()


class Backups(Written):
    """Deltas, carriers, parity, ways in: what the text describes and no golden repository has."""

    D1, D2, CARRIER, META = b"1" * 16, b"2" * 16, b"C" * 16, b"M" * 16

    def setUp(self) -> None:
        super().setUp()
        self.blocks = [content("block 0")]
        for depth in range(1, 5):
            self.blocks.append(edited(self.blocks[-1], 1000 * depth, b"changed %d" % depth))
        self.filler = [content(f"filler {i}") for i in range(3)]
        self.first, self.second = self.frames()
        self.size = 8 * BLOCK - 100
        self.expected = b"".join(self.blocks[:5]) + bytes(BLOCK) + bytes(BLOCK) + self.filler[0][: BLOCK - 100]
        # segment places: 0 = D1, 1 = D2
        self.runs = [(2, 1, 0, 0), (6, 1, 1, 0, 0, 0), (10, 1, 1, 1, 1, 0), (14, 1, 1, 2, 1, 1), (18, 1, 1, 3, 1, 2)]
        self.runs += [(1, 1), (0, 1), (2, 1, 0, 1)]

    def frames(self) -> tuple[list[Frame], list[Frame]]:
        first = [Frame(1, self.blocks[0])] + [Frame(1, plain, codec=0) for plain in self.filler]
        second = []
        bases = [Address(self.D1, 0)] + [Address(self.D2, slot) for slot in range(3)]
        for depth in range(1, 5):
            base_plain = self.blocks[depth - 1]
            second.append(Frame(1, self.blocks[depth], bases[depth - 1], base_plain, depth))
        return first, second

    def write(self, with_parity: bool = True) -> None:
        for ident, frames in ((self.D1, self.first), (self.D2, self.second)):
            writer = SegmentWriter(ident, 1, generation=1)
            for frame in frames:
                writer.add(frame)
            self.repo.put(f"segments/{ident.hex()}", writer.sealed(with_parity))
        self.repo.backup(b"B" * 16, self.runs, self.size, [self.D1, self.D2], self.META)

    def write_carried(self) -> None:
        """Both data segments compacted into one carrier, in another order."""
        self.write()
        writer = SegmentWriter(self.CARRIER, 1)
        wanted = [(self.D2, slot, frame) for slot, frame in enumerate(self.second)]
        wanted += [(self.D1, slot, self.first[slot]) for slot in (1, 0)]
        for segment, slot, frame in wanted:
            writer.add(Frame(**{**frame.__dict__, "born": Address(segment, slot)}))
        self.repo.put(f"segments/{self.CARRIER.hex()}", writer.sealed(True))
        self.repo.record(13, b"X" * 16 + le(2, 4) + self.D1 + self.D2)
        self.repo.record(13, self.CARRIER + le(2, 4) + self.D1 + self.D2)
        self.repo.record(10, le(2, 4) + self.D1 + self.D2)
        self.repo.record(12, le(2, 4) + self.D1 + self.D2)
        for segment in (self.D1, self.D2):
            (self.repo.root / "segments" / segment.hex()).unlink()

    def test_deltas_of_every_depth(self):
        self.write()
        self.assertEqual(self.read("check").status, 0, self.read("check").err)
        self.assertEqual(self.restored(), self.expected)
        self.assertEqual(self.restored(backup_name(b"B" * 16)[:5]), self.expected)

    def test_carried_segments(self):
        self.write_carried()
        told = self.read("check")
        self.assertEqual(told.status, 0, told.err)
        self.assertEqual(self.restored(), self.expected)

    def test_every_way_in(self):
        self.write()
        first, key_file, kit = self.fresh(), self.fresh(), self.fresh()
        first.write_bytes(b"other")
        key_file.write_bytes(b"key file\n")
        kit.write_text(make_recovery_kit())
        ways = [("--passphrase-file", first), ("--key-file", key_file), ("--recovery-kit", kit)]
        for way in ways:
            self.assertEqual(self.read("check", secret=way).status, 0, way)
        shutil.rmtree(self.repo.root / "keyring")
        self.assertEqual(self.read("list", secret=ways[0]).status, 21)
        target = self.fresh()
        self.assertEqual(self.read("restore", backup_name(b"B" * 16), str(target), secret=ways[2]).status, 0)
        self.assertEqual((target / "dir" / "f").read_bytes(), self.expected)

    def test_keyring_copies(self):
        self.repo.put("keyring/2", make_keyring([b"old"], [], generation=6))
        self.assertEqual(self.read("check").status, 0)
        (self.repo.root / "keyring" / "0").unlink()
        self.assertEqual(self.read("check").status, 21)

    def test_parity_gives_damage_back(self):
        self.write()
        name = f"segments/{self.D1.hex()}"
        whole = (self.repo.root / name).read_bytes()
        seeded = random.Random(11)
        for _ in range(12):
            broken = bytearray(whole)
            for at in (seeded.randrange(len(whole)), seeded.randrange(len(whole))):
                broken[at] ^= 0x40
            self.repo.put(name, bytes(broken))
            self.assertEqual(self.read("check").status, 21)
            self.assertEqual(self.restored(), self.expected)

    def test_parity_gives_a_lost_end_back(self):
        self.write()
        for segment in (self.D2, self.META):
            name = f"segments/{segment.hex()}"
            whole = (self.repo.root / name).read_bytes()
            self.repo.put(name, whole[:-PAGE])  # trailer gone
            told = self.read("check")
            self.assertEqual(told.status, 21)
            self.assertIn("trailer", told.err)
            self.assertEqual(self.restored(), self.expected)
            self.repo.put(name, bytes(2 * PAGE) + whole[2 * PAGE :])  # header and first frames gone
            self.assertEqual(self.read("check").status, 21)
            self.assertEqual(self.restored(), self.expected)
            self.repo.put(name, whole)

    def test_more_damage_than_parity(self):
        self.write()
        name = f"segments/{self.D1.hex()}"
        whole = bytearray((self.repo.root / name).read_bytes())
        for at in range(PAGE + 100, 20 * PAGE, PAGE):
            whole[at] ^= 1
        self.repo.put(name, bytes(whole))
        self.assertEqual(self.read("check").status, 21)
        target = self.fresh()
        self.assertEqual(self.read("restore", backup_name(b"B" * 16), str(target)).status, 21)
        self.assertFalse((target / "dir" / "f").exists())

    def test_flips_in_a_carrier(self):
        self.write_carried()
        name = f"segments/{self.CARRIER.hex()}"
        whole = (self.repo.root / name).read_bytes()
        seeded = random.Random(3)
        for _ in range(12):
            broken = bytearray(whole)
            broken[seeded.randrange(len(whole))] ^= 1
            self.repo.put(name, bytes(broken))
            self.assertEqual(self.read("check").status, 21)
            self.assertEqual(self.restored(), self.expected)

    def test_never_sealed_segment_is_no_damage(self):
        self.write()
        writer = SegmentWriter(b"N" * 16, 1)
        writer.add(Frame(1, b"abc"))
        self.repo.put(f"segments/{(b'N' * 16).hex()}", writer.unsealed())
        self.assertEqual(self.read("check").status, 0)

    def test_forgotten_and_unknown_records(self):
        self.write()
        self.repo.record(900, b"whatever")
        self.repo.record(2, b"other", kind_version=3)
        self.assertEqual(self.read("check").status, 0)
        self.repo.record(5, b"B" * 16 + blob(b"old"), generation=1)
        self.assertEqual(self.read("list", "--json").json["backups"], [])
        self.assertEqual(self.read("restore", backup_name(b"B" * 16), str(self.fresh())).status, 20)

    def test_torn_last_record(self):
        self.write()
        last = self.repo.number
        for folder in ("manifest", "manifest2"):
            self.repo.put(f"{folder}/{last:016x}", b"torn")
        self.assertEqual(self.read("check").status, 0)
        self.assertEqual(self.restored(), self.expected)
        for folder in ("manifest", "manifest2"):
            self.repo.put(f"{folder}/{last - 1:016x}", b"torn")
        self.assertEqual(self.read("check").status, 21)

    def test_sessions(self):
        body = b"HFSESS\0\0" + le(VERSION, 4) + le(3, 4) + REPOSITORY + b"q" * 16 + le(2, 8) + le(1, 4) + bytes(20)
        self.repo.put(f"sessions/{(b'q' * 16).hex()}", hashed(body))
        self.assertEqual(self.read("check").status, 0)
        self.repo.put(f"sessions/{(b'q' * 16).hex()}", hashed(body)[:-1])
        self.assertEqual(self.read("check").status, 21)


if __name__ == "__main__":
    unittest.main()
