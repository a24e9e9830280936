"""The repository as a whole: what the records leave, frames by address, maps, logs."""

from __future__ import annotations

import re
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Callable, Optional

from .errors import Damage, Journal, NoRepository, NotThere, UsageError
from .wire import Address, Cursor
from .objects import ByteSource, MemorySource, ObjectStore
from .keyring import Credentials, open_keys
from .records import (
    BackupCommitted, BackupForgotten, CoordinatesLearned, Position, LogGap, LogSealed, RepoCreated, SegmentList,
    SegmentsCarried, ServerPut, ServerRemoved, Stream,
)
from .manifest import ManifestReader
from .segments import FRAME_KINDS, KIND_BLOCK, KIND_LEAF, KIND_ROOT, KIND_TABLE, Entry, SealedSegment
from .parity import Parity
from .logs import LogReader, LogSegment
from .maps import (
    BackupMap, MapParser, SegmentUse, check_map_totals, check_paths_as_tree, parse_map_root, parse_map_table,
)


class Cache:
    """The last few results of something costly."""

    def __init__(self, size: int, dropped: Callable = lambda value: None):
        self._size, self._dropped, self._items = size, dropped, OrderedDict()

    def get(self, key):
        if key in self._items:
            self._items.move_to_end(key)
            return self._items[key]
        return None

    def put(self, key, value) -> None:
        self._items[key] = value
        self._items.move_to_end(key)
        while len(self._items) > self._size:
            self._dropped(self._items.popitem(last=False)[1])


class Repository:
    def __init__(self, root: Path, given: Credentials):
        self.journal = Journal()
        self.store = ObjectStore(root)
        if not root.is_dir():
            raise NoRepository(f"{root}: no such folder")
        self.keys = open_keys(self.store, given, self.journal)
        self.records = ManifestReader(self.store, self.keys, self.journal).read()
        self._segments = Cache(48, lambda segment: segment.close())
        self._blocks = Cache(64)
        self._hopeless: set[bytes] = set()  # segments that their parity cannot give back
        self._replay()

    # What the records say

    def _replay(self) -> None:
        self.servers: dict[bytes, ServerPut] = {}
        self.backups: dict[bytes, BackupCommitted] = {}
        self.learned: dict[bytes, Position] = {}
        self.carriers: dict[bytes, bytes] = {}
        self.deleted: set[bytes] = set()
        self.condemned: set[bytes] = set()
        self.sealed_logs: dict[bytes, LogSealed] = {}
        self.gaps: list[LogGap] = []
        forgotten = set()
        self.server_names: dict[bytes, str] = {}
        for record in self.records:
            match record.body:
                case RepoCreated() as created:
                    if created.repository != self.keys.repository:
                        self.journal.damage("manifest", record.place, "was made in another repository")
                case ServerPut() as server:
                    self.servers[server.ident] = server
                    self.server_names[server.ident] = server.name
                case ServerRemoved() as removed:
                    self.servers.pop(removed.server, None)
                case BackupCommitted() as backup:
                    self.backups[backup.ident] = backup
                case BackupForgotten() as gone:
                    forgotten.add(gone.backup)
                case CoordinatesLearned() as learned:
                    self.learned[learned.backup] = learned.position
                case LogSealed() as log:
                    self.sealed_logs[log.segment] = log
                case LogGap() as gap:
                    self.gaps.append(gap)
                case SegmentList(verb="condemned") as said:
                    self.condemned.update(said.segments)
                case SegmentList(verb="spared") as said:
                    self.condemned.difference_update(said.segments)
                case SegmentList(verb="deleted") as said:
                    self.deleted.update(said.segments)
                case SegmentsCarried() as carried:
                    self.carriers.update({birth: carried.carrier for birth in carried.births})
                case None:
                    what = f"kind {record.kind}, version {record.kind_version}: not known, skipped"
                    self.journal.note("manifest", record.place, what)
        for ident in forgotten:
            self.backups.pop(ident, None)
        for segment in [segment for segment in self.sealed_logs if segment in self.deleted]:
            del self.sealed_logs[segment]

    def server_name(self, ident: bytes) -> str:
        return self.server_names.get(ident, ident.hex())

    def find_backup(self, text: str) -> BackupCommitted:
        found = [backup for backup in self.backups.values() if text and backup.name.startswith(text.lower())]
        if len(found) > 1:
            raise UsageError(f"{text} begins the ids of {len(found)} backups")
        if not found:
            raise NotThere(f"no backup {text} in the repository")
        return found[0]

    # Frames by address

    def object_of(self, birth: bytes) -> bytes:
        """The segment whose object holds the frames of this birth."""
        return self.carriers.get(birth, birth)

    def segment(self, segment: bytes) -> SealedSegment:
        opened = self._segments.get(segment)
        if opened is None:
            name = f"segments/{segment.hex()}"
            source = self.store.open(name)
            if source is None:
                why = ", a record says it was deleted" if segment in self.deleted else ""
                raise Damage(name, "", f"missing{why}")
            try:
                opened = SealedSegment(source, segment, self.keys)
            except Damage as error:
                try:
                    opened = self._repair(source, segment, error)
                finally:
                    source.close()
            self._segments.put(segment, opened)
        return opened

    def _repair(self, source: ByteSource, segment: bytes, error: Damage) -> SealedSegment:
        """The segment as its parity gives it back; raises `error` where it cannot."""
        if segment in self._hopeless or isinstance(source, MemorySource):
            raise error
        parity = Parity.find(source, segment, self.keys)
        whole = parity and parity.rebuild()
        if not whole:
            self._hopeless.add(segment)
            raise error
        opened = SealedSegment(whole, segment, self.keys)
        self.journal.damage(error.obj, error.place, f"{error.problem} (read with the help of its parity)")
        return opened

    def entry(self, address: Address, kind: int) -> tuple[SealedSegment, Entry]:
        segment = self.segment(self.object_of(address.segment))
        entry = segment.find(address)
        if entry is None:
            raise Damage(segment.source.name, f"frame {address}", "there is no such frame in the footer")
        if entry.kind != kind:
            what = f"is a {FRAME_KINDS[entry.kind]}, expected a {FRAME_KINDS[kind]}"
            raise Damage(segment.source.name, f"frame {address}", what)
        return segment, entry

    def frame(self, address: Address, kind: int, depth: Optional[int] = None) -> bytes:
        """The plaintext of a frame, verified."""
        cached = self._blocks.get(address) if kind == KIND_BLOCK else None
        if cached is not None and depth in (None, cached[0]):
            return cached[1]
        segment, entry = self.entry(address, kind)
        if depth is not None and entry.depth != depth:
            raise Damage(segment.source.name, f"frame {address}", f"has depth {entry.depth}, expected {depth}")
        try:
            plain = segment.read(entry, self.base)
        except Damage as error:
            if error.obj != segment.source.name:
                raise
            damaged, segment = segment, self._repair(segment.source, segment.segment, error)
            damaged.close()
            self._segments.put(segment.segment, segment)
            plain = segment.read(entry, self.base)
        if kind == KIND_BLOCK:
            self._blocks.put(address, (entry.depth, plain))
        return plain

    def base(self, address: Address, depth: int) -> bytes:
        return self.frame(address, KIND_BLOCK, depth)

    def map_of(self, backup: BackupCommitted) -> BackupMap:
        obj, place = self._map_place(backup, backup.map, KIND_ROOT)
        root = parse_map_root(self._map_frame(backup, backup.map, KIND_ROOT))
        segments: list[SegmentUse] = []
        for address in root.tables:
            segments += parse_map_table(self._map_frame(backup, address, KIND_TABLE), len(segments))
        if len(segments) != root.segments:
            raise Damage(obj, place, f"tells {root.segments} segments, its tables {len(segments)}")
        parser = MapParser(segments)
        for address in root.leaves:
            parser.leaf(self._map_frame(backup, address, KIND_LEAF))
        found = BackupMap(root, segments, parser.files)
        check_map_totals(found, obj, place)
        check_paths_as_tree(found.files, obj, place)
        return found

    def _map_frame(self, backup: BackupCommitted, address: Address, kind: int) -> Cursor:
        return Cursor(self.frame(address, kind), *self._map_place(backup, address, kind))

    def _map_place(self, backup: BackupCommitted, address: Address, kind: int) -> tuple[str, str]:
        """Object and place of a map's frame, for errors."""
        obj = f"segments/{self.object_of(address.segment).hex()}"
        return obj, f"{FRAME_KINDS[kind]} {address} of backup {backup.name}"

    # Logs

    def log_segments(self) -> dict[Stream, list[LogSegment]]:
        """Every stream's segments that hold something, in the order of their numbers."""
        reader = LogReader(self.store, self.keys, self.journal)
        streams: dict[Stream, list[LogSegment]] = defaultdict(list)
        for segment in self._log_ids():
            try:
                log = reader.open(segment, self.sealed_logs.get(segment))
            except Damage as error:
                self.journal.caught(error)
                continue
            if log.opening is None:
                if log.record:
                    self.journal.damage(log.name, "frame 0", "a sealed log without an opening")
                else:
                    self.journal.note(log.name, "", "holds no whole frame 0, so nothing")
                continue
            self._compare_with_record(log)
            streams[log.opening.stream].append(log)
        for stream, logs in streams.items():
            logs.sort(key=lambda log: log.opening.number)
            self._check_numbers(stream, logs)
        return dict(streams)

    def _log_ids(self) -> list[bytes]:
        idents, feet = set(), set()
        for name in self.store.names("logs"):
            match = re.fullmatch(r"([0-9a-f]{32})(\.foot)?", name)
            if not match:
                self.journal.note(f"logs/{name}", "", "is not the name of a log")
            elif bytes.fromhex(match[1]) in self.deleted:
                self.journal.note(f"logs/{name}", "", "a record says it is deleted")
            else:
                (feet if match[2] else idents).add(bytes.fromhex(match[1]))
        for lonely in feet - idents - set(self.sealed_logs):
            self.journal.damage(f"logs/{lonely.hex()}.foot", "", "a detached footer without its log")
        return sorted(idents | set(self.sealed_logs))

    def _compare_with_record(self, log: LogSegment) -> None:
        record, opening = log.record, log.opening
        if record and (record.stream, record.number) != (opening.stream, opening.number):
            self.journal.damage(log.name, "log opening", "names another stream or number than its record")
        if record and (record.start.file, record.start.offset) != (opening.position.file, opening.position.offset):
            what = f"says {opening.position}, its record {record.start}"
            self.journal.note(log.name, "log opening", what)
        if record and record.start.file == record.end.file:
            size = record.end.offset - record.start.offset
            if record.event_bytes != size:
                what = f"tells of {record.event_bytes} bytes of events between positions {size} bytes apart"
                self.journal.note(log.name, "its record", what)

    def _check_numbers(self, stream: Stream, logs: list[LogSegment]) -> None:
        for log, following in zip(logs, logs[1:]):
            step = following.opening.number - log.opening.number
            if step == 0:
                self.journal.damage(following.name, "log opening", f"has the number of {log.name}")
            elif step > 1:
                what = f"follows number {log.opening.number}; those between are not there"
                self.journal.note(following.name, f"number {following.opening.number}", what)
