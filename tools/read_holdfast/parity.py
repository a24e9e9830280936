"""The parity of a segment, and repair with it: format-spec/parity.md."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Iterable, Optional

from .limits import HASH, LIMIT_SEGMENT, PAGE
from .errors import Damage
from .wire import Cursor, le, round_up
from .crypto import digest
from .objects import ByteSource, MemorySource
from .keyring import Keys


class Field16:
    """GF(2^16) in the Cantor basis, by logarithms.  The logarithm of 0 is 65535, and stands for "no factor"."""

    ORDER, MODULUS, POLYNOMIAL = 65536, 65535, 0x1002D
    BASIS = (
        (0x0001, 0xACCA, 0x3C0E, 0x163E, 0xC582, 0xED2E, 0x914C, 0x4012)
        + (0x6C98, 0x10D8, 0x6A72, 0xB900, 0xFDB8, 0xFB34, 0xFF38, 0x991E)
    )

    def __init__(self) -> None:
        power_of, state = [self.MODULUS] * self.ORDER, 1
        for power in range(self.MODULUS):
            power_of[state] = power
            state <<= 1
            if state >= self.ORDER:
                state ^= self.POLYNOMIAL
        polynomial = [0]
        for basis in self.BASIS:
            polynomial += [value ^ basis for value in polynomial]
        self.log = [power_of[value] for value in polynomial]
        self.exp = [0] * self.ORDER
        for value, power in enumerate(self.log):
            self.exp[power] = value

    def times(self, value: int, log_factor: int) -> int:
        return self.exp[(self.log[value] + log_factor) % self.MODULUS] if value else 0

    def inverse_log(self, value: int) -> int:
        return (self.MODULUS - self.log[value]) % self.MODULUS

    @functools.lru_cache(maxsize=8192)
    def product_tables(self, log_factor: int) -> tuple[bytes, bytes, bytes, bytes]:
        """Low and high byte of the product, of each low byte and of each high byte."""
        low = [self.times(byte, log_factor) for byte in range(256)]
        high = [self.times(byte << 8, log_factor) for byte in range(256)]
        return (
            bytes(v & 255 for v in low),
            bytes(v >> 8 for v in low),
            bytes(v & 255 for v in high),
            bytes(v >> 8 for v in high),
        )


@functools.lru_cache(maxsize=1)
def field16() -> Field16:
    return Field16()


@dataclass
class Vector:
    """A shard as two planes: the low and the high bytes of its elements, each as one big number.

    In every 64 bytes of a shard the first 32 are low bytes and the others the high bytes of 32 elements.
    """

    low: int
    high: int
    size: int  # bytes of a plane

    @classmethod
    def of_shard(cls, shard: bytes) -> "Vector":
        low = b"".join(shard[at : at + 32] for at in range(0, len(shard), 64))
        high = b"".join(shard[at + 32 : at + 64] for at in range(0, len(shard), 64))
        return cls(int.from_bytes(low, "little"), int.from_bytes(high, "little"), len(low))

    @classmethod
    def zero(cls, size: int) -> "Vector":
        return cls(0, 0, size)

    @classmethod
    def element(cls, value: int) -> "Vector":
        return cls(value & 255, value >> 8, 1)

    @property
    def value(self) -> int:
        return self.low | self.high << 8

    def shard(self) -> bytes:
        low, high = le(self.low, self.size), le(self.high, self.size)
        return b"".join(low[at : at + 32] + high[at : at + 32] for at in range(0, self.size, 32))

    def add(self, other: "Vector") -> None:
        self.low ^= other.low
        self.high ^= other.high

    def times(self, log_factor: int) -> "Vector":
        low_low, low_high, high_low, high_high = field16().product_tables(log_factor)
        low, high = le(self.low, self.size), le(self.high, self.size)

        def sum_of(a: bytes, b: bytes) -> int:
            return int.from_bytes(a, "little") ^ int.from_bytes(b, "little")

        return Vector(
            sum_of(low.translate(low_low), high.translate(high_low)),
            sum_of(low.translate(low_high), high.translate(high_high)),
            self.size,
        )


def leopard_ifft(work: list[Vector], first: int) -> None:
    """From values at the points `first`, `first` + 1, ... to coefficients."""
    field_, half = field16(), 1
    while half < len(work):
        for start in range(0, len(work), half * 2):
            factor = (first + start) // half
            for at in range(start, start + half):
                work[at + half].add(work[at])
                if factor:
                    work[at].add(work[at + half].times(field_.log[factor]))
        half *= 2


def leopard_fft(work: list[Vector]) -> None:
    """From coefficients to values at the points 0, 1, ..."""
    field_, half = field16(), len(work) // 2
    while half:
        for start in range(0, len(work), half * 2):
            factor = start // half
            for at in range(start, start + half):
                if factor:
                    work[at].add(work[at + half].times(field_.log[factor]))
                work[at + half].add(work[at])
        half //= 2


def leopard_encode(data: Iterable[Vector], parity: int, size: int) -> list[Vector]:
    """The parity shards: format-spec/parity.md."""
    chunk = 1 << (parity - 1).bit_length()
    total = [Vector.zero(size) for _ in range(chunk)]
    shards, first = iter(data), chunk
    while work := [Vector(v.low, v.high, size) for _, v in zip(range(chunk), shards)]:
        work += [Vector.zero(size) for _ in range(chunk - len(work))]
        leopard_ifft(work, first)
        for into, part in zip(total, work):
            into.add(part)
        first += chunk
    leopard_fft(total)
    return total[:parity]


def leopard_coefficients(data: int, parity: int, columns: list[int]) -> list[list[int]]:
    """coefficients[r][i]: with which factor data shard columns[i] goes into parity shard r."""
    found = []
    for column in columns:
        unit = [Vector.element(int(place == column)) for place in range(data)]
        found.append([v.value for v in leopard_encode(unit, parity, 1)])
    return [[found[i][r] for i in range(len(columns))] for r in range(parity)]


def solve16(matrix: list[list[int]], values: list[Vector]) -> list[Vector]:
    """Solves matrix * x = values by elimination; the matrix is square and regular."""
    f, count = field16(), len(matrix)
    for col in range(count):
        pivot = next(row for row in range(col, count) if matrix[row][col])
        matrix[col], matrix[pivot] = matrix[pivot], matrix[col]
        values[col], values[pivot] = values[pivot], values[col]
        inverse = f.inverse_log(matrix[col][col])
        matrix[col] = [f.times(v, inverse) for v in matrix[col]]
        values[col] = values[col].times(inverse)
        for row in range(count):
            if row != col and matrix[row][col]:
                factor = f.log[matrix[row][col]]
                matrix[row] = [a ^ f.times(b, factor) for a, b in zip(matrix[row], matrix[col])]
                values[row].add(values[col].times(factor))
    return values


@dataclass(frozen=True)
class ParityLayout:
    """Where everything of the parity lies; all of it follows from its offset P."""

    offset: int
    shard_size: int
    data: int
    parity: int

    @classmethod
    def of(cls, offset: int) -> "ParityLayout":
        shard = round_up(-(-offset // 1024), PAGE)
        data = -(-offset // shard)
        return cls(offset, shard, data, max(2, -(-data // 40)))

    @property
    def table_size(self) -> int:
        return 64 + 16 * (self.data + self.parity) + HASH

    @property
    def table_room(self) -> int:
        return round_up(self.table_size, PAGE)

    @property
    def tables(self) -> tuple[int, int]:
        first = self.offset + PAGE
        return first, first + self.table_room + self.parity * self.shard_size

    @property
    def shards_offset(self) -> int:
        return self.offset + PAGE + self.table_room

    @property
    def size(self) -> int:
        return PAGE + 2 * self.table_room + self.parity * self.shard_size


@dataclass(frozen=True)
class ParityTable:
    layout: ParityLayout
    hashes: list[bytes]
    raw: bytes


def parse_parity_table(data: bytes, name: str, offset: int, segment: bytes, keys: Keys) -> ParityTable:
    """The table that begins `data`; `offset` is its place in the segment."""
    cur = Cursor(data, name, f"parity table at {offset}")
    cur.magic(b"HFPARITY")
    cur.version()
    shard = cur.u32()
    cur.expect(keys.repository, "repository id")
    cur.expect(segment, "segment id")
    layout = ParityLayout(cur.u64(), shard, cur.u32(), cur.u32())
    if layout.offset % PAGE or not PAGE <= layout.offset <= LIMIT_SEGMENT or layout != ParityLayout.of(layout.offset):
        raise cur.bad("its numbers do not follow from the parity's offset")
    hashes = [cur.take(16) for _ in range(layout.data + layout.parity)]
    if digest(data[: cur.at]) != cur.take(HASH):
        raise cur.bad("BLAKE3 at its end does not match")
    if any(data[cur.at : layout.table_room]):
        raise cur.bad("bytes behind it that must be zero are not")
    if offset not in layout.tables:
        raise cur.bad("does not stand where its numbers say")
    return ParityTable(layout, hashes, data[: cur.at])


def read_padded(source: ByteSource, offset: int, size: int) -> bytes:
    """These bytes; zeros for those behind the object's end or that cannot be read."""
    try:
        have = max(0, min(size, source.size - offset))
        return source.read(offset, have).ljust(size, b"\0")
    except Damage:
        return bytes(size)


class Parity:
    """The parity of one segment: verifies it, and rebuilds what is damaged."""

    def __init__(self, source: ByteSource, table: ParityTable):
        self.source, self.table, self.layout = source, table, table.layout

    @classmethod
    def find(cls, source: ByteSource, segment: bytes, keys: Keys) -> Optional["Parity"]:
        """Looks for a whole table from the end of the object backwards."""
        room = ParityLayout.of(LIMIT_SEGMENT).table_room
        for offset in range(source.size // PAGE * PAGE, 0, -PAGE):
            if read_padded(source, offset, 8) == b"HFPARITY":
                try:
                    data = read_padded(source, offset, room)
                    return cls(source, parse_parity_table(data, source.name, offset, segment, keys))
                except Damage:
                    continue
        return None

    def data_shard(self, index: int) -> bytes:
        size, start = self.layout.shard_size, index * self.layout.shard_size
        have = min(size, self.layout.offset - start)
        return read_padded(self.source, start, have).ljust(size, b"\0")

    def parity_shard(self, index: int) -> bytes:
        size = self.layout.shard_size
        return read_padded(self.source, self.layout.shards_offset + index * size, size)

    def _good(self, shard: bytes, place: int) -> bool:
        return digest(shard)[:16] == self.table.hashes[place]

    def bad_shards(self) -> tuple[list[int], list[int]]:
        """Numbers of the damaged data shards and of the damaged parity shards."""
        d, p = self.layout.data, self.layout.parity
        data = [i for i in range(d) if not self._good(self.data_shard(i), i)]
        return data, [i for i in range(p) if not self._good(self.parity_shard(i), d + i)]

    def encoded(self, without: Iterable[int] = ()) -> list[Vector]:
        """Parity computed anew from the data shards, those in `without` taken as zeros."""
        left_out, size = set(without), self.layout.shard_size // 2
        shards = (
            Vector.zero(size) if i in left_out else Vector.of_shard(self.data_shard(i))
            for i in range(self.layout.data)
        )
        return leopard_encode(shards, self.layout.parity, size)

    def rebuild(self) -> Optional[MemorySource]:
        """The object with every damaged byte put right, or None where too much is lost."""
        lost, lost_parity = self.bad_shards()
        rows = [i for i in range(self.layout.parity) if i not in lost_parity][: len(lost)]
        if len(rows) < len(lost):
            return None
        protected = bytearray().join(self.data_shard(i) for i in range(self.layout.data))
        if lost:
            computed = self.encoded(lost)
            coefficients = leopard_coefficients(self.layout.data, self.layout.parity, lost)
            rest = []
            for row in rows:
                vector = Vector.of_shard(self.parity_shard(row))
                vector.add(computed[row])
                rest.append(vector)
            for index, vector in zip(lost, solve16([coefficients[row] for row in rows], rest)):
                shard = vector.shard()
                if not self._good(shard, index):
                    return None
                at = index * self.layout.shard_size
                protected[at : at + len(shard)] = shard
        behind = read_padded(self.source, self.layout.offset, self.layout.size)
        whole = bytes(protected[: self.layout.offset]) + behind + self._trailer_page(behind)
        return MemorySource(self.source.name, whole)

    def _trailer_page(self, behind: bytes) -> bytes:
        """The trailer at the segment's end, or else its copy before the table."""
        last = read_padded(self.source, self.layout.offset + self.layout.size, PAGE)
        return last if digest(last[:-HASH]) == last[-HASH:] else behind[:PAGE]
