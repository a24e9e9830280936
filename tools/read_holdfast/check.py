"""Reads and verifies every byte of a repository."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from typing import Callable, Optional

from .limits import HASH, LIMIT_ROOTS, PAGE
from .errors import Damage
from .wire import Address, Cursor
from .crypto import digest
from .objects import ByteSource, ObjectStore, hashed_body
from .keyring import Keys
from .manifest import check_packs
from .records import BackupCommitted, Stream
from .segments import FRAME_KINDS, KIND_BLOCK, KIND_INDEX, KIND_META, Entry, SealedSegment
from .parity import Parity, ParityLayout, parse_parity_table
from .logs import LogSegment, archived_files, check_txn_index, check_zero_padding, describe_log_meta
from .maps import MapFile, Run, wrong_references
from .repository import Repository
from .restore import compare_run_with_entry


class Checker:
    """Reads and verifies every byte of a repository; findings go to the repository's journal."""

    def __init__(self, repo: Repository):
        self.repo, self.journal, self.store = repo, repo.journal, repo.store
        self.live: dict[bytes, set[int]] = defaultdict(set)  # birth -> slots that a backup needs
        self.counts: Counter = Counter(records=len(repo.records))

    def run(self) -> None:
        check_packs(self.store, self.repo.keys, self.repo.records, self.journal)
        for backup in self.repo.backups.values():
            self._backup(backup)
        for name in self.store.names("segments"):
            self._segment_object(name)
        self._carriers()
        self._logs()
        for name in self.store.names("sessions"):
            self._session(name)
        self._strangers()

    def _guard(self, work: Callable, *args) -> None:
        try:
            work(*args)
        except Damage as error:
            self.journal.caught(error)

    # Backups

    def _backup(self, backup: BackupCommitted) -> None:
        self.counts["backups"] += 1
        if backup.server not in self.repo.server_names:
            self.journal.note("manifest", f"backup {backup.name}", "is of a server that no record names")
        try:
            found = self.repo.map_of(backup)
        except Damage as error:
            self.journal.caught(error)
            return
        stats, root = backup.stats, found.root
        told = (stats.files, stats.file_bytes, stats.addressed, stats.zeros, stats.holes)
        if told != (root.files, root.file_bytes, root.addressed, root.zeros, root.holes):
            self.journal.note("manifest", f"backup {backup.name}", "its numbers are not those of its map")
        for problem in wrong_references(found):
            self.journal.note("map", f"tables of segments of backup {backup.name}", problem)
        for address in (backup.map, *root.tables, *root.leaves):
            self.live[address.segment].add(address.slot)
        for file in found.files:
            self.counts["files"] += 1
            for run in file.runs:
                if run.kind == "data":
                    self._run(backup, file, run)

    def _run(self, backup: BackupCommitted, file: MapFile, run: Run) -> None:
        place = f"needed by backup {backup.name}, file {file.text_path}"
        for k in range(run.count):
            self.live[run.start.segment].add(run.start.slot + k)
            try:
                segment, entry = self.repo.entry(run.address(k), KIND_BLOCK)
                compare_run_with_entry(run, k, entry, segment.source.name)
                self._live_bases(entry)
            except Damage as error:
                self.journal.damage(error.obj, error.place, f"{error.problem}; {place}")
                if not self.store.has(error.obj):
                    return

    def _live_bases(self, entry: Entry) -> None:
        while entry.base is not None:
            slots = self.live[entry.base.segment]
            if entry.base.slot in slots:
                return
            slots.add(entry.base.slot)
            entry = self.repo.entry(entry.base, KIND_BLOCK)[1]

    # Segments

    def _segment_object(self, name: str) -> None:
        obj = f"segments/{name}"
        if not re.fullmatch(r"[0-9a-f]{32}", name):
            self.journal.note(obj, "", "is not the name of a segment")
            return
        segment = bytes.fromhex(name)
        if segment in self.repo.deleted:
            self.journal.note(obj, "", "a record says it is deleted; not looked at")
            return
        self.counts["segments"] += 1
        source = self.store.open(obj)
        if source is None:
            return
        self.counts["bytes"] += source.size
        try:
            self._sealed_segment(source, segment)
        except Damage as error:
            self._broken_segment(source, segment, error)
        finally:
            source.close()

    def _broken_segment(self, source: ByteSource, segment: bytes, error: Damage) -> None:
        parity = Parity.find(source, segment, self.repo.keys)
        if not self._needed(segment) and self._never_sealed(source, parity):
            self.journal.note(source.name, "trailer", "was never sealed; nothing refers to it")
            return
        self.journal.caught(error)
        if parity:
            self._tell_of_repair(source, parity)

    def _needed(self, segment: bytes) -> bool:
        births = {birth for birth, carrier in self.repo.carriers.items() if carrier == segment}
        if self.repo.object_of(segment) == segment:
            births.add(segment)
        return segment in self.repo.carriers.values() or any(self.live.get(birth) for birth in births)

    @staticmethod
    def _never_sealed(source: ByteSource, parity: Optional[Parity]) -> bool:
        """Whether the object can be one whose writer died, rather than a damaged one."""
        if parity is not None:
            return source.size < parity.layout.offset + parity.layout.size + PAGE
        if source.size < 2 * PAGE or source.size % PAGE:
            return True
        last = source.read(source.size - PAGE, PAGE)
        return last[:8] != b"HFTRAIL\0" and digest(last[:-HASH]) != last[-HASH:]

    def _tell_of_repair(self, source: ByteSource, parity: Parity) -> None:
        data, shards = parity.bad_shards()
        if parity.rebuild():
            what = f"can give back {len(data)} damaged data shards" if data else "shows that the data is whole"
            self.journal.note(source.name, "parity", what)
        else:
            lost = f"{len(data)} data and {len(shards)} parity shards are damaged: more than it can give back"
            self.journal.damage(source.name, "parity", lost)

    def _sealed_segment(self, source: ByteSource, segment: bytes) -> None:
        """Raises what spoils the segment as a whole; reports the rest."""
        opened = SealedSegment(source, segment, self.repo.keys)
        findings = len(self.journal.findings)
        for address, entry in opened.addresses():
            self._frame(opened, address, entry)
        if opened.frames.frames_hash(opened.entries) != opened.trailer.frames_hash:
            self.journal.damage(source.name, "trailer", "hash over the frames' headers and tags does not match")
        self._guard(check_zero_padding, source, source, opened.trailer)
        if opened.trailer.shard_size:
            self._parity(opened, len(self.journal.findings) > findings)

    def _frame(self, opened: SealedSegment, address: Address, entry: Entry) -> None:
        self.counts["frames"] += 1
        try:
            opened.read(entry, self.repo.base)
        except Damage as error:
            own = error.obj == opened.source.name
            if own or address.slot in self.live.get(address.segment, ()):
                self.journal.caught(error)
            else:
                what = f"its base cannot be read; no backup needs it ({error})"
                self.journal.note(opened.source.name, f"frame {address}", what)

    def _parity(self, opened: SealedSegment, damaged: bool) -> None:
        source, layout = opened.source, ParityLayout.of(opened.trailer.parity_offset)
        if source.read(layout.offset, PAGE) != source.read(source.size - PAGE, PAGE):
            self.journal.damage(source.name, f"byte {layout.offset}", "copy of the trailer differs from it")
        tables = []
        for offset in layout.tables:
            try:
                data = source.read(offset, layout.table_room)
                tables.append(parse_parity_table(data, source.name, offset, opened.segment, self.repo.keys))
            except Damage as error:
                self.journal.caught(error)
        if not tables:
            return
        if any(table.raw != tables[0].raw for table in tables) or tables[0].layout != layout:
            self.journal.damage(source.name, "parity table", "differs from its other copy or from the trailer")
            return
        parity = Parity(source, tables[0])
        data, shards = parity.bad_shards()
        for index in data:
            self.journal.damage(source.name, f"data shard {index}", "does not match its hash in the parity's table")
        for index in shards:
            self.journal.damage(source.name, f"parity shard {index}", "does not match its hash in the parity's table")
        if damaged or data or shards:
            self._tell_of_repair(source, parity)
        elif [v.shard() for v in parity.encoded()] != [parity.parity_shard(i) for i in range(layout.parity)]:
            self.journal.damage(source.name, "parity shards", "are not the parity of the data")

    def _carriers(self) -> None:
        """Every birth that a record says is carried must be among its carrier's births."""
        for birth, carrier in self.repo.carriers.items():
            if carrier in self.repo.deleted and not self.live.get(birth):
                continue
            try:
                births = {b.segment for b in self.repo.segment(carrier).header.births}
            except Damage as error:
                self.journal.caught(error)
                continue
            if birth not in births:
                self.journal.damage(f"segments/{carrier.hex()}", "header", f"does not carry {birth.hex()}")

    # Logs, sessions, others

    def _logs(self) -> None:
        for stream, logs in self.repo.log_segments().items():
            for log in logs:
                self.counts["logs"] += 1
                self.counts["bytes"] += log.reader.source.size
                self._log_frames(log)
            for archived in archived_files(logs).values():
                for log, end, problem in archived.problems:
                    self._log_problem(stream, archived.file, end, log, problem)

    def _log_problem(self, stream: Stream, file: str, end: int, log: LogSegment, problem: str) -> None:
        if known_gap(self.repo, stream, file, end):
            self.journal.note(log.name, "events", f"{problem}; a record tells of a gap there")
        else:
            self.journal.damage(log.name, "events", problem)

    def _log_frames(self, log: LogSegment) -> None:
        for frame in log.frames:
            self.counts["frames"] += 1
            if frame.header.kind not in (KIND_INDEX, KIND_META):
                continue
            read = check_txn_index if frame.header.kind == KIND_INDEX else describe_log_meta
            place = f"frame at {frame.offset}, {FRAME_KINDS[frame.header.kind]}"
            try:
                read(log.plaintext(frame), log.name, place)
            except Damage as error:
                self.journal.note(error.obj, error.place, f"not understood: {error.problem}")

    def _session(self, name: str) -> None:
        self.counts["sessions"] += 1
        self._guard(check_session, self.store, f"sessions/{name}", self.repo.keys)

    def _strangers(self) -> None:
        known = {"keyring", "manifest", "manifest2", "packs", "head", "segments", "logs", "sessions", "locks", "quarantine"}
        for path in sorted(self.store.root.iterdir()):
            if path.name not in known and not path.name.startswith("."):
                self.journal.note(path.name, "", "the format does not tell of it")


def check_session(store: ObjectStore, name: str, keys: Keys) -> None:
    data = store.load(name, 60 + 20 * LIMIT_ROOTS + HASH)
    if data is None:
        return
    cur = Cursor(hashed_body(data, name), name, "session")
    cur.magic(b"HFSESS\0\0")
    cur.version()
    kind = cur.u32()
    if kind not in (1, 2, 3, 4):
        raise cur.bad(f"kind {kind} of a session is not known")
    cur.expect(keys.repository, "repository id")
    if cur.ident().hex() != name.split("/")[1]:
        raise cur.bad("its id is not its name")
    cur.u64()
    for _ in range(cur.count(LIMIT_ROOTS, 20, "roots")):
        cur.address()
    cur.end()


def known_gap(repo: Repository, stream: Stream, file: str, offset: int) -> bool:
    """Whether a record tells of a gap that begins there."""
    return any((gap.stream, gap.covered.file, gap.covered.offset) == (stream, file, offset) for gap in repo.gaps)
