"""Envelopes of records, heads, and the rules of recovery: format-spec/manifest.md."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Iterator, Optional

from .limits import HASH, LIMIT_PACK, LIMIT_PACK_RECORDS, LIMIT_RECORD, PAGE, TAG, VERSION
from .errors import Damage, Journal
from .wire import Cursor
from .crypto import keyed, unseal
from .objects import ObjectStore, hashed_body
from .keyring import Keys
from .records import RECORD_READERS

MANIFEST_FOLDERS = ("manifest", "manifest2")
ENVELOPE = 96
PACK_ENVELOPE = 128


@dataclass(frozen=True)
class Record:
    number: int
    previous: bytes
    hash: bytes
    kind: int
    kind_version: int
    time: int
    body: Optional[object]  # None where kind or version is not known

    @property
    def place(self) -> str:
        return f"record {self.number}"


@dataclass(frozen=True)
class Pack:
    name: str
    first: int
    previous: bytes
    last: bytes
    records: list[tuple[int, int, int, Optional[object]]]  # kind, version, time, body


@dataclass(frozen=True)
class Head:
    name: str
    number: int
    hash: bytes


def parse_record(data: bytes, name: str, number: int, keys: Keys) -> Record:
    """One copy of a record, complete but for its place in the chain."""
    cur = Cursor(hashed_body(data, name), name, "envelope")
    cur.magic(b"HFMANIF\0")
    cur.version()
    cur.zeros(4)
    cur.expect(keys.repository, "repository id")
    found = cur.u64()
    if found != number:
        raise cur.bad(f"is record {found}")
    previous, generation, nonce = cur.take(HASH), cur.u32(), cur.take(12)
    length, form = cur.u32(), cur.u32()
    if form > 1:
        raise cur.bad(f"has the form {form}")
    # A record that was sealed again is known by the hash that it had at first.
    known_by = cur.take(HASH) if form else data[-HASH:]
    if length > LIMIT_RECORD + TAG or length != cur.left:
        raise cur.bad(f"sealed record of {length} bytes, {cur.left} there")
    plain = unseal(keys.manifest(generation, name), nonce, data[: cur.at], cur.take(length))
    if plain is None:
        raise Damage(name, "sealed record", "tag does not match")
    return Record(number, previous, known_by, *parse_body(plain, name))


def parse_body(plain: bytes, name: str) -> tuple[int, int, int, Optional[object]]:
    inner = Cursor(plain, name, "record")
    kind, kind_version, time = inner.u16(), inner.u16(), inner.i64()
    body = None
    if kind in RECORD_READERS and kind_version == VERSION:
        body = RECORD_READERS[kind](inner)
        inner.end()
    return kind, kind_version, time, body


def parse_pack(data: bytes, name: str, keys: Keys) -> Pack:
    cur = Cursor(hashed_body(data, name), name, "pack")
    cur.magic(b"HFPACK\0\0")
    cur.version()
    count = cur.u32()
    if not 1 <= count <= LIMIT_PACK_RECORDS:
        raise cur.bad(f"{count} records")
    cur.expect(keys.repository, "repository id")
    first = cur.u64()
    if f"packs/{first:016x}" != name:
        raise cur.bad(f"begins with record {first}")
    previous, generation, nonce, length = cur.take(HASH), cur.u32(), cur.take(12), cur.u32()
    cur.zeros(4)
    last = cur.take(HASH)
    if length > LIMIT_PACK + TAG or length != cur.left:
        raise cur.bad(f"sealed records of {length} bytes, {cur.left} there")
    plain = unseal(keys.manifest(generation, name), nonce, data[:PACK_ENVELOPE], cur.take(length))
    if plain is None:
        raise Damage(name, "sealed records", "tag does not match")
    inner = Cursor(plain, name, "records")
    records = [parse_body(inner.blob(LIMIT_RECORD, "record"), name) for _ in range(count)]
    inner.end()
    return Pack(name, first, previous, last, records)


def check_packs(store: ObjectStore, keys: Keys, records: list[Record], journal: Journal) -> None:
    """Packs are derived: each must say what its records say."""
    by_number = {record.number: record for record in records}
    for short in store.names("packs"):
        name = f"packs/{short}"
        if not re.fullmatch(r"[0-9a-f]{16}", short):
            journal.note(name, "", "is not the name of a pack")
            continue
        try:
            pack = parse_pack(store.load(name, PACK_ENVELOPE + LIMIT_PACK + TAG + HASH) or b"", name, keys)
            for number, packed in enumerate(pack.records, pack.first):
                record = by_number.get(number)
                if record and (record.kind, record.kind_version, record.time, record.body) != packed:
                    raise Damage(name, f"record {number}", "differs from the record itself")
            first, last = by_number.get(pack.first), by_number.get(pack.first + len(pack.records) - 1)
            if (first and first.previous != pack.previous) or (last and last.hash != pack.last):
                raise Damage(name, "", "is of another chain of records")
        except Damage as error:
            journal.caught(error)


def read_heads(store: ObjectStore, keys: Keys, journal: Journal) -> tuple[list[Head], set[int]]:
    """The good heads, the highest number first; and which are there and say nothing."""
    heads, unread = [], set()
    for index in (0, 1):
        name = f"head/{index}"
        try:
            data = store.load(name, PAGE)
            if data is not None:
                heads.append(parse_head(data, name, index, keys))
        except Damage as error:
            journal.caught(error)
            unread.add(index)
    return sorted(heads, key=lambda head: -head.number), unread


def parse_head(data: bytes, name: str, index: int, keys: Keys) -> Head:
    cur = Cursor(data, name, "head")
    if len(data) != 104:
        raise cur.bad("does not have 104 bytes")
    if keyed(keys.head, data[:72]) != data[72:]:
        raise cur.bad("keyed BLAKE3 does not match")
    cur.magic(b"HFHEAD\0\0")
    cur.version()
    cur.zeros(4)
    cur.expect(keys.repository, "repository id")
    head = Head(name, cur.u64(), cur.take(HASH))
    if head.number % 2 != index:
        raise cur.bad(f"names record {head.number}, which is for head/{head.number % 2}")
    return head


def record_numbers(store: ObjectStore, journal: Journal) -> dict[str, set[int]]:
    numbers: dict[str, set[int]] = {}
    for folder in MANIFEST_FOLDERS:
        numbers[folder] = set()
        for name in store.names(folder):
            if re.fullmatch(r"[0-9a-f]{16}", name):
                numbers[folder].add(int(name, 16))
            else:
                journal.note(f"{folder}/{name}", "", "is not the name of a record")
    return numbers


class ManifestReader:
    """Reads the records in order and applies the rules of recovery."""

    def __init__(self, store: ObjectStore, keys: Keys, journal: Journal):
        self.store, self.keys, self.journal = store, keys, journal
        self.heads, self.unread_heads = read_heads(store, keys, journal)
        self.numbers = record_numbers(store, journal)
        self.present = self.numbers["manifest"] | self.numbers["manifest2"]
        self.acknowledged = self.heads[0].number if self.heads else -1
        self.highest = max(self.present, default=-1)

    def read(self) -> list[Record]:
        if not self.present:
            raise Damage("manifest", "", "there is no record in a repository that has a keyring")
        records: list[Record] = []
        previous: Optional[bytes] = bytes(HASH)  # None: the record before is lost
        for number in self._numbers_in_order():
            record = self._read_one(number, previous)
            if record:
                records.append(record)
            previous = record.hash if record else None
        self._compare_heads(records)
        if not records:
            raise Damage("manifest", "", "no record can be read")
        return records

    def _numbers_in_order(self) -> Iterator[int]:
        """From 0 up.  Missing stretches are reported as one and left out."""
        expected = 0
        for number in sorted(self.present):
            if number > expected:
                last = f" to {number - 1:016x}" if number - 1 > expected else ""
                self.journal.damage(f"manifest/{expected:016x}{last}", "", "missing in both folders")
            yield number
            expected = number + 1

    def _read_one(self, number: int, previous: Optional[bytes]) -> Optional[Record]:
        if number and number - 1 not in self.present:
            previous = None
        record: Optional[Record] = None
        errors: list[Damage] = []
        missing: list[str] = []
        for folder in MANIFEST_FOLDERS:
            name = f"{folder}/{number:016x}"
            try:
                data = self.store.load(name, ENVELOPE + HASH + LIMIT_RECORD + TAG + HASH)
                if data is None:
                    missing.append(name)
                    continue
                copy = parse_record(data, name, number, self.keys)
                if previous is not None and copy.previous != previous:
                    raise Damage(name, "hash of the record before", "does not match that record")
                if record and (copy.hash, copy.time, copy.body) != (record.hash, record.time, record.body):
                    raise Damage(name, "", "differs from its other copy")
                record = record or copy
            except Damage as error:
                errors.append(error)
        self._report(number, record, errors, missing)
        return record

    def _report(self, number: int, record: Optional[Record], errors: list[Damage], missing: list[str]) -> None:
        # A head that can't be read may have named the record of its turn.
        may_be_torn = number == self.highest and number > self.acknowledged and number % 2 not in self.unread_heads
        if record is None and may_be_torn:
            self.journal.note(f"manifest/{number:016x}", "", "torn last record, never acknowledged; dropped")
            return
        for error in errors:
            self.journal.caught(error)
        for name in missing:
            if may_be_torn:
                self.journal.note(name, "", "second copy of the last record was not yet written")
            else:
                self.journal.damage(name, "", "this copy of the record is missing")

    def _compare_heads(self, records: list[Record]) -> None:
        by_number = {record.number: record for record in records}
        last = max(by_number, default=-1)
        for head in self.heads:
            if head.number > self.highest:
                self.journal.damage(head.name, "", f"names record {head.number}; the last is {self.highest}")
            elif head.number in by_number and by_number[head.number].hash != head.hash:
                self.journal.damage(head.name, "", f"names another hash of record {head.number}")
        self._check_head_is_recent(last, last - 2)
        self._check_head_is_recent(last - 1, last - 1)

    def _check_head_is_recent(self, newest: int, oldest: int) -> None:
        """The head for record `newest` must name it, or at least `oldest` where a writer died in between."""
        name = f"head/{newest % 2}"
        found = next((head.number for head in self.heads if head.name == name), None)
        if newest < 0 or found == newest or (found is None and self.store.has(name)):
            return
        problem = f"would name record {newest}, " + ("is missing" if found is None else f"names {found}")
        late = oldest >= 0 and (found is None or found < oldest)
        (self.journal.damage if late else self.journal.note)(name, "", problem)
