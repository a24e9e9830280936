"""Which block of which file lies where: format-spec/map.md."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from typing import Iterator, Optional

from .limits import (
    BLOCK, LIMIT_DEPTH, LIMIT_FILE, LIMIT_FILES, LIMIT_FRAMES, LIMIT_MAP_FRAMES, LIMIT_MAP_SEGMENTS, LIMIT_PATH,
    LIMIT_PLAINTEXT,
)
from .errors import Damage
from .wire import Address, Cursor

FILE_KINDS = {1: "file", 2: "folder", 3: "link", 4: "file"}
WITH_STATE = 4


@dataclass(frozen=True)
class MapRoot:
    files: int
    file_bytes: int
    addressed: int
    zeros: int
    holes: int
    segments: int
    tables: list[Address]
    leaves: list[Address]


@dataclass(frozen=True)
class SegmentUse:
    segment: bytes
    references: int
    written: bool


@dataclass(frozen=True)
class Run:
    """Blocks `first` to `first + count - 1` of a file."""

    first: int
    count: int
    kind: str  # "hole", "zero" or "data"
    depth: int = 0
    start: Optional[Address] = None
    base: Optional[Address] = None

    def address(self, k: int) -> Address:
        return Address(self.start.segment, self.start.slot + k)

    def base_address(self, k: int) -> Optional[Address]:
        return self.base and Address(self.base.segment, self.base.slot + k)


@dataclass
class MapFile:
    number: int
    kind: str
    path: bytes
    target: bytes
    size: int
    mode: int
    mtime: int
    runs: list[Run] = field(default_factory=list)

    @property
    def blocks(self) -> int:
        return -(-self.size // BLOCK)

    @property
    def text_path(self) -> str:
        return os.fsdecode(self.path)

    def count(self, kind: str) -> int:
        if kind == "hole":
            return self.blocks - self.count("zero") - self.count("data")
        return sum(run.count for run in self.runs if run.kind == kind)


@dataclass
class BackupMap:
    root: MapRoot
    segments: list[SegmentUse]
    files: list[MapFile]


def parse_map_root(cur: Cursor) -> MapRoot:
    cur.version()
    block = cur.u32()
    if block != BLOCK:
        raise cur.bad(f"block size {block}")
    files, file_bytes = cur.u32(), cur.u64()
    addressed, zeros, holes, segments = cur.u64(), cur.u64(), cur.u64(), cur.u32()
    if files > LIMIT_FILES or segments > LIMIT_MAP_SEGMENTS:
        raise cur.bad(f"{files} files, {segments} segments")
    tables = [cur.address() for _ in range(cur.count(LIMIT_MAP_FRAMES, 20, "tables"))]
    leaves = [cur.address() for _ in range(cur.count(LIMIT_MAP_FRAMES, 20, "leaves"))]
    cur.end()
    return MapRoot(files, file_bytes, addressed, zeros, holes, segments, tables, leaves)


def parse_map_table(cur: Cursor, first: int) -> list[SegmentUse]:
    cur.version()
    found = cur.u32()
    if found != first:
        raise cur.bad(f"begins with place {found}, expected {first}")
    uses = []
    for _ in range(cur.count(LIMIT_MAP_SEGMENTS, 21, "segments")):
        uses.append(SegmentUse(cur.ident(), cur.u32(), bool(cur.choice({0: "", 1: "written"}, "mark"))))
    cur.end()
    return uses


def check_path(path: bytes, cur: Cursor) -> None:
    parts = path.split(b"/")
    if not path or b"\0" in path or any(part in (b"", b".", b"..") for part in parts):
        raise cur.bad(f"path {path!r} is not allowed")


def read_run(cur: Cursor, first: int, segments: list[SegmentUse]) -> Run:
    def address() -> Address:
        place, slot = cur.varint(), cur.varint()
        if place >= len(segments):
            raise cur.bad(f"segment {place} of {len(segments)}")
        if slot + count > LIMIT_FRAMES:
            raise cur.bad(f"slots {slot} to {slot + count - 1} are too high")
        return Address(segments[place].segment, slot)

    tag, count = cur.u8(), cur.varint()
    if count == 0:
        raise cur.bad("a run without blocks")
    if tag in (0, 1):
        return Run(first, count, ("hole", "zero")[tag])
    depth, rest = divmod(tag - 2, 4)
    if rest or depth > LIMIT_DEPTH:
        raise cur.bad(f"tag {tag} of a run is not known")
    start = address()
    return Run(first, count, "data", depth, start, address() if depth else None)


class MapParser:
    """Puts the leaves together to files."""

    def __init__(self, segments: list[SegmentUse]):
        self.segments = segments
        self.files: list[MapFile] = []
        self._next_block = 0

    def leaf(self, cur: Cursor) -> None:
        cur.version()
        for _ in range(cur.count(LIMIT_PLAINTEXT, 4, "parts")):
            self._part(cur)
        cur.end()

    def _part(self, cur: Cursor) -> None:
        number, kind = cur.varint(), cur.u8()
        if kind:
            self._new_file(cur, number, kind)
        elif not self.files or number != self.files[-1].number:
            raise cur.bad(f"a further part of file {number}, which is not the file before")
        file = self.files[-1]
        first, runs = cur.varint(), cur.varint()
        if first < self._next_block and runs:
            raise cur.bad(f"file {number}: runs begin at block {first}, before {self._next_block}")
        for _ in range(runs):
            run = read_run(cur, first, self.segments)
            first += run.count
            if first > file.blocks:
                raise cur.bad(f"file {number}: a run reaches block {first} of {file.blocks}")
            file.runs.append(run)
            self._next_block = first

    def _new_file(self, cur: Cursor, number: int, kind: int) -> None:
        if kind not in FILE_KINDS:
            raise cur.bad(f"kind {kind} of a part is not known")
        if number != len(self.files):
            raise cur.bad(f"file {number}, expected {len(self.files)}")
        path = cur.blob(LIMIT_PATH, "path")
        check_path(path, cur)
        target = cur.blob(LIMIT_PATH, "target of a link") if kind == 3 else b""
        file = MapFile(number, FILE_KINDS[kind], path, target, cur.varint(), cur.u32(), cur.i64())
        if kind == WITH_STATE:
            cur.u64(), cur.i64(), cur.i64()  # of use to the next backup only
        if file.size > LIMIT_FILE or (file.size and file.kind != "file"):
            raise cur.bad(f"a {file.kind} of {file.size} bytes")
        self.files.append(file)
        self._next_block = 0


def check_map_totals(found: BackupMap, obj: str, place: str) -> None:
    root, files = found.root, found.files
    told = (root.files, root.file_bytes, root.addressed, root.zeros, root.holes)
    kinds = [sum(f.count(kind) for f in files) for kind in ("data", "zero", "hole")]
    says = (len(files), sum(f.size for f in files), *kinds)
    if told != says:
        raise Damage(obj, place, f"files, bytes, blocks: tells {told}, the leaves {says}")


def wrong_references(found: BackupMap) -> Iterator[str]:
    """Where a table of segments tells another number of references than the runs have."""
    uses: Counter = Counter()
    for run in (run for f in found.files for run in f.runs if run.kind == "data"):
        uses[run.start.segment] += run.count
        if run.base:
            uses[run.base.segment] += run.count
    for use in found.segments:
        if uses[use.segment] != use.references:
            yield f"tells {use.references} references to {use.segment.hex()}, the leaves {uses[use.segment]}"


def check_paths_as_tree(files: list[MapFile], obj: str, place: str) -> None:
    """No path twice, and none below something that is not a folder."""
    kinds: dict[bytes, str] = {}
    for file in files:
        if file.path in kinds:
            raise Damage(obj, place, f"path {file.text_path!r} is there twice")
        kinds[file.path] = file.kind
    for file in files:
        parts = file.path.split(b"/")
        for depth in range(1, len(parts)):
            above = b"/".join(parts[:depth])
            if kinds.get(above, "folder") != "folder":
                raise Damage(obj, place, f"path {file.text_path!r} lies below a {kinds[above]}")
