"""Frames and sealed segments: format-spec/segment.md."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Iterable, Optional, Union

import zstandard
from blake3 import blake3

from .limits import (
    BLOCK, HASH, LIMIT_BIRTHS, LIMIT_DEPTH, LIMIT_FRAMES, LIMIT_PLAINTEXT, LIMIT_SEGMENT, LIMIT_STORED, NO_BASE,
    PAGE, TAG,
)
from .errors import Damage
from .wire import Address, Cursor, le, round_up
from .crypto import crc32c, derive, keyed, unseal
from .objects import ByteSource, hashed_body
from .keyring import Keys
from .parity import ParityLayout

FRAME_HEADER = 32
FRAME_KINDS = {
    1: "block",
    2: "map root",
    3: "map table",
    4: "map leaf",
    5: "log opening",
    6: "log events",
    7: "log index",
    8: "log meta",
}
KIND_BLOCK, KIND_ROOT, KIND_TABLE, KIND_LEAF, KIND_OPENING, KIND_EVENTS, KIND_INDEX, KIND_META = range(1, 9)
LOG_KINDS = (KIND_OPENING, KIND_EVENTS, KIND_INDEX, KIND_META)
RAW, ZSTD, DELTA = 0, 1, 2
SEGMENT_KINDS = {1: "data", 2: "meta", 3: "log"}
ZSTD_DICTIONARY_MAGIC = b"\x37\xa4\x30\xec"


@dataclass(frozen=True)
class Birth:
    segment: bytes
    frame_key: bytes
    footer_key: bytes


@dataclass(frozen=True)
class SegmentHeader:
    kind: str
    repository: bytes
    segment: bytes
    session: bytes
    births: list[Birth]


@dataclass(frozen=True)
class FrameHeader:
    slot: int
    kind: int
    codec: int
    depth: int
    birth: int
    plain_size: int
    stored_size: int
    crc: int
    durable_end: int = 0  # of a frame of a log: what lies before it was synced when the frame was written


@dataclass(frozen=True)
class Entry:
    """What a footer says of one frame."""

    ident: bytes
    offset: int
    plain_size: int
    stored_size: int
    slot: int
    base: Optional[Address]
    birth: int
    kind: int
    codec: int
    depth: int


@dataclass(frozen=True)
class Trailer:
    detached: bool
    frames_end: int
    footer_offset: int
    footer_size: int
    frames: int
    shard_size: int
    parity_offset: int
    parity_size: int
    data_shards: int
    parity_shards: int
    frames_hash: bytes


def read_birth(cur: Cursor, keys: Keys) -> Birth:
    segment, generation = cur.ident(), cur.u32()
    cur.zeros(4)
    wrapped, commitment = cur.take(48), cur.take(32)
    kek = keys.kek(generation, cur.obj, f"birth {segment.hex()}")
    wrap_key = derive("wrap of a segment's data key", kek + keys.repository + segment)
    data_key = unseal(wrap_key, bytes(12), keys.repository + segment + le(generation, 4), wrapped)
    if data_key is None:
        raise cur.bad(f"wrapped key of birth {segment.hex()}: tag does not match")
    if derive("commitment to a data key", data_key) != commitment:
        raise cur.bad(f"birth {segment.hex()}: commitment does not match")
    return Birth(segment, derive("frames", data_key), derive("footers", data_key))


def parse_segment_header(data: bytes, name: str, segment: bytes, kinds: set[str], keys: Keys) -> SegmentHeader:
    cur = Cursor(hashed_body(data, name, "header"), name, "header")
    cur.magic(b"HFSEG\0\0\0")
    cur.version()
    kind = cur.choice(SEGMENT_KINDS, "kind of segment")
    if kind not in kinds:
        raise cur.bad(f"a {kind} segment does not belong here")
    cur.zeros(1)
    births = cur.u16()
    if not 1 <= births <= LIMIT_BIRTHS:
        raise cur.bad(f"{births} births")
    cur.expect(keys.repository, "repository id")
    cur.expect(segment, "segment id")
    session = cur.ident()
    header = SegmentHeader(kind, keys.repository, segment, session, [read_birth(cur, keys) for _ in range(births)])
    cur.zeros(cur.left)
    idents = [birth.segment for birth in header.births]
    if idents[0] != segment or len(set(idents)) != births:
        raise cur.bad("first birth is not the segment itself, or a birth is named twice")
    return header


def parse_frame_header(data: bytes, name: str, place: str) -> FrameHeader:
    cur = Cursor(data, name, place)
    if crc32c(data[:28]) != int.from_bytes(data[28:32], "little"):
        raise cur.bad("CRC-32C of the frame's header does not match")
    cur.magic(b"HFfr")
    slot, kinds, numbers = cur.u32(), [cur.u8() for _ in range(4)], [cur.u32() for _ in range(4)]
    header = FrameHeader(slot, *kinds, *numbers)
    if header.durable_end > (LIMIT_SEGMENT if header.kind in LOG_KINDS else 0):
        raise cur.bad(f"durable end {header.durable_end}")
    check_frame_shape(header, cur)
    return header


def check_frame_shape(frame: Union[FrameHeader, Entry], cur: Cursor) -> None:
    """What holds for every frame, as its header and as its footer tell it."""
    if frame.kind not in FRAME_KINDS:
        raise cur.bad(f"kind {frame.kind} of a frame is not known")
    if frame.codec not in (RAW, ZSTD, DELTA):
        raise cur.bad(f"codec {frame.codec} is not known")
    if not (1 <= frame.depth <= LIMIT_DEPTH if frame.codec == DELTA else frame.depth == 0):
        raise cur.bad(f"depth {frame.depth} with codec {frame.codec}")
    if frame.codec == DELTA and frame.kind != KIND_BLOCK:
        raise cur.bad("a delta that is not a block")
    if frame.plain_size > (BLOCK if frame.kind == KIND_BLOCK else LIMIT_PLAINTEXT):
        raise cur.bad(f"plaintext of {frame.plain_size} bytes is too long")
    least = TAG + (20 if frame.codec == DELTA else 0)
    if not least <= frame.stored_size <= LIMIT_STORED:
        raise cur.bad(f"payload of {frame.stored_size} bytes")
    if frame.slot >= LIMIT_FRAMES:
        raise cur.bad(f"slot {frame.slot} is too high")


def open_payload(frame: FrameHeader, sealed: bytes, birth: Birth, repository: bytes, name: str, place: str) -> bytes:
    """The encoded plaintext of a frame."""
    if crc32c(sealed) != frame.crc:
        raise Damage(name, place, "CRC-32C of the payload does not match")
    aad = b"".join(
        (
            repository,
            birth.segment,
            le(frame.slot, 4),
            bytes((frame.kind, frame.codec, frame.depth, 0)),
            le(frame.plain_size, 4),
            le(frame.stored_size, 4),
        )
    )
    encoded = unseal(birth.frame_key, le(frame.slot, 4) + bytes(8), aad, sealed)
    if encoded is None:
        raise Damage(name, place, "tag of the payload does not match")
    return encoded


def unzstd(encoded: bytes, size: int, prefix: Optional[bytes], name: str, place: str) -> bytes:
    """Exactly one zstd frame that gives exactly `size` bytes."""
    dictionary = prefix and zstandard.ZstdCompressionDict(prefix, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    try:
        told = zstandard.frame_content_size(encoded)
        if told not in (-1, size):
            raise Damage(name, place, f"zstd frame of {told} bytes, expected {size}")
        decompressor = zstandard.ZstdDecompressor(dict_data=dictionary) if prefix else zstandard.ZstdDecompressor()
        plain = decompressor.decompress(encoded, max_output_size=max(size, 1), allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise Damage(name, place, f"zstd: {error}") from None
    if len(plain) != size:
        raise Damage(name, place, f"zstd frame gives {len(plain)} bytes, expected {size}")
    return plain


BaseReader = Callable[[Address, int], bytes]  # address and depth of a base -> its plaintext


def decode(frame: FrameHeader, encoded: bytes, base: Optional[BaseReader], name: str, place: str) -> bytes:
    if frame.codec == RAW:
        if len(encoded) != frame.plain_size:
            raise Damage(name, place, f"raw frame of {len(encoded)} bytes, expected {frame.plain_size}")
        return encoded
    if frame.codec == ZSTD:
        return unzstd(encoded, frame.plain_size, None, name, place)
    if base is None:
        raise Damage(name, place, "a delta where none may be")
    prefix = base(delta_base(encoded), frame.depth - 1)
    if len(prefix) < 8 or prefix.startswith(ZSTD_DICTIONARY_MAGIC):
        raise Damage(name, place, "base of the delta cannot be one")
    return unzstd(encoded[20:], frame.plain_size, prefix, name, place)


def delta_base(encoded: bytes) -> Address:
    return Address(encoded[:16], int.from_bytes(encoded[16:20], "little"))


def parse_trailer(data: bytes, name: str, segment: bytes, keys: Keys, detached: bool) -> Trailer:
    cur = Cursor(hashed_body(data, name, "trailer"), name, "trailer")
    cur.magic(b"HFTRAIL\0")
    cur.version()
    flag = cur.u32()
    if flag != int(detached):
        raise cur.bad(f"says detached: {flag}")
    cur.expect(keys.repository, "repository id")
    cur.expect(segment, "segment id")
    trailer = Trailer(
        detached,
        cur.u64(),
        cur.u64(),
        cur.u64(),
        cur.u32(),
        cur.u32(),
        cur.u64(),
        cur.u64(),
        cur.u32(),
        cur.u32(),
        cur.take(HASH),
    )
    cur.zeros(cur.left)
    check_trailer_shape(trailer, cur)
    return trailer


def check_trailer_shape(trailer: Trailer, cur: Cursor) -> None:
    if not PAGE <= trailer.frames_end <= LIMIT_SEGMENT or trailer.frames > LIMIT_FRAMES:
        raise cur.bad("end or number of the frames is out of its limits")
    if trailer.footer_offset != (0 if trailer.detached else round_up(trailer.frames_end, PAGE)):
        raise cur.bad(f"footer at {trailer.footer_offset} does not fit the frames' end at {trailer.frames_end}")
    if not 16 + 24 + TAG <= trailer.footer_size <= LIMIT_SEGMENT:
        raise cur.bad(f"footer of {trailer.footer_size} bytes")
    parity = (trailer.parity_offset, trailer.parity_size, trailer.data_shards, trailer.parity_shards)
    if trailer.shard_size == 0:
        if any(parity):
            raise cur.bad("no bytes of a shard, and yet parity")
        return
    if trailer.detached:
        raise cur.bad("a detached footer cannot have parity")
    layout = ParityLayout.of(round_up(trailer.footer_offset + trailer.footer_size, PAGE))
    if (trailer.shard_size, *parity) != (layout.shard_size, layout.offset, layout.size, layout.data, layout.parity):
        raise cur.bad("the parity's numbers do not follow from its offset")


def open_footer(source: ByteSource, trailer: Trailer, header: SegmentHeader, name: str) -> list[Entry]:
    """The footer's entries; `source` is the segment or its detached footer's object, `name` the latter's name."""
    return parse_footer(Cursor(unseal_footer(source, trailer, header, name), name, "footer"), trailer, header)


def unseal_footer(source: ByteSource, trailer: Trailer, header: SegmentHeader, name: str) -> bytes:
    stored = source.read(trailer.footer_offset, trailer.footer_size)
    if any(stored[12:16]):
        raise Damage(name, "footer", "bytes that must be zero are not")
    aad = b"".join(
        (
            b"HFFOOT\0\0",
            header.repository,
            header.segment,
            le(int(trailer.detached), 4),
            le(trailer.frames_end, 8),
            le(trailer.frames, 4),
        )
    )
    plain = unseal(header.births[0].footer_key, stored[:12], aad, stored[16:])
    if plain is None:
        raise Damage(name, "footer", "tag does not match")
    return plain


def parse_footer(cur: Cursor, trailer: Trailer, header: SegmentHeader) -> list[Entry]:
    cur.magic(b"HFFOOT\0\0")
    cur.version()
    frames, segments = cur.u32(), cur.u32()
    cur.zeros(4)
    if frames != trailer.frames:
        raise cur.bad(f"tells of {frames} frames, the trailer of {trailer.frames}")
    if cur.left != segments * 16 + frames * 64:
        raise cur.bad(f"{cur.left} bytes for {segments} segments and {frames} frames")
    bases = [cur.ident() for _ in range(segments)]
    if any(a >= b for a, b in zip(bases, bases[1:])):
        raise cur.bad("segments of the bases do not rise")
    entries = [read_entry(cur, bases) for _ in range(frames)]
    check_entries(entries, trailer, header, cur)
    return entries


def read_entry(cur: Cursor, bases: list[bytes]) -> Entry:
    ident, offset, plain, stored, slot = cur.take(HASH), cur.u32(), cur.u32(), cur.u32(), cur.u32()
    place, base_slot = cur.u32(), cur.u32()
    birth, kind, codec, depth = cur.u8(), cur.u8(), cur.u8(), cur.u8()
    cur.zeros(4)
    base = None
    if codec == DELTA:
        if place >= len(bases):
            raise cur.bad(f"base in segment {place} of {len(bases)}")
        base = Address(bases[place], base_slot)
    elif place != NO_BASE or base_slot:
        raise cur.bad("a frame that is no delta names a base")
    entry = Entry(ident, offset, plain, stored, slot, base, birth, kind, codec, depth)
    check_frame_shape(entry, cur)
    return entry


def check_entries(entries: list[Entry], trailer: Trailer, header: SegmentHeader, cur: Cursor) -> None:
    """Frames stand back to back, each with a place of its own."""
    at = PAGE
    seen = set()
    for number, entry in enumerate(entries):
        if entry.offset != at:
            raise cur.bad(f"frame {number} at {entry.offset}, expected {at}")
        at += FRAME_HEADER + entry.stored_size
        if entry.birth >= len(header.births) or (entry.birth, entry.slot) in seen:
            raise cur.bad(f"frame {number}: birth {entry.birth}, slot {entry.slot} is unknown or twice there")
        seen.add((entry.birth, entry.slot))
        if len(header.births) == 1 and entry.slot != number:
            raise cur.bad(f"frame {number} has slot {entry.slot}")
    if at != trailer.frames_end:
        raise cur.bad(f"frames end at {at}, the trailer says {trailer.frames_end}")


class FrameReader:
    """Reads single frames of one segment whose header is known."""

    def __init__(self, source: ByteSource, header: SegmentHeader):
        self.source, self.header = source, header

    def header_at(self, offset: int) -> FrameHeader:
        place = f"frame at {offset}"
        frame = parse_frame_header(self.source.read(offset, FRAME_HEADER), self.source.name, place)
        if frame.birth >= len(self.header.births):
            raise Damage(self.source.name, place, f"birth {frame.birth} of {len(self.header.births)}")
        return frame

    def sealed(self, offset: int, frame: FrameHeader) -> bytes:
        return self.source.read(offset + FRAME_HEADER, frame.stored_size)

    def encoded(self, offset: int, frame: FrameHeader) -> bytes:
        birth = self.header.births[frame.birth]
        sealed = self.sealed(offset, frame)
        return open_payload(frame, sealed, birth, self.header.repository, self.source.name, f"frame at {offset}")

    def plaintext(self, entry: Entry, base: Optional[BaseReader], keys: Keys) -> bytes:
        """A frame that a footer tells of: header, payload, encoding and id verified."""
        name, place = self.source.name, f"frame at {entry.offset}, slot {entry.slot}"
        frame = self.header_at(entry.offset)
        told = (entry.slot, entry.kind, entry.codec, entry.depth, entry.birth, entry.plain_size, entry.stored_size)
        says = (frame.slot, frame.kind, frame.codec, frame.depth, frame.birth, frame.plain_size, frame.stored_size)
        if told != says:
            raise Damage(name, place, "its header says something else than the footer")
        encoded = self.encoded(entry.offset, frame)
        if entry.base is not None and delta_base(encoded) != entry.base:
            raise Damage(name, place, "its base is not the one in the footer")
        plain = decode(frame, encoded, base, name, place)
        if keyed(keys.block_id, plain) != entry.ident:
            raise Damage(name, place, "its id does not match its plaintext")
        return plain

    def frames_hash(self, entries: Iterable[Entry]) -> bytes:
        """The trailer's hash over the header and the tag of each frame."""
        state = blake3()
        for entry in entries:
            state.update(self.source.read(entry.offset, FRAME_HEADER))
            state.update(self.source.read(entry.offset + FRAME_HEADER + entry.stored_size - TAG, TAG))
        return state.digest()


class SealedSegment:
    """A data or meta segment: header, trailer and footer are verified when it is opened."""

    def __init__(self, source: ByteSource, segment: bytes, keys: Keys):
        name = source.name
        if source.size > LIMIT_SEGMENT:
            raise Damage(name, "", f"has {source.size} bytes, more than a segment may have")
        if source.size < 2 * PAGE:
            raise Damage(name, "", f"has only {source.size} bytes")
        self.source, self.segment, self.keys = source, segment, keys
        self.header = parse_segment_header(source.read(0, PAGE), name, segment, {"data", "meta"}, keys)
        self.trailer = parse_trailer(source.read(source.size - PAGE, PAGE), name, segment, keys, False)
        self._check_size()
        self.entries = open_footer(source, self.trailer, self.header, name)
        self.frames = FrameReader(source, self.header)
        self._by_address = {
            Address(self.header.births[entry.birth].segment, entry.slot): entry for entry in self.entries
        }

    def _check_size(self) -> None:
        end = round_up(self.trailer.footer_offset + self.trailer.footer_size, PAGE)
        end += self.trailer.parity_size + PAGE
        if end != self.source.size:
            raise Damage(self.source.name, "", f"has {self.source.size} bytes, {end} by its trailer")

    def find(self, address: Address) -> Optional[Entry]:
        return self._by_address.get(address)

    def addresses(self) -> Iterable[tuple[Address, Entry]]:
        return self._by_address.items()

    def read(self, entry: Entry, base: BaseReader) -> bytes:
        return self.frames.plaintext(entry, base, self.keys)

    def close(self) -> None:
        self.source.close()
