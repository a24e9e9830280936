"""Numbers, texts and identifiers as bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable

from .limits import VERSION
from .errors import Damage, UnknownVersion


def round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def le(value: int, size: int) -> bytes:
    return value.to_bytes(size, "little")


def backup_name(ident: bytes) -> str:
    """The 26 letters of a backup's id."""
    number = int.from_bytes(ident, "big") << 2
    alphabet = "0123456789abcdefghjkmnpqrstvwxyz"
    return "".join(alphabet[number >> shift & 31] for shift in range(125, -1, -5))


@dataclass(frozen=True)
class Address:
    segment: bytes
    slot: int

    def __str__(self) -> str:
        return f"{self.segment.hex()}/{self.slot}"


class Cursor:
    """Reads the fields of one structure in order; every error names object, place and offset."""

    def __init__(self, data: bytes, obj: str, place: str):
        self.data, self.obj, self.place = data, obj, place
        self.at = 0

    def bad(self, problem: str) -> Damage:
        return Damage(self.obj, self.place, f"{problem} (byte {self.at} of {len(self.data)})")

    @property
    def left(self) -> int:
        return len(self.data) - self.at

    def take(self, size: int) -> bytes:
        if size > self.left:
            raise self.bad(f"ends early: {size} bytes wanted, {self.left} left")
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def u8(self) -> int:
        return self.number(1)

    def u16(self) -> int:
        return self.number(2)

    def u32(self) -> int:
        return self.number(4)

    def u64(self) -> int:
        return self.number(8)

    def i64(self) -> int:
        return int.from_bytes(self.take(8), "little", signed=True)

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.u8()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if byte == 0 and shift:
                    raise self.bad("varint is not in its shortest form")
                if value >> 64:
                    raise self.bad("varint has more than 64 bits")
                return value
            shift += 7
            if shift > 63:
                raise self.bad("varint is too long")

    def signed_varint(self) -> int:
        zigzag = self.varint()
        return (zigzag >> 1) ^ -(zigzag & 1)

    def magic(self, magic: bytes) -> None:
        if self.take(len(magic)) != magic:
            raise self.bad(f"does not begin with {magic!r}")

    def version(self) -> None:
        version = self.u32()
        if version != VERSION:
            raise UnknownVersion(self.obj, self.place, version)

    def expect(self, wanted: bytes, what: str) -> None:
        found = self.take(len(wanted))
        if found != wanted:
            raise self.bad(f"{what} is {found.hex()}, expected {wanted.hex()}")

    def zeros(self, size: int) -> None:
        if any(self.take(size)):
            raise self.bad("bytes that must be zero are not")

    def count(self, limit: int, least: int, what: str) -> int:
        """A u32 count of things of at least `least` bytes each."""
        count = self.u32()
        if count > limit:
            raise self.bad(f"{count} {what}, more than the limit of {limit}")
        if count * least > self.left:
            raise self.bad(f"{count} {what} cannot be in {self.left} bytes")
        return count

    def blob(self, limit: int, what: str = "blob") -> bytes:
        return self.take(self.count(limit, 1, f"bytes of {what}"))

    def text(self, limit: int, what: str = "text") -> str:
        raw = self.blob(limit, what)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            raise self.bad(f"{what} is not UTF-8") from None

    def option(self, read: Callable):
        present = self.u8()
        if present > 1:
            raise self.bad(f"an option begins with {present}")
        return read() if present else None

    def choice(self, names: dict[int, str], what: str) -> str:
        value = self.u8()
        if value not in names:
            raise self.bad(f"{what} {value} is not known")
        return names[value]

    def ident(self) -> bytes:
        return self.take(16)

    def address(self) -> Address:
        return Address(self.ident(), self.u32())

    def end(self) -> None:
        if self.left:
            raise self.bad(f"{self.left} bytes too many")
