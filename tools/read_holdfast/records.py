"""What the records of the manifest say: format-spec/record.md."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Callable, Iterator, Optional

from .limits import LIMIT_FACT, LIMIT_FACTS, LIMIT_GTIDS, LIMIT_NAME, LIMIT_RECORD, LIMIT_TEXT
from .wire import Address, Cursor, backup_name, le


GTID_FAMILIES = {0: "mysql", 1: "mariadb"}
GNO_MAX = 2**63 - 2


@dataclass(frozen=True)
class GtidSet:
    """`members` as text: "uuid:a-b:c:tag:d" for MySQL, "domain-server-sequence" for MariaDB."""

    family: str
    members: tuple[str, ...]

    def __str__(self) -> str:
        return ",".join(self.members)


@dataclass(frozen=True)
class Position:
    file: str
    offset: int
    gtids: GtidSet

    def as_json(self) -> dict:
        return {"file": self.file, "offset": self.offset, "gtids": str(self.gtids)}

    def __str__(self) -> str:
        return f"{self.file or '(no file)'}:{self.offset}"


@dataclass(frozen=True)
class Stream:
    server: bytes
    source: bytes
    incarnation: int

    @property
    def raw(self) -> bytes:
        return self.server + self.source + le(self.incarnation, 4)

    def __str__(self) -> str:
        return self.raw.hex()


@dataclass(frozen=True)
class RepoCreated:
    repository: bytes
    program: str


@dataclass(frozen=True)
class ServerPut:
    ident: bytes
    name: str
    family: str
    place: dict
    source: Optional[bytes]
    version: str
    added: int


@dataclass(frozen=True)
class ServerRemoved:
    server: bytes


@dataclass(frozen=True)
class Coordinates:
    """None, one or two positions: unknown, exact, or a range."""

    positions: tuple[Position, ...]


@dataclass(frozen=True)
class BackupStats:
    files: int
    file_bytes: int
    addressed: int
    stored: int
    deltas: int
    zeros: int
    holes: int
    found_at_parent: int
    found_elsewhere: int
    superseded: int
    added_bytes: int
    parity_bytes: int


@dataclass(frozen=True)
class BackupCommitted:
    ident: bytes
    server: bytes
    source: str
    begin: int
    end: int
    parent: Optional[bytes]
    map: Address
    coordinates: Coordinates
    facts: dict[str, str]
    note: str
    stats: BackupStats
    warnings: tuple[str, ...]

    @property
    def name(self) -> str:
        return backup_name(self.ident)


@dataclass(frozen=True)
class BackupForgotten:
    backup: bytes
    reason: str


@dataclass(frozen=True)
class CoordinatesLearned:
    backup: bytes
    position: Position


@dataclass(frozen=True)
class LogSealed:
    stream: Stream
    number: int
    segment: bytes
    start: Position
    end: Position
    gtids_before: GtidSet
    gtids_after: GtidSet
    first_commit: int
    last_commit: int
    transactions: int
    events: int
    event_bytes: int


@dataclass(frozen=True)
class LogGap:
    stream: Stream
    covered: Position
    reason: str
    noticed: int


@dataclass(frozen=True)
class Report:
    backup: bytes
    kind: str
    time: int
    body: bytes


@dataclass(frozen=True)
class SegmentList:
    """SegmentsCondemned, SegmentsSpared and SegmentsDeleted."""

    verb: str
    segments: tuple[bytes, ...]


@dataclass(frozen=True)
class SegmentsCarried:
    carrier: bytes
    births: tuple[bytes, ...]


@dataclass(frozen=True)
class BackupLocked:
    backup: bytes
    until: int


@dataclass(frozen=True)
class KeysChanged:
    what: str


@dataclass(frozen=True)
class Healed:
    noticed_by: str
    pages: dict[bytes, int]  # by segment


@dataclass(frozen=True)
class Scrubbed:
    round_begun: int
    after: Optional[bytes]
    segments: int
    bytes: int
    lost: tuple[bytes, ...]


@dataclass(frozen=True)
class Mended:
    noticed_by: str
    deeds: tuple[str, ...]


@dataclass(frozen=True)
class ServerLocked:
    server: bytes
    terms: Optional[str]  # none: the lock is over
    reason: str


@dataclass(frozen=True)
class BackupHeld:
    backup: bytes
    held: bool
    reason: str


@dataclass(frozen=True)
class ServerOrigin:
    server: bytes
    source: Optional[bytes]
    name: str
    backup: Optional[bytes]
    moment: Optional[int]
    restored: Optional[int]


def read_tsid(cur: Cursor) -> tuple[str, str]:
    """UUID and tag of a source of MySQL."""
    uuid = cur.ident().hex()
    tag = cur.take(cur.u8())
    if not re.fullmatch(rb"|[a-z_][a-z0-9_]{0,31}", tag):
        raise cur.bad(f"tag {tag!r} is not allowed")
    return "-".join((uuid[:8], uuid[8:12], uuid[12:16], uuid[16:20], uuid[20:])), tag.decode()


def read_mysql_gtids(cur: Cursor) -> Iterator[str]:
    """A text for each UUID, its tags together, as the server writes it."""
    parts: dict[str, str] = {}
    before: Optional[tuple[str, str]] = None
    for _ in range(cur.varint()):
        uuid, tag = read_tsid(cur)
        if before is not None and (uuid, tag) <= before:
            raise cur.bad("sources of a GTID set do not rise")
        before = (uuid, tag)
        text, last = f":{tag}" if tag else "", 0
        intervals = cur.varint()
        if intervals == 0:
            raise cur.bad("a source without an interval")
        for place in range(intervals):
            gap, more = cur.varint(), cur.varint()
            if gap < (2 if place else 1):
                raise cur.bad("intervals of a GTID set touch or do not rise")
            first = last + gap
            last = first + more
            if last > GNO_MAX:
                raise cur.bad(f"transaction number {last} is too high")
            text += f":{first}" if first == last else f":{first}-{last}"
        parts[uuid] = parts.get(uuid, uuid) + text
    yield from parts.values()


def read_mariadb_gtid(cur: Cursor) -> tuple[int, str]:
    domain, server, sequence = cur.varint(), cur.varint(), cur.varint()
    if domain >> 32 or server >> 32:
        raise cur.bad(f"GTID {domain}-{server}-{sequence} has a domain or server of more than 32 bits")
    return domain, f"{domain}-{server}-{sequence}"


def read_mariadb_gtids(cur: Cursor) -> Iterator[str]:
    before = -1
    for _ in range(cur.varint()):
        domain, text = read_mariadb_gtid(cur)
        if domain <= before:
            raise cur.bad("domains of a GTID set do not rise")
        before = domain
        yield text


def read_gtid(cur: Cursor) -> str:
    """One GTID, as an index of transactions names its sources."""
    if cur.choice(GTID_FAMILIES, "family of a GTID") == "mariadb":
        return read_mariadb_gtid(cur)[1]
    uuid, tag = read_tsid(cur)
    return ":".join(part for part in (uuid, tag, str(cur.varint())) if part)


def read_gtid_set(cur: Cursor) -> GtidSet:
    family = cur.choice(GTID_FAMILIES, "family of a GTID set")
    return GtidSet(family, tuple((read_mysql_gtids if family == "mysql" else read_mariadb_gtids)(cur)))


def gtid_blob(cur: Cursor) -> GtidSet:
    inner = Cursor(cur.blob(LIMIT_GTIDS, "GTID set"), cur.obj, f"{cur.place}, GTID set")
    gtids = read_gtid_set(inner)
    inner.end()
    return gtids


def read_position(cur: Cursor) -> Position:
    return Position(cur.text(LIMIT_TEXT, "name of a binlog file"), cur.u64(), gtid_blob(cur))


def read_stream(cur: Cursor) -> Stream:
    return Stream(cur.ident(), cur.ident(), cur.u32())


def read_segment_ids(cur: Cursor) -> tuple[bytes, ...]:
    return tuple(cur.ident() for _ in range(cur.count(LIMIT_RECORD // 16, 16, "segments")))


def read_healings(cur: Cursor) -> dict[bytes, int]:
    return {cur.ident(): cur.u32() for _ in range(cur.count(LIMIT_RECORD // 20, 20, "segments"))}


def read_deeds(cur: Cursor) -> tuple[str, ...]:
    return tuple(cur.text(LIMIT_TEXT) for _ in range(cur.count(LIMIT_FACTS, 4, "deeds")))


def read_server(cur: Cursor) -> ServerPut:
    ident, name = cur.ident(), cur.text(LIMIT_NAME, "name of a server")
    family = cur.choice({0: "unknown", 1: "MySQL", 2: "MariaDB"}, "family of a server")
    if cur.choice({1: "network", 2: "folder"}, "kind of server") == "network":
        place: dict = {"host": cur.text(LIMIT_TEXT), "port": cur.u16()}
        place["socket"] = cur.option(lambda: cur.text(LIMIT_TEXT))
    else:
        place = {"folder": cur.text(LIMIT_TEXT)}
    return ServerPut(ident, name, family, place, cur.option(cur.ident), cur.text(LIMIT_TEXT), cur.i64())


def read_coordinates(cur: Cursor) -> Coordinates:
    count = cur.u8()
    if count > 2:
        raise cur.bad(f"coordinates of kind {count} are not known")
    return Coordinates(tuple(read_position(cur) for _ in range(count)))


def read_facts(cur: Cursor) -> dict[str, str]:
    facts: dict[str, str] = {}
    last: Optional[bytes] = None
    for _ in range(cur.count(LIMIT_FACTS, 8, "facts")):
        key = cur.text(LIMIT_NAME, "name of a fact")
        if last is not None and key.encode() <= last:
            raise cur.bad("keys of the facts do not rise")
        last = key.encode()
        facts[key] = cur.text(LIMIT_FACT, "value of a fact")
    return facts


def read_backup(cur: Cursor) -> BackupCommitted:
    return BackupCommitted(
        ident=cur.ident(),
        server=cur.ident(),
        source=cur.choice({1: "clone", 2: "xbstream", 3: "folder", 4: "snapshot"}, "source of a backup"),
        begin=cur.i64(),
        end=cur.i64(),
        parent=cur.option(cur.ident),
        map=cur.address(),
        coordinates=read_coordinates(cur),
        facts=read_facts(cur),
        note=cur.text(LIMIT_TEXT, "note"),
        stats=BackupStats(*(cur.u64() for _ in range(12))),
        warnings=tuple(cur.text(LIMIT_TEXT, "warning") for _ in range(cur.count(LIMIT_FACTS, 4, "warnings"))),
    )


def read_log_sealed(cur: Cursor) -> LogSealed:
    return LogSealed(
        stream=read_stream(cur),
        number=cur.u64(),
        segment=cur.ident(),
        start=read_position(cur),
        end=read_position(cur),
        gtids_before=gtid_blob(cur),
        gtids_after=gtid_blob(cur),
        first_commit=cur.i64(),
        last_commit=cur.i64(),
        transactions=cur.u64(),
        events=cur.u64(),
        event_bytes=cur.u64(),
    )


RECORD_READERS: dict[int, Callable[[Cursor], object]] = {
    1: lambda cur: RepoCreated(cur.ident(), cur.text(LIMIT_TEXT, "program")),
    2: read_server,
    3: lambda cur: ServerRemoved(cur.ident()),
    4: read_backup,
    5: lambda cur: BackupForgotten(cur.ident(), cur.text(LIMIT_TEXT, "reason")),
    6: lambda cur: CoordinatesLearned(cur.ident(), read_position(cur)),
    7: read_log_sealed,
    8: lambda cur: LogGap(read_stream(cur), read_position(cur), cur.text(LIMIT_TEXT, "reason"), cur.i64()),
    9: lambda cur: Report(cur.ident(), cur.text(LIMIT_TEXT), cur.i64(), cur.blob(LIMIT_RECORD, "report")),
    10: lambda cur: SegmentList("condemned", read_segment_ids(cur)),
    11: lambda cur: SegmentList("spared", read_segment_ids(cur)),
    12: lambda cur: SegmentList("deleted", read_segment_ids(cur)),
    13: lambda cur: SegmentsCarried(cur.ident(), read_segment_ids(cur)),
    14: lambda cur: BackupLocked(cur.ident(), cur.i64()),
    15: lambda cur: KeysChanged(cur.text(LIMIT_TEXT, "change of keys")),
    16: lambda cur: Healed(cur.text(LIMIT_TEXT), read_healings(cur)),
    17: lambda cur: Scrubbed(cur.i64(), cur.option(cur.ident), cur.u64(), cur.u64(), read_segment_ids(cur)),
    18: lambda cur: Mended(cur.text(LIMIT_TEXT), read_deeds(cur)),
    19: lambda cur: ServerLocked(
        cur.ident(), cur.option(lambda: cur.text(LIMIT_TEXT, "terms")), cur.text(LIMIT_TEXT, "reason")
    ),
    20: lambda cur: BackupHeld(
        cur.ident(), cur.choice({0: "released", 1: "held"}, "hold") == "held", cur.text(LIMIT_TEXT, "reason")
    ),
    21: lambda cur: ServerOrigin(
        cur.ident(), cur.option(cur.ident), cur.text(LIMIT_TEXT, "name of a server"),
        cur.option(cur.ident), cur.option(cur.i64), cur.option(cur.i64),
    ),
}
