#!/usr/bin/env python3
"""Reads a Holdfast repository (format version 0) without any of Holdfast's code.

    read_holdfast.py REPO --passphrase-file F list [--json]
    read_holdfast.py REPO --passphrase-file F restore BACKUP DIR

Written from the text in format-spec/ alone, to prove that the text is enough. Whatever is
read is verified: hashes of records and their chain, tags of everything sealed, commitments
of keys, ids of blocks. It trusts nothing and repairs nothing; the first flaw ends it with
exit status 21. Exit status 10: no repository, 12: wrong passphrase, 2: wrong usage.

Needs Python 3.11 and the packages of read_holdfast.requirements.txt.
"""

import argparse
import json
import os
import re
import struct
import sys
from dataclasses import dataclass, field
from pathlib import Path

import blake3 as blake3_module
import zstandard
from argon2.low_level import Type, hash_secret_raw
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

PAGE = 4096
BLOCK = 64 * 1024
FRAME_HEADER = 32
FRAME_PLAIN_MAX = 4 * 1024 * 1024
SEGMENT_MAX = 256 * 1024 * 1024

CONTEXT = "holdfast format 0: "
FRAME_KINDS = {1: "block", 2: "map root", 3: "map segments", 4: "map leaf",
               5: "log opening", 6: "log events", 7: "log index", 8: "log meta"}
BASE32 = "0123456789abcdefghjkmnpqrstvwxyz"


class Flaw(Exception):
    """Something in the repository is not what the format says."""


class NoRepository(Exception):
    """There is nothing to read."""


class WrongKey(Exception):
    """The passphrase or key file opens no slot."""


def blake3(data, **how):
    return blake3_module.blake3(data, **how).digest()


def derive(context, material):
    return blake3(material, derive_key_context=CONTEXT + context)


def check(condition, what):
    if not condition:
        raise Flaw(what)


def unseal(key, nonce, aad, sealed, what):
    """AES-256-GCM: ciphertext, then a tag of 16 bytes."""
    try:
        return AESGCM(key).decrypt(nonce, bytes(sealed), aad)
    except InvalidTag:
        raise Flaw(f"{what} does not open: its bytes are not what was sealed") from None


def crc32c_table():
    table = []
    for n in range(256):
        for _ in range(8):
            n = (n >> 1) ^ (0x82F63B78 if n & 1 else 0)
        table.append(n)
    return table


CRC_TABLE = crc32c_table()


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


class Reader:
    """Takes little-endian fields from the front of some bytes."""

    def __init__(self, what, data, at=0):
        self.what, self.data, self.at = what, data, at

    def raw(self, n):
        check(n <= len(self.data) - self.at, f"{self.what} is cut short at byte {self.at}")
        self.at += n
        return self.data[self.at - n:self.at]

    def number(self, code):
        return struct.unpack("<" + code, self.raw(struct.calcsize("<" + code)))[0]

    def u8(self):
        return self.number("B")

    def u16(self):
        return self.number("H")

    def u32(self):
        return self.number("I")

    def u64(self):
        return self.number("Q")

    def i64(self):
        return self.number("q")

    def count(self, item_bytes):
        n = self.u32()
        check(n * item_bytes <= len(self.data) - self.at, f"{self.what} counts more than it can hold")
        return n

    def blob(self):
        return self.raw(self.count(1))

    def text(self):
        try:
            return self.blob().decode()
        except UnicodeDecodeError:
            raise Flaw(f"{self.what} holds text that is not UTF-8") from None

    def varint(self):
        value = 0
        for shift in range(0, 70, 7):
            byte = self.u8()
            check(not (byte == 0 and shift > 0), f"{self.what} holds a number that is not in its shortest form")
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                check(value < 1 << 64, f"{self.what} holds a number of more than 64 bits")
                return value
        raise Flaw(f"{self.what} holds a number of more than ten bytes")

    def option(self, take):
        flag = self.u8()
        check(flag in (0, 1), f"{self.what} has an option that is neither 0 nor 1")
        return take() if flag else None

    def zeros(self, n):
        check(not any(self.raw(n)), f"{self.what} has bytes that should be zero")

    def expect(self, magic, version):
        check(self.raw(len(magic)) == magic, f"{self.what} does not begin with its magic")
        got = self.u32()
        check(got == version, f"{self.what} has version {got}, this reader knows {version}")

    def end(self):
        check(self.at == len(self.data), f"{self.what} is longer than it should be")


def hashed(what, data):
    """Checks the BLAKE3 that closes a structure; gives what comes before it."""
    check(len(data) >= 32, f"{what} is cut short")
    check(blake3(data[:-32]) == data[-32:], f"{what} is damaged: its checksum does not match its bytes")
    return data[:-32]


def address(r):
    return r.raw(16), r.u32()


def show_address(at):
    return f"{at[0].hex()}:{at[1]}"


def backup_name(raw):
    """26 letters of five bits: the 128 bits, highest first, then two zero bits."""
    value = int.from_bytes(raw, "big") << 2
    return "".join(BASE32[(value >> shift) & 31] for shift in range(125, -1, -5))


@dataclass
class Segment:
    name: str
    kind: int = 0
    births: list = field(default_factory=list)
    frames: list = field(default_factory=list)
    sealed: bool = False
    session: bytes = b""


@dataclass
class Frame:
    offset: int
    slot: int
    kind: int
    codec: int
    depth: int
    birth: int
    plain_len: int
    stored_len: int
    id: bytes | None = None


class Repository:
    def __init__(self, root, secret):
        self.root = Path(root)
        self.warnings = []
        self.segments = {}
        self.open_files = {}
        self.unlock(secret)
        self.read_manifest()

    def path(self, name):
        return self.root / name

    def load(self, name, limit):
        path = self.path(name)
        check(path.stat().st_size <= limit, f"{name} is longer than {limit} bytes")
        return path.read_bytes()

    # The keyring

    def unlock(self, secret):
        copies, flaws = [], []
        for n in range(3):
            name = f"keyring/{n}"
            try:
                copies.append(self.keyring(name, self.load(name, 1024 * 1024)))
            except FileNotFoundError:
                flaws.append(f"{name} is missing")
            except Flaw as flaw:
                flaws.append(f"{name}: {flaw}")
        if not copies:
            if not self.path("manifest").is_dir():
                raise NoRepository(f"{self.root} holds no Holdfast repository")
            raise Flaw("no copy of the keyring can be read: " + "; ".join(flaws))
        self.warnings += flaws
        ring = max(copies, key=lambda ring: ring["generation"])
        self.repo = ring["repo"]
        unlock_key = self.open_slot(ring, secret)
        plain = unseal(unlock_key, ring["nonce"], ring["aad"], ring["sealed"], "the keyring's secrets")
        r = Reader("the keyring's secrets", plain)
        check(r.u32() == 0, "the keyring's secrets have another version")
        root = r.raw(32)
        self.keks = {}
        for _ in range(r.count(36)):
            generation = r.u32()
            self.keks[generation] = r.raw(32)
        r.end()
        check(self.keks, "the keyring holds no key")
        self.block_id_key = derive("block ids", root)
        self.head_key = derive("heads", root)

    @staticmethod
    def keyring(name, data):
        body = hashed(name, data)
        r = Reader(name, body)
        r.expect(b"HFKEYS\0\0", 0)
        repo, generation = r.raw(16), r.u64()
        aad = body[:r.at]
        slots = []
        for _ in range(r.count(81)):
            start = r.at
            r.raw(8)
            kind = r.u8()
            check(kind in (1, 2), f"{name} has a key slot of unknown kind {kind}")
            cost = (r.raw(32), r.u32(), r.u32(), r.u32()) if kind == 1 else None
            r.text()
            r.i64()
            slot_aad = repo + body[start:r.at]
            slots.append((kind, cost, slot_aad, r.raw(12), r.raw(48)))
        nonce = r.raw(12)
        sealed = r.blob()
        r.end()
        return {"repo": repo, "generation": generation, "aad": aad, "slots": slots, "nonce": nonce, "sealed": sealed}

    @staticmethod
    def open_slot(ring, secret):
        how, content = secret
        for kind, cost, aad, nonce, wrapped in ring["slots"]:
            if kind == 1 and how == "passphrase":
                salt, memory_kib, passes, lanes = cost
                check(0 < memory_kib <= 4 << 20 and 0 < passes <= 64 and 0 < lanes <= 64, "a key slot asks too much")
                key = hash_secret_raw(content, salt, passes, memory_kib, lanes, 32, Type.ID, 0x13)
            elif kind == 2 and how == "key file":
                key = derive("key file", content)
            else:
                continue
            try:
                return AESGCM(key).decrypt(nonce, wrapped, aad)
            except InvalidTag:
                continue
        raise WrongKey(f"the {how} opens none of the {len(ring['slots'])} key slots")

    def kek(self, generation, what):
        check(generation in self.keks, f"the keyring has no key of generation {generation}, which {what} needs")
        return self.keks[generation]

    # The manifest

    def read_manifest(self):
        heads = []
        for n in range(2):
            name = f"head/{n}"
            try:
                heads.append(self.head(name, n, self.load(name, PAGE)))
            except FileNotFoundError:
                pass
        numbers = set()
        for folder in ("manifest", "manifest2"):
            if self.path(folder).is_dir():
                numbers |= {int(p.name, 16) for p in self.path(folder).iterdir()
                            if re.fullmatch("[0-9a-f]{16}", p.name)}
        newest_named = max((number for number, _ in heads), default=-1)
        last = max(numbers | {newest_named})
        previous, hashes, self.records = bytes(32), {}, []
        for number in range(last + 1):
            record, flaws = None, []
            for folder in ("manifest", "manifest2"):
                name = f"{folder}/{number:016x}"
                try:
                    copy = self.record(name, number, previous, self.load(name, 4 * 1024 * 1024 + 144))
                except FileNotFoundError:
                    flaws.append(f"{name} is missing")
                except Flaw as flaw:
                    flaws.append(f"{name}: {flaw}")
                else:
                    check(record is None or record[0] == copy[0], f"record {number} has two different copies")
                    record = copy
            if record is None:
                # A writer that died before any head named its record acknowledged nothing.
                check(number == last and newest_named < number, "; ".join(flaws))
                break
            self.warnings += flaws
            previous = hashes[number] = record[0]
            self.records.append(record[1:])
        for number, named in heads:
            check(hashes.get(number) == named, f"a head names another record {number} than the manifest has")

    def head(self, name, n, data):
        check(len(data) >= 32 and blake3(data[:-32], key=self.head_key) == data[-32:],
              f"{name} is damaged: its checksum does not match its bytes")
        r = Reader(name, data[:-32])
        r.expect(b"HFHEAD\0\0", 0)
        r.zeros(4)
        check(r.raw(16) == self.repo, f"{name} belongs to another repository")
        number, named = r.u64(), r.raw(32)
        r.end()
        check(number % 2 == n, f"{name} names record {number}, which the other head should")
        return number, named

    def record(self, name, number, previous, data):
        body = hashed(name, data)
        r = Reader(name, body)
        r.expect(b"HFMANIF\0", 0)
        r.zeros(4)
        check(r.raw(16) == self.repo, f"{name} belongs to another repository")
        check(r.u64() == number, f"{name} holds another record")
        check(r.raw(32) == previous, f"{name} does not name the record before it")
        generation, nonce, sealed_len = r.u32(), r.raw(12), r.u32()
        r.zeros(4)
        sealed = r.raw(sealed_len)
        r.end()
        key = derive("manifest records", self.kek(generation, name) + self.repo)
        plain = Reader(name, unseal(key, nonce, body[:96], sealed, name))
        return data[-32:], *self.record_body(plain)

    def record_body(self, r):
        kind, version, at_us = r.u16(), r.u16(), r.i64()
        if version != 0 or kind not in self.RECORDS:
            return kind, at_us, None
        value = self.RECORDS[kind](self, r)
        if value is not None:
            r.end()
        return kind, at_us, value

    def server_record(self, r):
        server = {"id": r.raw(16), "name": r.text(), "flavor": r.u8()}
        if r.u8() == 1:
            server |= {"host": r.text(), "port": r.u16(), "socket": r.option(r.text)}
        else:
            server |= {"folder": r.text()}
        server["uuid"] = r.option(lambda: r.raw(16))
        server["version"], server["added_us"] = r.text(), r.i64()
        return server

    def backup_record(self, r):
        backup = {"id": r.raw(16), "server": r.raw(16), "source": r.u8(), "started_us": r.i64(), "finished_us": r.i64()}
        backup["parent"] = r.option(lambda: r.raw(16))
        backup["map"] = address(r)
        coordinates = r.u8()
        check(coordinates <= 2, "a backup has coordinates of an unknown kind")
        backup["coordinates"] = [self.position(r) for _ in range(coordinates)]
        backup["facts"] = dict((r.text(), r.text()) for _ in range(r.count(8)))
        backup["note"] = r.text()
        backup["stats"] = [r.u64() for _ in range(12)]
        backup["warnings"] = [r.text() for _ in range(r.count(4))]
        return backup

    @staticmethod
    def position(r):
        return {"file": r.text(), "offset": r.u64(), "gtid": r.blob()}

    def log_record(self, r):
        log = {"stream": r.raw(36), "number": r.u64(), "segment": r.raw(16)}
        log["first"], log["last"] = self.position(r), self.position(r)
        log["gtid_before"], log["gtid_after"] = r.blob(), r.blob()
        log["first_us"], log["last_us"] = r.i64(), r.i64()
        log["transactions"], log["events"], log["bytes"] = r.u64(), r.u64(), r.u64()
        return log

    RECORDS = {
        1: lambda self, r: {"repo": r.raw(16), "program": r.text()},
        2: server_record,
        3: lambda self, r: r.raw(16),
        4: backup_record,
        5: lambda self, r: {"id": r.raw(16), "reason": r.text()},
        7: log_record,
        13: lambda self, r: {"carrier": r.raw(16), "births": [r.raw(16) for _ in range(r.count(16))]},
    }

    def carrier(self, birth):
        """The segment in which the frames of a birth lie now: the last record that moved them holds."""
        carriers = [value["carrier"] for kind, _, value in self.records if kind == 13 and birth in value["births"]]
        return carriers[-1] if carriers else birth

    def servers(self):
        return {value["id"]: value for kind, _, value in self.records if kind == 2}

    def backups(self):
        alive = {}
        for kind, _, value in self.records:
            if kind == 4:
                alive[value["id"]] = value
            elif kind == 5:
                alive.pop(value["id"], None)
        return list(alive.values())

    def sealed_logs(self):
        return [value for kind, _, value in self.records if kind == 7]

    # Segments

    def segment_file(self, name):
        if name not in self.open_files:
            if len(self.open_files) > 64:
                self.open_files.pop(next(iter(self.open_files))).close()
            self.open_files[name] = open(self.path(name), "rb")
        return self.open_files[name]

    def read_at(self, name, offset, length):
        file = self.segment_file(name)
        file.seek(offset)
        data = file.read(length)
        check(len(data) == length, f"{name} ends too early: {length} bytes are needed at {offset}")
        return data

    def segment(self, segment_id, folder="segments"):
        """Header, keys and frames of a segment, by its own name."""
        name = f"{folder}/{segment_id.hex()}"
        if name in self.segments:
            return self.segments[name]
        check(self.path(name).is_file(), f"{name} is missing")
        size = self.path(name).stat().st_size
        check(size <= SEGMENT_MAX, f"{name} is longer than a segment can be")
        segment = Segment(name)
        self.header(segment, segment_id, self.read_at(name, 0, PAGE))
        trailer = self.read_at(name, size - PAGE, PAGE) if size >= 2 * PAGE else b""
        foot = name + ".foot"
        recorded = folder != "logs" or any(log["segment"] == segment_id for log in self.sealed_logs())
        if folder == "logs" and self.path(foot).is_file():
            tail = self.read_at(foot, self.path(foot).stat().st_size - PAGE, PAGE)
            self.footer(segment, segment_id, foot, tail, True)
        elif trailer.startswith(b"HFTRAIL\0") and recorded:
            self.footer(segment, segment_id, name, trailer, False)
        else:
            # Also a log with a trailer that no record confirms: a crash may have lost frames before it.
            self.scan(segment, size)
        self.segments[name] = segment
        return segment

    def header(self, segment, segment_id, page):
        r = Reader(segment.name, hashed(segment.name + "'s header", page))
        r.expect(b"HFSEG\0\0\0", 0)
        segment.kind = r.u8()
        r.zeros(1)
        births = r.u16()
        check(1 <= births <= 32, f"{segment.name} carries {births} births")
        check(r.raw(16) == self.repo, f"{segment.name} belongs to another repository")
        check(r.raw(16) == segment_id, f"{segment.name} is another segment")
        segment.session = r.raw(16)
        for _ in range(births):
            birth, generation = r.raw(16), r.u32()
            r.zeros(4)
            wrapped, commitment = r.raw(48), r.raw(32)
            what = f"the data key of {segment.name}"
            key = derive("wrap of a segment's data key", self.kek(generation, what) + self.repo + birth)
            data_key = unseal(key, bytes(12), self.repo + birth + struct.pack("<I", generation), wrapped, what)
            check(derive("commitment to a data key", data_key) == commitment, f"{what} is not the committed one")
            segment.births.append((birth, derive("frames", data_key), derive("footers", data_key)))
        check(segment.births[0][0] == segment_id, f"{segment.name} does not carry itself first")
        r.zeros(len(r.data) - r.at)

    def footer(self, segment, segment_id, name, page, detached):
        r = Reader(f"{name}'s trailer", hashed(f"{name}'s trailer", page))
        r.expect(b"HFTRAIL\0", 0)
        check(r.u32() == int(detached), f"{name} has the wrong kind of trailer")
        check(r.raw(16) == self.repo and r.raw(16) == segment_id, f"{name}'s trailer belongs to another segment")
        frames_end, offset, length, frames = r.u64(), r.u64(), r.u64(), r.u32()
        r.raw(4 + 8 + 8 + 4 + 4)
        frames_root = r.raw(32)
        r.zeros(len(r.data) - r.at)
        check(length >= 32, f"{name} has a footer of {length} bytes")
        sealed = self.read_at(name, offset, length)
        check(not any(sealed[12:16]), f"{name}'s footer has bytes that should be zero")
        aad = (b"HFFOOT\0\0" + self.repo + segment_id
               + struct.pack("<IQI", int(detached), frames_end, frames))
        plain = unseal(segment.births[0][2], sealed[:12], aad, sealed[16:], f"{name}'s footer")
        r = Reader(f"{name}'s footer", plain)
        r.expect(b"HFFOOT\0\0", 0)
        check(r.u32() == frames, f"{name}'s footer and trailer count differently")
        bases = r.u32()
        r.zeros(4)
        r.raw(16 * bases)
        root = blake3_module.blake3()
        for _ in range(frames):
            block_id = r.raw(32)
            at, plain_len, stored_len, slot = r.u32(), r.u32(), r.u32(), r.u32()
            r.raw(8)
            birth, kind, codec, depth = r.u8(), r.u8(), r.u8(), r.u8()
            r.zeros(4)
            frame = Frame(at, slot, kind, codec, depth, birth, plain_len, stored_len, block_id)
            check(at + FRAME_HEADER + stored_len <= frames_end, f"{name}'s footer names a frame beyond the last one")
            segment.frames.append(frame)
            root.update(self.read_at(segment.name, at, FRAME_HEADER))
            root.update(self.read_at(segment.name, at + FRAME_HEADER + stored_len - 16, 16))
        r.end()
        check(root.digest() == frames_root, f"the hash over the frames of {segment.name} is not that of its trailer")
        segment.sealed = True

    def scan(self, segment, size):
        """A segment without a footer ends where no whole, right frame begins any more."""
        at = PAGE
        while at + FRAME_HEADER <= size:
            frame = self.frame_header(segment, at)
            if frame is None or at + FRAME_HEADER + frame.stored_len > size:
                break
            try:
                self.plain(segment, frame)
            except Flaw:
                break
            segment.frames.append(frame)
            at += FRAME_HEADER + frame.stored_len

    def frame_header(self, segment, at):
        head = self.read_at(segment.name, at, FRAME_HEADER)
        if head[:4] != b"HFfr" or struct.unpack("<I", head[28:])[0] != crc32c(head[:28]):
            return None
        slot, kind, codec, depth, birth, plain_len, stored_len, _, zero = struct.unpack("<IBBBBIIII", head[4:28])
        check(zero == 0 and birth < len(segment.births), f"{segment.name} has a wrong frame header at {at}")
        return Frame(at, slot, kind, codec, depth, birth, plain_len, stored_len)

    def plain(self, segment, frame):
        """Opens, decodes and verifies one frame."""
        what = f"frame {frame.slot} of {segment.name}"
        head = self.frame_header(segment, frame.offset)
        check(head is not None, f"the header of {what} is damaged")
        known = Frame(**{**frame.__dict__, "id": None})
        check(head == known, f"the header of {what} is not what its footer says")
        birth, key, _ = segment.births[frame.birth]
        aad = self.repo + birth + struct.pack("<IBBBBII", frame.slot, frame.kind, frame.codec, frame.depth, 0,
                                              frame.plain_len, frame.stored_len)
        nonce = struct.pack("<I", frame.slot) + bytes(8)
        sealed = self.read_at(segment.name, frame.offset + FRAME_HEADER, frame.stored_len)
        data = unseal(key, nonce, aad, sealed, what)
        check(frame.plain_len <= FRAME_PLAIN_MAX, f"{what} is longer than a frame can be")
        try:
            if frame.codec == 1:
                data = zstandard.ZstdDecompressor().decompress(data, max_output_size=max(frame.plain_len, 1))
            elif frame.codec == 2:
                base = self.fetch((data[:16], struct.unpack("<I", data[16:20])[0]))
                prefix = zstandard.ZstdCompressionDict(base, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
                data = zstandard.ZstdDecompressor(dict_data=prefix).decompress(
                    data[20:], max_output_size=max(frame.plain_len, 1))
            else:
                check(frame.codec == 0, f"{what} has an unknown codec")
        except zstandard.ZstdError as error:
            raise Flaw(f"{what}: {error}") from None
        check(len(data) == frame.plain_len, f"{what} decodes to {len(data)} bytes, not {frame.plain_len}")
        if frame.id is not None:
            check(blake3(data, key=self.block_id_key) == frame.id, f"{what} holds other bytes than its id says")
        return data

    def fetch(self, at, kind=None):
        """The plaintext of the frame at an address."""
        birth, slot = at
        segment = self.segment(self.carrier(birth))
        if not hasattr(segment, "by_slot"):
            segment.by_slot = {(f.birth, f.slot): f for f in segment.frames}
        place = next((n for n, b in enumerate(segment.births) if b[0] == birth), None)
        frame = segment.by_slot.get((place, slot))
        check(frame is not None, f"the frame {show_address(at)} is nowhere")
        check(kind is None or frame.kind == kind, f"{show_address(at)} is a frame of another kind")
        return self.plain(segment, frame)

    # Maps

    def files(self, backup):
        """Each file of a backup with its runs: (kind, count, first address or none)."""
        r = Reader("a map's root", self.fetch(backup["map"], 2))
        check(r.u32() == 0 and r.u32() == BLOCK, "a map's root has another version or block size")
        count, logical = r.u32(), r.u64()
        data_blocks, zero_blocks, hole_blocks, segments = r.u64(), r.u64(), r.u64(), r.u32()
        tables = [address(r) for _ in range(r.count(20))]
        leaves = [address(r) for _ in range(r.count(20))]
        r.end()
        table = []
        for at in tables:
            t = Reader("a map's table", self.fetch(at, 3))
            check(t.u32() == 0 and t.u32() == len(table), "a map's table does not follow the one before it")
            for _ in range(t.count(21)):
                table.append(t.raw(16))
                t.u32()
                check(t.u8() <= 1, "a map's table has a wrong flag")
            t.end()
        check(len(table) == segments, "a map's tables do not hold what its root says")
        files = []
        for at in leaves:
            leaf = Reader("a map's leaf", self.fetch(at, 4))
            check(leaf.u32() == 0, "a map's leaf has another version")
            for _ in range(leaf.count(4)):
                self.part(leaf, files, table)
            leaf.end()
        seen = {"data": 0, "zero": 0, "hole": 0}
        for file in files:
            blocks = -(-file["len"] // BLOCK)
            covered = sum(run[1] for run in file["runs"])
            check(covered <= blocks, f"{file['path']!r} has more blocks than its length allows")
            if covered < blocks:
                file["runs"].append(("hole", blocks - covered, None))
            for kind, n, _ in file["runs"]:
                seen[kind] += n
        check(len(files) == count and sum(f["len"] for f in files) == logical, "a map's totals are wrong")
        check(seen == {"data": data_blocks, "zero": zero_blocks, "hole": hole_blocks}, "a map's block counts are wrong")
        return files

    @staticmethod
    def part(r, files, table):
        number, kind = r.varint(), r.u8()
        check(kind <= 4, "a map names a file of unknown kind")
        if kind:
            check(number == len(files), "a map's files are out of order")
            path = r.blob()
            bad = [p for p in path.split(b"/") if p in (b"", b".", b"..")]
            check(path and not bad and b"\0" not in path, f"a map has the path {path!r}")
            target = r.blob() if kind == 3 else None
            files.append({"path": path, "kind": ("file", "folder", "link", "file")[kind - 1], "target": target,
                          "len": r.varint(), "mode": r.u32(), "mtime_us": r.i64(), "runs": []})
            if kind == 4:
                r.u64(), r.i64(), r.i64()
            check(kind in (1, 4) or files[-1]["len"] == 0, "a map gives a length to what is no file")
        check(number == len(files) - 1, "a map's parts are out of order")
        runs = files[-1]["runs"]
        first, end = r.varint(), sum(run[1] for run in runs)
        check(first >= end, "a map's runs do not follow each other")
        if first > end:
            runs.append(("hole", first - end, None))
        for _ in range(r.varint()):
            tag, count = r.u8(), r.varint()
            check(count > 0, "a map has an empty run")
            if tag in (0, 1):
                runs.append((("hole", "zero")[tag], count, None))
                continue
            check(tag & 3 == 2 and tag >> 2 <= 4, f"a map has a run of unknown kind {tag}")
            segment, slot = r.varint(), r.varint()
            if tag >> 2:
                r.varint(), r.varint()
            check(segment < len(table), "a map names a segment that its table lacks")
            runs.append(("data", count, (table[segment], slot)))

    def blocks(self, file):
        """(kind, bytes) of each block of a file, in order; holes come as their length."""
        left = file["len"]
        for kind, count, first in file["runs"]:
            for k in range(count):
                due = min(left, BLOCK)
                if kind == "data":
                    # A block that is shorter than its place reads on as zeros, a longer one is cut.
                    yield kind, self.fetch((first[0], first[1] + k), 1)[:due].ljust(due, b"\0")
                elif kind == "zero":
                    yield kind, bytes(due)
                else:
                    yield kind, due
                left -= due
        check(left == 0, f"{file['path']!r} is not covered by its blocks")

    # Logs

    def logs(self):
        """Every log segment, by stream and number, with what its frames hold."""
        sealed = {log["segment"]: log for log in self.sealed_logs()}
        found = []
        folder = self.path("logs")
        names = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
        for name in names:
            if not re.fullmatch("[0-9a-f]{32}", name):
                continue
            segment_id = bytes.fromhex(name)
            segment = self.segment(segment_id, "logs")
            plains = [(frame, self.plain(segment, frame)) for frame in segment.frames]
            if not plains:
                continue
            check(plains[0][0].kind == 5, f"logs/{name} does not begin with its opening")
            r = Reader(f"the opening of logs/{name}", plains[0][1])
            check(r.u32() == 0, f"the opening of logs/{name} has another version")
            stream, number, start, opened_us = r.raw(36), r.u64(), self.position(r), r.i64()
            r.end()
            record = sealed.pop(segment_id, None)
            if record:
                check(segment.sealed and record["stream"] == stream and record["number"] == number,
                      f"logs/{name} is not what its record says")
            found.append({"segment": name, "stream": stream, "number": number, "start": start,
                          "opened_us": opened_us, "record": record, "frames": plains[1:]})
        check(not sealed, "a sealed log is missing: " + ", ".join(s.hex() for s in sealed))
        return sorted(found, key=lambda log: (log["stream"], log["number"]))


def report(repo):
    """Everything the repository holds, as plain data; reads and verifies every block."""
    servers = repo.servers()
    backups = []
    for backup in repo.backups():
        files = []
        for file in repo.files(backup):
            content, kinds = blake3_module.blake3(), {"data": 0, "zero": 0, "hole": 0}
            for kind, data in repo.blocks(file):
                content.update(bytes(data) if kind == "hole" else data)
                kinds[kind] += 1
            entry = {"path": file["path"].decode(errors="surrogateescape"), "kind": file["kind"], "len": file["len"],
                     "mode": file["mode"], "mtime_us": file["mtime_us"]}
            if file["kind"] == "file":
                entry |= {"blake3": content.hexdigest(), "blocks": kinds}
            if file["target"] is not None:
                entry["target"] = file["target"].decode(errors="surrogateescape")
            files.append(entry)
        files.sort(key=lambda file: os.fsencode(file["path"]))
        server = servers.get(backup["server"])
        backups.append({"id": backup_name(backup["id"]), "server": server["name"] if server else None,
                        "note": backup["note"], "files": files})
    logs = []
    for log in repo.logs():
        frames = [{"kind": FRAME_KINDS[frame.kind], "len": len(plain), "blake3": blake3(plain).hex()}
                  for frame, plain in log["frames"]]
        logs.append({"stream": log["stream"].hex(), "number": log["number"], "sealed": log["record"] is not None,
                     "frames": frames})
    return {"repository": repo.repo.hex(), "records": len(repo.records), "backups": backups, "logs": logs}


def restore(repo, backup, target):
    target = Path(target)
    target.mkdir(parents=True, exist_ok=True)
    if any(target.iterdir()):
        raise SystemExit(f"{target} is not empty")
    later = []
    for file in repo.files(backup):
        path = Path(os.fsdecode(os.path.join(os.fsencode(target), file["path"])))
        path.parent.mkdir(parents=True, exist_ok=True)
        if file["kind"] == "folder":
            path.mkdir(exist_ok=True)
        elif file["kind"] == "link":
            path.symlink_to(os.fsdecode(file["target"]))
            continue
        else:
            with open(path, "xb") as out:
                for kind, data in repo.blocks(file):
                    if kind == "hole":
                        out.seek(data, os.SEEK_CUR)
                    else:
                        out.write(data)
                out.truncate(file["len"])
                out.flush()
                os.fsync(out.fileno())
        later.append((path, file))
    # Deepest first, so that a folder's own time and mode are set after what is in it.
    for path, file in reversed(later):
        os.chmod(path, file["mode"] & 0o7777)
        os.utime(path, ns=(file["mtime_us"] * 1000, file["mtime_us"] * 1000))


def main():
    parser = argparse.ArgumentParser(description="Reads a Holdfast repository, written from its format's text alone.")
    parser.add_argument("repo")
    ways = parser.add_mutually_exclusive_group(required=True)
    ways.add_argument("--passphrase-file", metavar="F")
    ways.add_argument("--key-file", metavar="F")
    verbs = parser.add_subparsers(dest="verb", required=True)
    lists = verbs.add_parser("list", help="what the repository holds; with --json everything is read and verified")
    lists.add_argument("--json", action="store_true")
    restores = verbs.add_parser("restore", help="write a backup's files into an empty folder")
    restores.add_argument("backup", help="its id or the beginning of it")
    restores.add_argument("dir")
    arguments = parser.parse_args()

    if arguments.passphrase_file:
        secret = "passphrase", Path(arguments.passphrase_file).read_bytes().split(b"\n")[0].rstrip(b"\r")
    else:
        secret = "key file", Path(arguments.key_file).read_bytes()
    try:
        repo = Repository(arguments.repo, secret)
        for warning in repo.warnings:
            print(f"warning: {warning}; another copy serves", file=sys.stderr)
        if arguments.verb == "restore":
            wanted = [b for b in repo.backups() if backup_name(b["id"]).startswith(arguments.backup.lower())]
            if len(wanted) != 1:
                raise SystemExit(f"{len(wanted)} backups have an id that begins with {arguments.backup}")
            restore(repo, wanted[0], arguments.dir)
        elif arguments.json:
            json.dump(report(repo), sys.stdout, indent=1)
            print()
        else:
            servers = repo.servers()
            for backup in repo.backups():
                name = servers[backup["server"]]["name"] if backup["server"] in servers else "?"
                files, size = backup["stats"][0], backup["stats"][1]
                print(f"{backup_name(backup['id'])}  {name}  {files} files  {size} bytes  {backup['note']}")
    except NoRepository as error:
        print(error, file=sys.stderr)
        return 10
    except WrongKey as error:
        print(error, file=sys.stderr)
        return 12
    except Flaw as flaw:
        print(f"damaged: {flaw}", file=sys.stderr)
        return 21
    return 0


if __name__ == "__main__":
    sys.exit(main())
