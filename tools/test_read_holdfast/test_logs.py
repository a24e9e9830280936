"""Log segments in every state that a crash leaves them in, and the files that come out of them."""

from __future__ import annotations

import unittest

from read_holdfast.errors import Damage
from read_holdfast.limits import VERSION
from read_holdfast.segments import parse_frame_header
from read_holdfast.wire import le

from .test_backups import Written
from .workplace import Result
from .writer import SERVER, SOURCE, Frame, blob, edited, log_writer, position, varint


class Logs(Written):
    A, B, C = b"a" * 16, b"b" * 16, b"c" * 16

    def put(self, segment: bytes, data: bytes, suffix: str = "") -> None:
        self.repo.put(f"logs/{segment.hex()}{suffix}", data)

    def cat(self, file: str = "b.1", *more: str) -> Result:
        return self.read("log", "db", "--cat", file, *more)

    def test_torn_tail_and_the_next_segment(self):
        first = log_writer(self.A, 0, b"b.1", 4, [b"x" * 100, b"y" * 50])
        self.put(self.A, first.unsealed() + b"HFfr torn")
        self.put(self.B, log_writer(self.B, 1, b"b.1", 124, [b"z" * 60]).unsealed())
        told = self.cat()
        self.assertEqual((told.status, told.out), (0, b"\xfebin" + b"x" * 100 + b"y" * 20 + b"z" * 60))
        self.assertEqual(self.read("check").status, 0)

    def test_detached_footer(self):
        first = log_writer(self.A, 0, b"b.1", 4, [b"x" * 100, b"y" * 50])
        self.put(self.A, first.unsealed() + b"torn tail")
        self.put(self.A, first.foot(), ".foot")
        self.repo.log_sealed(self.A, 0, b"b.1", 4, 154)
        self.assertEqual(self.read("check").status, 0, self.read("check").err)
        self.assertEqual(self.cat().out, b"\xfebin" + b"x" * 100 + b"y" * 50)
        broken = bytearray(first.unsealed())
        broken[-3] ^= 1
        self.put(self.A, bytes(broken))
        self.assertEqual(self.read("check").status, 21)
        self.assertEqual((self.cat().status, self.cat().out), (21, b""))
        foot = bytearray(first.foot())
        foot[20] ^= 1
        self.put(self.A, first.unsealed())
        self.put(self.A, bytes(foot), ".foot")
        self.assertEqual(self.read("check").status, 21)

    def test_trailer_without_record(self):
        writer = log_writer(self.A, 0, b"b.1", 4, [b"x" * 100, b"y" * 50])
        whole = writer.sealed()
        self.put(self.A, whole)
        self.assertEqual(self.cat().out, b"\xfebin" + b"x" * 100 + b"y" * 50)
        self.put(self.A, edited(whole, writer.frames_end - 60, bytes(60)))  # the last frame never reached the disk
        self.assertEqual((self.cat().status, self.cat().out), (0, b"\xfebin" + b"x" * 100))
        self.repo.log_sealed(self.A, 0, b"b.1", 4, 154)
        self.assertEqual((self.cat().status, self.cat().out), (21, b""))

    def test_gap_in_the_middle_is_damage(self):
        self.put(self.A, log_writer(self.A, 0, b"b.1", 4, [b"x" * 100]).unsealed())
        self.put(self.B, log_writer(self.B, 1, b"b.1", 200, [b"z" * 60]).unsealed())
        self.assertEqual((self.cat().status, self.read("check").status), (21, 21))
        gap = SERVER + SOURCE + le(0, 4) + position(b"b.1", 104) + blob(b"purged") + le(1, 8)
        self.repo.record(8, gap)
        self.assertEqual((self.cat().status, self.read("check").status), (20, 0))

    def test_a_flip_before_a_whole_frame_is_damage_and_an_unwritten_sector_is_none(self):
        writer = log_writer(self.A, 0, b"b.1", 4, [b"x" * 2000, b"y" * 50])
        whole = writer.unsealed()
        at = whole.index(b"HFfr", 4100)
        self.put(self.A, edited(whole, at + 700, bytes((whole[at + 700] ^ 1,))))
        self.assertEqual(self.read("check").status, 21)
        self.put(self.A, edited(whole, 4608, bytes(512)))
        told = self.read("check")
        self.assertEqual(told.status, 0, told.err)
        self.assertEqual(self.cat().out, b"\xfebin")

    def test_what_a_later_frame_says_was_synced_is_damage_and_no_torn_end(self):
        writer = log_writer(self.A, 0, b"b.1", 4, [b"x" * 2000])
        writer.add(Frame(6, b"y" * 50, durable_end=writer.frames_end))
        whole = writer.unsealed()
        unwritten = edited(whole, 4608, bytes(512))
        self.put(self.A, unwritten)
        self.assertEqual(self.read("check").status, 21)
        self.put(self.A, unwritten[:-5])  # the header says it, though its frame was never written whole
        self.assertEqual(self.read("check").status, 21)
        self.put(self.A, whole[:-5])
        self.assertEqual(self.read("check").status, 0)
        self.put(self.A, log_writer(self.A, 0, b"b.1", 4, []).unsealed())
        self.assertEqual(self.read("check").status, 0)

    def test_a_durable_end_of_a_block_is_refused(self):
        writer = log_writer(self.A, 0, b"b.1", 4, [b"x" * 100])
        writer.add(Frame(1, b"a block", durable_end=4096))
        with self.assertRaises(Damage):
            parse_frame_header(bytes(writer.unsealed()[-55:][:32]), "logs/a", "its last frame")

    def test_a_record_of_a_log_without_an_end_is_damage(self):
        self.put(self.A, log_writer(self.A, 0, b"b.1", 4, [b"x" * 100]).unsealed())
        self.assertEqual(self.read("check").status, 0)
        self.repo.log_sealed(self.A, 0, b"b.1", 4, 104)
        self.assertEqual(self.read("check").status, 21)

    def test_an_authentic_frame_that_cannot_be_there_is_damage(self):
        writer = log_writer(self.A, 0, b"b.1", 4, [b"x" * 100])
        writer.add(Frame(4, b"a leaf"))
        self.put(self.A, writer.unsealed())
        self.assertEqual(self.read("check").status, 21)

    def test_several_files_and_streams(self):
        self.put(self.A, log_writer(self.A, 0, b"b.1", 4, [b"x" * 100]).sealed())
        self.repo.log_sealed(self.A, 0, b"b.1", 4, 100)
        self.put(self.B, log_writer(self.B, 1, b"b.2", 4, [b"z" * 60]).unsealed())
        self.put(self.C, log_writer(self.C, 0, b"b.2", 4, [b"w" * 9], incarnation=1).unsealed())
        self.assertEqual(self.cat("b.1").out, b"\xfebin" + b"x" * 96)
        self.assertEqual(self.cat("b.2").status, 2)
        stream = (SERVER + SOURCE + le(1, 4)).hex()
        self.assertEqual(self.cat("b.2", "--stream", stream).out, b"\xfebin" + b"w" * 9)
        listed = self.read("log", "db", "--list")
        self.assertEqual((listed.status, listed.out.count(b"file ")), (0, 3))

    def test_beginning_that_is_not_archived(self):
        self.put(self.A, log_writer(self.A, 0, b"b.1", 500, [b"x" * 100]).unsealed())
        self.assertEqual(self.cat().status, 20)

    def test_nothing_whole(self):
        self.put(self.A, b"")
        self.put(self.B, log_writer(self.B, 1, b"b.1", 4, []).unsealed()[:-5])
        self.assertEqual(self.read("check").status, 0)
        self.assertEqual(self.read("log", "db", "--list").status, 20)

    def test_notes_and_index(self):
        writer = log_writer(self.A, 0, b"b.1", 4, [])
        writer.add(Frame(8, le(VERSION, 4) + b"\x01" + blob(b"fde")))
        writer.add(Frame(8, le(VERSION, 4) + b"\x02" + le(99, 8)))
        writer.add(Frame(6, b"x" * 20))
        gtid = b"\0" + SOURCE + b"\0" + varint(1)
        index = le(VERSION, 4) + le(0, 8) + le(1, 4) + blob(b"b.1") + le(1, 4) + gtid + le(1, 4) + blob(b"d") + blob(b"t")
        entry = varint(1 | 8 | 16) + varint(8) + varint(20) + varint(2) + varint(0) + varint(2)
        entry += varint(1) + varint(0) + varint(3) + varint(0) + varint(0) + varint(1) + b"d" + varint(3) + b"sql"
        writer.add(Frame(7, index + le(1, 4) + entry))
        self.put(self.A, writer.unsealed())
        told = self.read("check")
        self.assertEqual((told.status, told.err), (0, ""))
        self.assertEqual(self.cat().out, b"\xfebin" + b"x" * 20)


if __name__ == "__main__":
    unittest.main()
