"""Writes the files of one backup into an empty folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Iterator

from .limits import BLOCK
from .errors import Damage, UsageError
from .records import BackupCommitted
from .segments import KIND_BLOCK, Entry
from .maps import BackupMap, MapFile, Run
from .repository import Repository


class Restorer:
    """Writes the files of one backup into an empty folder; damaged files are left out."""

    def __init__(self, repo: Repository, backup: BackupCommitted, target: Path):
        self.repo, self.backup, self.target = repo, backup, target
        self.failed: list[str] = []

    def run(self) -> BackupMap:
        found = self.repo.map_of(self.backup)
        self.target.mkdir(parents=True, exist_ok=True)
        if any(self.target.iterdir()):
            raise UsageError(f"{self.target}: is not empty")
        for file in found.files:
            self._make(file)
        for file in sorted((f for f in found.files if f.kind == "folder"), key=lambda f: -f.path.count(b"/")):
            self._set_attributes(file)
        return found

    def _path(self, file: MapFile) -> bytes:
        return os.path.join(os.fsencode(self.target), file.path)

    def _make(self, file: MapFile) -> None:
        path = self._path(file)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if file.kind == "folder":
            os.makedirs(path, exist_ok=True)
        elif file.kind == "link":
            os.symlink(file.target, path)
            os.utime(path, ns=(file.mtime * 1000, file.mtime * 1000), follow_symlinks=False)
        else:
            try:
                self._write(file, path)
                self._set_attributes(file)
            except Damage as error:
                os.unlink(path)
                self.failed.append(file.text_path)
                self.repo.journal.damage(file.text_path, "left out of the restore", str(error))

    def _write(self, file: MapFile, path: bytes) -> None:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            out.truncate(file.size)
            for index, content in self.blocks(file):
                out.seek(index * BLOCK)
                out.write(content)

    def blocks(self, file: MapFile) -> Iterator[tuple[int, bytes]]:
        """Number and content of every block that is not a hole."""
        for run in file.runs:
            for k in range(run.count):
                room = min(BLOCK, file.size - (run.first + k) * BLOCK)
                if run.kind == "zero":
                    yield run.first + k, bytes(room)
                elif run.kind == "data":
                    yield run.first + k, self._block(run, k)[:room].ljust(room, b"\0")

    def _block(self, run: Run, k: int) -> bytes:
        segment, entry = self.repo.entry(run.address(k), KIND_BLOCK)
        compare_run_with_entry(run, k, entry, segment.source.name)
        return self.repo.frame(run.address(k), KIND_BLOCK)

    def _set_attributes(self, file: MapFile) -> None:
        path = self._path(file)
        os.chmod(path, file.mode & 0o7777)
        os.utime(path, ns=(file.mtime * 1000, file.mtime * 1000))


def compare_run_with_entry(run: Run, k: int, entry: Entry, name: str) -> None:
    if entry.depth != run.depth or entry.base != run.base_address(k):
        raise Damage(name, f"frame {run.address(k)}", "map and footer tell different depths or bases")
