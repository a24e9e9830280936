"""The objects of a repository: files below one folder, never written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Optional

from .limits import HASH
from .errors import Damage
from .crypto import digest


class ByteSource:
    """The bytes of one object, read where they are wanted."""

    name: str
    size: int

    def read(self, offset: int, size: int) -> bytes:
        """Exactly these bytes, or Damage."""
        raise NotImplementedError

    def close(self) -> None:
        pass


class FileSource(ByteSource):
    def __init__(self, path: Path, name: str):
        self.name = name
        self._fd = os.open(path, os.O_RDONLY)
        self.size = os.fstat(self._fd).st_size

    def read(self, offset: int, size: int) -> bytes:
        parts, at, end = [], offset, offset + size
        while at < end:
            try:
                part = os.pread(self._fd, end - at, at)
            except OSError as error:
                raise Damage(self.name, f"byte {at}", f"cannot be read: {error.strerror}") from None
            if not part:
                raise Damage(self.name, f"byte {at}", f"object ends, {end - at} more bytes wanted")
            parts.append(part)
            at += len(part)
        return b"".join(parts)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class MemorySource(ByteSource):
    def __init__(self, name: str, data: bytes):
        self.name, self.data, self.size = name, data, len(data)

    def read(self, offset: int, size: int) -> bytes:
        part = self.data[offset : offset + size]
        if len(part) != size:
            raise Damage(self.name, f"byte {offset}", f"object ends, {size} bytes wanted")
        return part


class ObjectStore:
    """A repository's objects, each a file below one folder."""

    def __init__(self, root: Path):
        self.root = root

    def names(self, folder: str) -> list[str]:
        """Last parts of the names of a folder's objects, in order."""
        try:
            with os.scandir(self.root / folder) as entries:
                return sorted(e.name for e in entries if not e.name.startswith(".") and e.is_file())
        except (FileNotFoundError, NotADirectoryError):
            return []

    def has(self, name: str) -> bool:
        return (self.root / name).is_file()

    def open(self, name: str) -> Optional[FileSource]:
        try:
            return FileSource(self.root / name, name)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        except OSError as error:
            raise Damage(name, "", f"cannot be opened: {error.strerror}") from None

    def load(self, name: str, limit: int) -> Optional[bytes]:
        """A small object as a whole; None where it is missing."""
        source = self.open(name)
        if source is None:
            return None
        try:
            if source.size > limit:
                raise Damage(name, "", f"has {source.size} bytes, more than the limit of {limit}")
            return source.read(0, source.size)
        finally:
            source.close()


def hashed_body(data: bytes, obj: str, place: str = "") -> bytes:
    """The bytes before a BLAKE3 at the end, after it was compared."""
    if len(data) < HASH:
        raise Damage(obj, place, f"has only {len(data)} bytes")
    if digest(data[:-HASH]) != data[-HASH:]:
        raise Damage(obj, place, "BLAKE3 at its end does not match")
    return data[:-HASH]
