"""Log segments and the binlog files in them: format-spec/log.md, log_meta.md, txn_index.md."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Callable, Optional

from .limits import LIMIT_FRAMES, LIMIT_SEGMENT, PAGE
from .errors import Damage, Journal
from .wire import Cursor, round_up
from .crypto import keyed
from .objects import ByteSource, ObjectStore
from .keyring import Keys
from .records import LogSealed, Position, Stream, read_gtid, read_position, read_stream
from .segments import (
    DELTA, FRAME_HEADER, KIND_EVENTS, KIND_INDEX, KIND_META, KIND_OPENING, Entry, FrameHeader, FrameReader,
    SegmentHeader, Trailer, decode, open_footer, parse_frame_header, parse_segment_header, parse_trailer,
)
from .parity import read_padded

SECTOR = 512


@dataclass(frozen=True)
class LogOpening:
    stream: Stream
    number: int
    position: Position
    opened: int


@dataclass(frozen=True)
class LogFrame:
    offset: int
    header: FrameHeader


@dataclass
class LogSegment:
    """A log segment as far as its frames count.  `opening` is None where it holds nothing."""

    name: str
    segment: bytes
    opening: Optional[LogOpening]
    frames: list[LogFrame]
    reader: Optional[FrameReader]
    record: Optional[LogSealed]

    @property
    def sealed(self) -> bool:
        return self.record is not None

    @property
    def event_frames(self) -> list[LogFrame]:
        return [f for f in self.frames if f.header.kind == KIND_EVENTS]

    @property
    def event_bytes(self) -> int:
        return sum(f.header.plain_size for f in self.event_frames)

    def plaintext(self, frame: LogFrame) -> bytes:
        encoded = self.reader.encoded(frame.offset, frame.header)
        return decode(frame.header, encoded, None, self.name, f"frame at {frame.offset}")


def parse_opening(plain: bytes, name: str) -> LogOpening:
    cur = Cursor(plain, name, "log opening")
    cur.version()
    opening = LogOpening(read_stream(cur), cur.u64(), read_position(cur), cur.i64())
    cur.end()
    return opening


class Misplaced(Damage):
    """A whole and authentic frame that cannot be there: no crash makes one."""


def read_log_frame(reader: FrameReader, offset: int, slot: int, end: int) -> tuple[LogFrame, bytes]:
    """The frame that must stand at `offset`, and its plaintext."""
    name, place = reader.source.name, f"frame at {offset}, slot {slot}"
    if offset + FRAME_HEADER > end:
        raise Damage(name, place, "is cut short")
    header = reader.header_at(offset)
    if header.slot != slot:
        raise Damage(name, place, f"has slot {header.slot}")
    if offset + FRAME_HEADER + header.stored_size > end:
        raise Damage(name, place, "is cut short")
    encoded = reader.encoded(offset, header)
    if header.kind not in (KIND_OPENING, KIND_EVENTS, KIND_INDEX, KIND_META) or header.codec == DELTA:
        raise Misplaced(name, place, "does not belong into a log")
    if (header.kind == KIND_OPENING) != (slot == 0):
        raise Misplaced(name, place, "the opening must be frame 0, and only that")
    return LogFrame(offset, header), decode(header, encoded, None, name, place)


class LogReader:
    """Opens one log segment by the rules of "where the frames end"."""

    def __init__(self, store: ObjectStore, keys: Keys, journal: Journal):
        self.store, self.keys, self.journal = store, keys, journal

    def open(self, segment: bytes, record: Optional[LogSealed]) -> LogSegment:
        name = f"logs/{segment.hex()}"
        log = LogSegment(name, segment, None, [], None, record)
        source = self.store.open(name)
        if source is None:
            raise Damage(name, "", "missing")
        header = self._header(source, segment, record)
        if header is None:
            return log
        log.reader = FrameReader(source, header)
        trailer, entries, footer_name = self._footer(source, header, record)
        trusted = trailer is not None and (trailer.detached or record is not None)
        end = trailer.frames_end if trailer else source.size
        stop = self._scan(log, end, entries, trailer, trusted)
        if stop is None and trailer and entries is not None:
            if log.reader.frames_hash(entries) != trailer.frames_hash:
                self.journal.damage(footer_name, "trailer", "hash over the frames' headers and tags does not match")
        if record and not trailer:
            self.journal.damage(name, "trailer", "a record says that the log is sealed, but it has no valid trailer")
        return log

    def _header(self, source: ByteSource, segment: bytes, record: Optional[LogSealed]) -> Optional[SegmentHeader]:
        name, page = source.name, read_padded(source, 0, PAGE)
        unwritten = source.size < PAGE or not any(page)
        if unwritten and record is None and not self.store.has(f"{name}.foot"):
            self.journal.note(name, "header", "was never written whole; the log holds nothing")
            return None
        header = parse_segment_header(page, name, segment, {"log"}, self.keys)
        if len(header.births) != 1:
            raise Damage(name, "header", "a log cannot carry frames of others")
        return header

    def _footer(self, source: ByteSource, header: SegmentHeader, record: Optional[LogSealed]):
        """(trailer, entries, name of its object) of the footer that holds; None for what is not there."""
        detached = self._detached_footer(header, f"{source.name}.foot", source.size)
        if detached:
            return detached
        name = source.name
        if source.size < 2 * PAGE:
            return None, None, name
        try:
            last = source.read(source.size - PAGE, PAGE)
            trailer = parse_trailer(last, name, header.segment, self.keys, False)
            size = round_up(trailer.footer_offset + trailer.footer_size, PAGE) + PAGE
            if trailer.shard_size or size != source.size:
                raise Damage(name, "trailer", "does not fit the object's size")
        except Damage as error:
            if read_padded(source, source.size - PAGE, 8) == b"HFTRAIL\0" and source.size % PAGE == 0:
                self.journal.caught(error)
            return None, None, name
        return trailer, self._entries(source, source, trailer, header, record is not None), name

    def _entries(self, source, footer_source, trailer, header, trusted: bool) -> Optional[list[Entry]]:
        try:
            entries = open_footer(footer_source, trailer, header, footer_source.name)
            check_zero_padding(source, footer_source, trailer)
            return entries
        except Damage as error:
            if trusted:
                self.journal.caught(error)
            else:
                self.journal.note(error.obj, error.place, error.problem + "; perhaps never reached the disk")
            return None

    def _detached_footer(self, header: SegmentHeader, name: str, segment_size: int):
        source = self.store.open(name)
        if source is None:
            return None
        try:
            if source.size < 2 * PAGE:
                raise Damage(name, "", f"has only {source.size} bytes")
            last = source.read(source.size - PAGE, PAGE)
            trailer = parse_trailer(last, name, header.segment, self.keys, True)
            if source.size != round_up(trailer.footer_size, PAGE) + PAGE:
                raise Damage(name, "trailer", "does not fit the object's size")
            if trailer.frames_end > segment_size:
                self.journal.damage(name[: -len(".foot")], f"byte {segment_size}", "ends before the frames' end")
            return trailer, self._entries(source, source, trailer, header, True), name
        except Damage as error:
            self.journal.caught(error)
            return None
        finally:
            source.close()

    def _scan(
        self,
        log: LogSegment,
        end: int,
        entries: Optional[list[Entry]],
        trailer: Optional[Trailer],
        trusted: bool,
    ) -> Optional[Damage]:
        """Verifies the frames one by one and keeps the good ones; returns the error that ended it."""
        offset, end = PAGE, min(end, log.reader.source.size)
        limit = trailer.frames_end if trailer else end
        while offset < limit and len(log.frames) < LIMIT_FRAMES:
            try:
                frame, plain = read_log_frame(log.reader, offset, len(log.frames), end)
                if entries is not None:
                    compare_with_entry(frame, plain, entries, self.keys, log.name)
                if frame.header.kind == KIND_OPENING:
                    log.opening = self._opening(plain, log.name)
            except Damage as error:
                self._stopped(log, error, offset, end, trusted)
                return error
            log.frames.append(frame)
            offset += FRAME_HEADER + frame.header.stored_size
        return None

    @staticmethod
    def _opening(plain: bytes, name: str) -> LogOpening:
        try:
            return parse_opening(plain, name)
        except Damage as error:
            raise Misplaced(error.obj, error.place, error.problem) from None

    def _stopped(self, log: LogSegment, error: Damage, offset: int, end: int, trusted: bool) -> None:
        """Tells what an invalid frame means: damage where frames are known to follow, else a torn tail."""
        if trusted or isinstance(error, Misplaced):
            self.journal.caught(error)
            return
        claim = find_claim(log.reader.source, offset, end, len(log.frames))
        if claim:
            problem = f"{error.problem}; yet everything before byte {claim[1]} was synced, as the frame at {claim[0]} says"
            self.journal.damage(log.name, error.place, problem)
            return
        later = find_later_frame(log.reader, offset + 1, end, len(log.frames))
        if later is not None and not has_unwritten_sector(log.reader.source.read(offset, later - offset), offset):
            problem = f"{error.problem}; yet a whole frame stands behind it at {later}"
            self.journal.damage(log.name, error.place, problem)
            return
        rest = log.reader.source.read(offset, end - offset)
        if any(rest):
            tail = f"{len(rest)} bytes behind the last whole frame, never acknowledged or damaged: {error.problem}"
            self.journal.note(log.name, f"byte {offset}", tail)


def check_zero_padding(source: ByteSource, footer_source: ByteSource, trailer: Trailer) -> None:
    """Zeros between frames and footer, and behind the footer."""
    if not trailer.detached:
        gap = source.read(trailer.frames_end, trailer.footer_offset - trailer.frames_end)
        if any(gap):
            raise Damage(source.name, f"byte {trailer.frames_end}", "padding behind the frames is not zero")
    end = trailer.footer_offset + trailer.footer_size
    if any(footer_source.read(end, round_up(end, PAGE) - end)):
        raise Damage(footer_source.name, f"byte {end}", "padding behind the footer is not zero")


def compare_with_entry(frame: LogFrame, plain: bytes, entries: list[Entry], keys: Keys, name: str) -> None:
    place, header = f"frame at {frame.offset}", frame.header
    if header.slot >= len(entries):
        raise Damage(name, place, "the footer does not tell of it")
    entry = entries[header.slot]
    told = (entry.offset, entry.kind, entry.codec, entry.depth, entry.birth, entry.plain_size, entry.stored_size)
    says = (frame.offset, header.kind, header.codec, header.depth, header.birth, header.plain_size, header.stored_size)
    if told != says:
        raise Damage(name, place, "its header says something else than the footer")
    if keyed(keys.block_id, plain) != entry.ident:
        raise Damage(name, place, "its id does not match its plaintext")


def has_unwritten_sector(data: bytes, offset: int) -> bool:
    """Whether a crash kept a sector of these bytes, which begin at `offset`, from being written."""
    head = -offset % SECTOR
    if head >= 8 and len(data) >= head and not any(data[:head]):
        return True
    return any(not any(data[at : at + SECTOR]) for at in range(head, len(data) - SECTOR + 1, SECTOR))


def find_claim(source: ByteSource, offset: int, end: int, slot: int) -> Optional[tuple[int, int]]:
    """A frame behind `offset`, and the durable end it names, if what lies at `offset` was durable by that."""
    if end <= offset + 1 or end - offset > LIMIT_SEGMENT:
        return None
    data = source.read(offset, end - offset)
    at = data.find(b"HFfr", 1)
    while at >= 0:
        try:
            header = parse_frame_header(data[at : at + FRAME_HEADER], source.name, f"frame at {offset + at}")
            if header.slot >= slot and offset < header.durable_end <= offset + at:
                return offset + at, header.durable_end
        except Damage:
            pass
        at = data.find(b"HFfr", at + 1)
    return None


def find_later_frame(reader: FrameReader, start: int, end: int, slot: int) -> Optional[int]:
    """Offset of a whole frame of slot `slot` or higher behind `start`, if one is there."""
    if end - start > LIMIT_SEGMENT or end <= start:
        return None
    data = reader.source.read(start, end - start)
    at = data.find(b"HFfr")
    while at >= 0:
        try:
            header = reader.header_at(start + at)
            if header.slot >= slot:
                reader.encoded(start + at, header)
                return start + at
        except Damage:
            pass
        at = data.find(b"HFfr", at + 1)
    return None


@dataclass(frozen=True)
class Stretch:
    """Bytes `begin` to `end` of a binlog file, as one segment gives them."""

    log: LogSegment
    begin: int
    end: int


@dataclass
class ArchivedFile:
    file: str
    stretches: list[Stretch] = field(default_factory=list)
    problems: list[tuple[LogSegment, int, str]] = field(default_factory=list)

    @property
    def begin(self) -> int:
        return self.stretches[0].begin

    @property
    def end(self) -> int:
        return self.stretches[-1].end


def archived_files(logs: list[LogSegment]) -> dict[str, ArchivedFile]:
    """The binlog files of one stream.  `logs` are all its segments, in the order of their numbers."""
    files: dict[str, ArchivedFile] = {}
    for place, log in enumerate(logs):
        start = log.opening.position.offset
        archived = files.setdefault(log.opening.position.file, ArchivedFile(log.opening.position.file))
        following = logs[place + 1] if place + 1 < len(logs) else None
        have = start + log.event_bytes
        end, why = have, ""
        if following and following.opening.position.file == archived.file:
            end, why = following.opening.position.offset, f"{following.name} begins"
        elif log.record and log.record.end.file == archived.file:
            end, why = log.record.end.offset, "its record says it ends"
        if have < end:
            archived.problems.append((log, have, f"its events end at {have} of {archived.file}, where {why} at {end}"))
        _append_stretch(archived, Stretch(log, start, max(start, min(have, end))))
    return files


def _append_stretch(archived: ArchivedFile, stretch: Stretch) -> None:
    """Adds a stretch; what earlier ones hold from its beginning on was cut off by a crash."""
    kept = [Stretch(s.log, s.begin, min(s.end, stretch.begin)) for s in archived.stretches if s.begin < stretch.begin]
    archived.stretches = kept + [stretch]


def write_archived_file(archived: ArchivedFile, write: Callable[[bytes], object]) -> None:
    write(b"\xfebin")
    for stretch in archived.stretches:
        left = stretch.end - stretch.begin
        for frame in stretch.log.event_frames:
            if left <= 0:
                break
            part = stretch.log.plaintext(frame)[:left]
            write(part)
            left -= len(part)


def describe_log_meta(plain: bytes, name: str, place: str) -> str:
    cur = Cursor(plain, name, place)
    cur.version()
    kinds = {1: "format description", 2: "start of a transaction", 3: "completeness", 4: "zero loss"}
    kind = cur.choice(kinds, "kind of note")
    if kind == "format description":
        text = f"format description of {len(cur.blob(1024, 'event'))} bytes"
    elif kind == "start of a transaction":
        text = f"begins inside the transaction that starts at {cur.u64()}"
    elif kind == "completeness":
        text = f"complete up to {cur.i64()} us since the epoch"
    else:
        begin, end = cur.i64(), cur.i64()
        if end < begin:
            raise cur.bad("an interval ends before it begins")
        text = f"nothing can have been lost from {begin} to {end} us since the epoch"
    cur.end()
    return text


def check_txn_index(plain: bytes, name: str, place: str) -> None:
    """Reads a whole index of transactions, which a reader need not use."""
    cur = Cursor(plain, name, place)
    cur.version()
    cur.u64()
    if cur.u32() & ~1:
        raise cur.bad("flags that must be 0 are not")
    cur.text(512, "binlog file")
    sources = [read_gtid(cur) for _ in range(cur.count(65536, 2, "sources"))]
    tables = cur.count(65536, 8, "tables")
    for _ in range(tables * 2):
        cur.blob(256, "name")
    for _ in range(cur.count(65536, 4, "entries")):
        check_txn_entry(cur, len(sources), tables)
    cur.end()


def check_txn_entry(cur: Cursor, sources: int, tables: int) -> None:
    head = cur.varint()
    if head >> 8 or head & 7 > 5:
        raise cur.bad(f"head {head} of an entry is not known")
    cur.varint(), cur.varint(), cur.varint()
    if head & 8:
        if cur.varint() >= sources:
            raise cur.bad("source that is not listed")
        cur.varint()
    named = cur.varint()
    if named > 4096:
        raise cur.bad(f"{named} tables in an entry")
    for _ in range(named):
        if cur.varint() >= tables:
            raise cur.bad("table that is not listed")
        cur.varint(), cur.varint(), cur.varint()
    if head & 16:
        for limit in (256, 4096):
            size = cur.varint()
            if size > limit:
                raise cur.bad(f"text of {size} bytes")
            cur.take(size)
