"""A small writer of repositories, made from the text too, for what no golden repository holds.

Segments, their parity, carriers, keyrings with several slots, records, logs in every state.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import argon2.low_level
import zstandard
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from read_holdfast.crypto import crc32c, derive, digest, keyed
from read_holdfast.limits import PAGE, BLOCK, VERSION
from read_holdfast.parity import ParityLayout, Vector, leopard_encode
from read_holdfast.wire import Address, le, round_up

REPOSITORY, SERVER, SOURCE = b"R" * 16, b"S" * 16, b"U" * 16
ROOT_KEY = b"root key".ljust(32, b"!")
KEKS = {1: b"kek one".ljust(32, b"1"), 4: b"kek four".ljust(32, b"4")}
UNLOCK_KEY = b"unlock".ljust(32, b"u")
NO_GTIDS = bytes((0, 0))


def seal(key: bytes, nonce: bytes, aad: bytes, plain: bytes) -> bytes:
    return AESGCM(key).encrypt(nonce, plain, aad)


def blob(data: bytes) -> bytes:
    return le(len(data), 4) + data


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes((value,))


def position(file: bytes, offset: int, gtids: bytes = NO_GTIDS) -> bytes:
    return blob(file) + le(offset, 8) + blob(gtids)


def address(at: Address) -> bytes:
    return at.segment + le(at.slot, 4)


def hashed(data: bytes) -> bytes:
    return data + digest(data)


def secrets_plain() -> bytes:
    keks = b"".join(le(generation, 4) + kek for generation, kek in sorted(KEKS.items()))
    return le(VERSION, 4) + ROOT_KEY + le(len(KEKS), 4) + keks


def make_keyring(passphrases: list[bytes], key_files: list[bytes], generation: int = 7) -> bytes:
    slots = b""
    for number, secret in enumerate(passphrases + key_files):
        bound = le(number, 8)
        if number < len(passphrases):
            salt = bytes((number,)) * 32
            key = argon2.low_level.hash_secret_raw(secret, salt, 1, 64, 1, 32, argon2.low_level.Type.ID)
            bound += b"\x01" + salt + le(64, 4) + le(1, 4) + le(1, 4)
        else:
            key = derive("key file", secret)
            bound += b"\x02"
        bound += blob(b"label") + le(1, 8)
        nonce = bytes((number,)) * 12
        slots += bound + nonce + seal(key, nonce, REPOSITORY + bound, UNLOCK_KEY)
    front = b"HFKEYS\0\0" + le(VERSION, 4) + bytes(12) + REPOSITORY + le(generation, 8)
    sealed = seal(UNLOCK_KEY, b"n" * 12, front, secrets_plain())
    return hashed(front + le(len(passphrases + key_files), 4) + slots + b"n" * 12 + blob(sealed))


def make_recovery_kit() -> str:
    data = le(VERSION, 4) + REPOSITORY + UNLOCK_KEY + secrets_plain()
    digits = (data + digest(data)[:8]).hex().upper()
    lines = "\n".join(" ".join((digits[i : i + 8], digits[i + 8 : i + 16])) for i in range(0, len(digits), 16))
    return f"Keep this.\n-----BEGIN HOLDFAST RECOVERY KIT-----\n{lines}\n-----END HOLDFAST RECOVERY KIT-----\n"


@dataclass
class Frame:
    kind: int
    plain: bytes
    base: Optional[Address] = None
    base_plain: bytes = b""
    depth: int = 0
    codec: int = 1
    durable_end: int = 0
    born: Optional[Address] = None  # where it was born, if a carrier holds it


class SegmentWriter:
    """Builds the bytes of one segment."""

    def __init__(self, ident: bytes, kind: int, generation: int = 4):
        self.ident, self.kind = ident, kind
        self.births: list[tuple[bytes, int]] = [(ident, generation)]
        self.body, self.entries, self.bases, self.tags = bytearray(), [], [], []

    @staticmethod
    def data_key(segment: bytes) -> bytes:
        return digest(b"data key of " + segment)

    def header(self) -> bytes:
        out = b"HFSEG\0\0\0" + le(VERSION, 4) + bytes((self.kind, 0)) + le(len(self.births), 2)
        out += REPOSITORY + self.ident + b"s" * 16
        for segment, generation in self.births:
            wrap = derive("wrap of a segment's data key", KEKS[generation] + REPOSITORY + segment)
            key = self.data_key(segment)
            out += segment + le(generation, 4) + bytes(4)
            out += seal(wrap, bytes(12), REPOSITORY + segment + le(generation, 4), key)
            out += derive("commitment to a data key", key)
        return hashed(out.ljust(4064, b"\0"))

    def add(self, frame: Frame) -> Address:
        at = frame.born or Address(self.ident, len(self.entries))
        segments = [segment for segment, _ in self.births]
        if at.segment not in segments:
            self.births.append((at.segment, 1))
            segments.append(at.segment)
        codec = 2 if frame.base else frame.codec
        encoded = frame.plain
        if codec == 1:
            encoded = zstandard.compress(frame.plain)
        elif codec == 2:
            prefix = zstandard.ZstdCompressionDict(frame.base_plain, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
            encoded = address(frame.base) + zstandard.ZstdCompressor(dict_data=prefix).compress(frame.plain)
        stored = len(encoded) + 16
        kinds = bytes((frame.kind, codec, frame.depth))
        sizes = le(len(frame.plain), 4) + le(stored, 4)
        aad = REPOSITORY + at.segment + le(at.slot, 4) + kinds + b"\0" + sizes
        sealed = seal(derive("frames", self.data_key(at.segment)), le(at.slot, 4) + bytes(8), aad, encoded)
        birth = segments.index(at.segment)
        head = b"HFfr" + le(at.slot, 4) + kinds + bytes((birth,)) + sizes + le(crc32c(sealed), 4)
        head += le(frame.durable_end, 4)
        head += le(crc32c(head), 4)
        self.entries.append((frame, at, birth, codec, PAGE + len(self.body), stored))
        self.tags.append(head + sealed[-16:])
        self.body += head + sealed
        return at

    def footer(self, detached: bool) -> bytes:
        bases = sorted({frame.base.segment for frame, *_ in self.entries if frame.base})
        plain = b"HFFOOT\0\0" + le(VERSION, 4) + le(len(self.entries), 4) + le(len(bases), 4) + bytes(4) + b"".join(bases)
        block_ids = derive("block ids", ROOT_KEY)
        for frame, at, birth, codec, offset, stored in self.entries:
            plain += keyed(block_ids, frame.plain) + le(offset, 4) + le(len(frame.plain), 4) + le(stored, 4)
            plain += le(at.slot, 4)
            plain += le(bases.index(frame.base.segment) if frame.base else 0xFFFFFFFF, 4)
            plain += le(frame.base.slot if frame.base else 0, 4)
            plain += bytes((birth, frame.kind, codec, frame.depth)) + bytes(4)
        aad = b"HFFOOT\0\0" + REPOSITORY + self.ident + le(int(detached), 4)
        aad += le(self.frames_end, 8) + le(len(self.entries), 4)
        return b"f" * 12 + bytes(4) + seal(derive("footers", self.data_key(self.ident)), b"f" * 12, aad, plain)

    @property
    def frames_end(self) -> int:
        return PAGE + len(self.body)

    def trailer(self, detached: bool, offset: int, size: int, parity: Optional[ParityLayout]) -> bytes:
        out = b"HFTRAIL\0" + le(VERSION, 4) + le(int(detached), 4) + REPOSITORY + self.ident
        out += le(self.frames_end, 8) + le(offset, 8) + le(size, 8) + le(len(self.entries), 4)
        if parity:
            out += le(parity.shard_size, 4) + le(parity.offset, 8) + le(parity.size, 8)
            out += le(parity.data, 4) + le(parity.parity, 4)
        else:
            out += bytes(28)
        return hashed((out + digest(b"".join(self.tags))).ljust(4064, b"\0"))

    def unsealed(self) -> bytes:
        return self.header() + bytes(self.body)

    def foot(self) -> bytes:
        footer = self.footer(True)
        return footer.ljust(round_up(len(footer), PAGE), b"\0") + self.trailer(True, 0, len(footer), None)

    def sealed(self, with_parity: bool = False) -> bytes:
        front, footer = self.unsealed(), self.footer(False)
        offset = round_up(len(front), PAGE)
        front = front.ljust(offset, b"\0") + footer
        front = front.ljust(round_up(len(front), PAGE), b"\0")
        if not with_parity:
            return front + self.trailer(False, offset, len(footer), None)
        layout = ParityLayout.of(len(front))
        trailer = self.trailer(False, offset, len(footer), layout)
        return front + self.parity(front, layout, trailer) + trailer

    def parity(self, front: bytes, layout: ParityLayout, trailer: bytes) -> bytes:
        size = layout.shard_size
        data = [front[i * size : (i + 1) * size].ljust(size, b"\0") for i in range(layout.data)]
        vectors = leopard_encode(map(Vector.of_shard, data), layout.parity, size // 2)
        shards = [vector.shard() for vector in vectors]
        table = b"HFPARITY" + le(VERSION, 4) + le(size, 4) + REPOSITORY + self.ident
        table += le(layout.offset, 8) + le(layout.data, 4) + le(layout.parity, 4)
        table = hashed(table + b"".join(digest(shard)[:16] for shard in data + shards))
        table = table.ljust(layout.table_room, b"\0")
        return trailer + table + b"".join(shards) + table


class RepositoryWriter:
    """Writes a repository that holds what a test wants."""

    def __init__(self, root: Path):
        self.root = root
        self.previous, self.number = bytes(32), 0
        self.passphrase = root.with_suffix(".passphrase")
        self.passphrase.write_text("zwölf\n")
        for copy in range(3):
            self.put(f"keyring/{copy}", make_keyring([b"other", "zwölf".encode()], [b"key file\n"]))
        self.record(1, REPOSITORY + blob(b"test"))
        server = SERVER + blob(b"db") + bytes((1, 2)) + blob(b"/srv") + b"\0" + blob(b"9") + bytes(8)
        self.record(2, server)

    @property
    def secret(self) -> tuple[str, Path]:
        return "--passphrase-file", self.passphrase

    def put(self, name: str, data: bytes) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def record(self, kind: int, fields: bytes, generation: int = 4, kind_version: int = VERSION) -> None:
        plain = le(kind, 2) + le(kind_version, 2) + le(5, 8) + fields
        nonce = self.number.to_bytes(12, "big")
        front = b"HFMANIF\0" + le(VERSION, 4) + bytes(4) + REPOSITORY + le(self.number, 8) + self.previous
        front += le(generation, 4) + nonce + le(len(plain) + 16, 4) + bytes(4)
        data = hashed(front + seal(derive("manifest records", KEKS[generation] + REPOSITORY), nonce, front, plain))
        self.previous = data[-32:]
        self.put(f"manifest/{self.number:016x}", data)
        self.put(f"manifest2/{self.number:016x}", data)
        head = b"HFHEAD\0\0" + le(VERSION, 4) + bytes(4) + REPOSITORY + le(self.number, 8) + self.previous
        self.put(f"head/{self.number % 2}", head + keyed(derive("heads", ROOT_KEY), head))
        self.number += 1

    def backup(self, ident: bytes, blocks: list[tuple], size: int, segments: list[bytes], meta: bytes) -> None:
        """One file "dir/f" whose runs are (tag, count, numbers...)."""
        runs, uses, addressed = b"", dict.fromkeys(segments, 0), 0
        for tag, count, *numbers in blocks:
            runs += bytes((tag,)) + b"".join(map(varint, (count, *numbers)))
            addressed += count if tag > 1 else 0
            for place in numbers[::2]:
                uses[segments[place]] += count
        holes = -(-size // BLOCK) - addressed - sum(b[1] for b in blocks if b[0] == 1)
        zeros = sum(b[1] for b in blocks if b[0] == 1)
        parts = varint(0) + b"\x02" + blob(b"dir") + varint(0) + le(0o750, 4) + le(9, 8) + varint(0) + varint(0)
        parts += varint(1) + b"\x01" + blob(b"dir/f") + varint(size) + le(0o640, 4) + le(9, 8) + varint(0)
        first, rest = blocks[:1], blocks[1:]
        cut = len(bytes((first[0][0],)) + b"".join(map(varint, first[0][1:])))
        parts += varint(1) + runs[:cut]
        leaf2 = varint(1) + b"\0" + varint(first[0][1]) + varint(len(rest)) + runs[cut:]
        table = le(VERSION, 4) + le(0, 4) + le(len(segments), 4)
        table += b"".join(segment + le(uses[segment], 4) + b"\1" for segment in segments)
        writer = SegmentWriter(meta, 2)
        t = writer.add(Frame(3, table))
        leaves = [writer.add(Frame(4, le(VERSION, 4) + le(2, 4) + parts)), writer.add(Frame(4, le(VERSION, 4) + le(1, 4) + leaf2))]
        totals = (le(size, 8), le(addressed, 8), le(zeros, 8), le(holes, 8), le(len(segments), 4))
        root = le(VERSION, 4) + le(BLOCK, 4) + le(2, 4) + b"".join(totals)
        root += le(1, 4) + address(t) + le(2, 4) + b"".join(map(address, leaves))
        at = writer.add(Frame(2, root))
        self.put(f"segments/{meta.hex()}", writer.sealed(with_parity=True))
        stats = [2, size, addressed, addressed, 0, zeros, holes, 0, 0, 0, 0, 0]
        fields = ident + SERVER + b"\x03" + le(1, 8) + le(2, 8) + b"\0" + address(at)
        fields += b"\x02" + position(b"b.1", 4) + position(b"b.1", 9) + le(0, 4) + blob(b"note")
        self.record(4, fields + b"".join(le(v, 8) for v in stats) + le(0, 4))

    def log_sealed(self, segment: bytes, number: int, file: bytes, start: int, end: int, incarnation: int = 0) -> None:
        stream = SERVER + SOURCE + le(incarnation, 4)
        fields = stream + le(number, 8) + segment + position(file, start) + position(file, end)
        self.record(7, fields + blob(NO_GTIDS) * 2 + bytes(32) + le(end - start, 8))


def log_writer(segment: bytes, number: int, file: bytes, start: int, events: list[bytes], incarnation: int = 0):
    writer = SegmentWriter(segment, 3)
    opening = le(VERSION, 4) + SERVER + SOURCE + le(incarnation, 4) + le(number, 8) + position(file, start) + le(1, 8)
    writer.add(Frame(5, opening))
    for part in events:
        writer.add(Frame(6, part, codec=0))
    return writer


def content(seed: str, size: int = BLOCK) -> bytes:
    return hashlib.shake_128(seed.encode()).digest(size)


def edited(data: bytes, at: int, text: bytes) -> bytes:
    return data[:at] + text + data[at + len(text) :]
