"""Where a test works: a folder of its own, and the reader's command line with what it prints."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import tempfile
import unittest
from dataclasses import dataclass
from pathlib import Path

from read_holdfast.cli import main


@dataclass
class Result:
    status: int
    out: bytes
    err: str

    @property
    def json(self):
        return json.loads(self.out)


def run(repo: Path, *args: str, secret: tuple[str, Path]) -> Result:
    """The reader's main function, with what it prints."""
    raw, err = io.BytesIO(), io.StringIO()
    out = io.TextIOWrapper(raw, encoding="utf-8", write_through=True)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main([str(repo), secret[0], str(secret[1]), *args])
        except SystemExit as stop:
            status = int(stop.code or 0)
    out.flush()
    return Result(status, raw.getvalue(), err.getvalue())


def objects_of(repo: Path) -> list[Path]:
    found = (path for path in sorted(repo.rglob("*")) if path.is_file() and path.stat().st_size)
    return [path.relative_to(repo) for path in found]


class Workplace(unittest.TestCase):
    def setUp(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.addCleanup(self._folder.cleanup)
        self.tmp = Path(self._folder.name)
        self._count = 0

    def fresh(self) -> Path:
        self._count += 1
        return self.tmp / f"fresh-{self._count}"

    def copy(self, repo: Path) -> Path:
        return Path(shutil.copytree(repo, self.fresh()))
