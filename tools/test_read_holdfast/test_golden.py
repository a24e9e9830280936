"""The golden repositories of tests/golden: read as their expected.json says, and damaged at seeded places.

HOLDFAST_GOLDEN_FLIPS=N flips N bits in every object of each; without it, one in a seeded choice of objects.
"""

from __future__ import annotations

import json
import os
import random
import unittest
from pathlib import Path

from read_holdfast.crypto import digest
from read_holdfast.limits import PAGE

from .workplace import Workplace, objects_of, run

TOP = Path(__file__).resolve().parents[2]
GOLDEN = sorted(path.parent for path in (TOP / "tests" / "golden").glob("format-1*/expected.json"))
OLDER = TOP / "tests" / "golden" / "format-0"
FLIPS = int(os.environ.get("HOLDFAST_GOLDEN_FLIPS", "0"))
OBJECTS_DAMAGED = 8


def way_in(golden: Path) -> tuple[str, Path]:
    return "--passphrase-file", golden / "passphrase"


def expected_of(golden: Path) -> dict:
    return json.loads((golden / "expected.json").read_text())


class Older(Workplace):
    def test_another_version_is_refused_by_name(self):
        told = run(OLDER / "repo", "list", secret=way_in(OLDER))
        self.assertNotIn(told.status, (0, 2))
        self.assertIn("version 0", told.err)


class Golden(Workplace):
    def each(self):
        self.assertTrue(GOLDEN, "no golden repository")
        return [(folder / "repo", way_in(folder), expected_of(folder)) for folder in GOLDEN]

    def test_list_tells_what_went_in(self):
        for repo, secret, expected in self.each():
            told = run(repo, "list", "--json", secret=secret)
            self.assertEqual(told.status, 0, told.err)
            self.assertNotIn("damage:", told.err)
            self.assertEqual(told.json["repository"], expected["repository"])
            self.assertEqual(told.json["records"], expected["records"])
            self.assertEqual(len(told.json["backups"]), len(expected["backups"]))
            for backup, wanted in zip(told.json["backups"], expected["backups"]):
                for key in {"id", "server", "note", "coordinates", "learned", "depths", "facts"} & set(wanted):
                    self.assertEqual(backup[key], wanted[key], key)
                self.assertEqual(len(backup["files"]), len(wanted.get("files", ())) or wanted["listing"]["files"])
                if "files" in wanted:
                    files = [{k: v for k, v in f.items() if k != "blake3"} for f in wanted["files"]]
                    self.assertEqual(sorted(backup["files"], key=lambda f: f["path"]), files)

    def test_restore_gives_the_same_bytes(self):
        for repo, secret, expected in self.each():
            for backup in expected["backups"]:
                target = self.fresh()
                told = run(repo, "restore", backup["id"], str(target), secret=secret)
                self.assertEqual(told.status, 0, told.err)
                if "files" in backup:
                    self.assert_restored(target, backup["files"])
                else:
                    self.assertEqual(self.listing(target), backup["listing"])

    def assert_restored(self, target: Path, files: list[dict]) -> None:
        found = {str(path.relative_to(target)) for path in target.rglob("*")}
        self.assertEqual(found, {file["path"] for file in files})
        for file in files:
            path = target / file["path"]
            status = path.lstat()
            self.assertEqual(status.st_mtime_ns, file["mtime_us"] * 1000, path)
            if file["kind"] == "link":
                self.assertEqual(os.readlink(path), file["target"])
                continue
            self.assertEqual(status.st_mode & 0o7777, file["mode"], path)
            if file["kind"] == "file":
                self.assertEqual(digest(path.read_bytes()).hex(), file["blake3"], path)

    @staticmethod
    def listing(target: Path) -> dict:
        """As tests/golden/README.md says."""
        lines = []
        for path in sorted(target.rglob("*"), key=lambda path: os.fsencode(path.relative_to(target))):
            status = path.lstat()
            kind, size, content = "folder", 0, "-"
            if path.is_symlink():
                kind = "link"
            elif path.is_file():
                kind, size, content = "file", status.st_size, digest(path.read_bytes()).hex()
            mode, time = status.st_mode & 0o7777, status.st_mtime_ns // 1000
            lines.append(f"{kind} {mode:o} {size} {time} {content} {path.relative_to(target)}\n")
        return {"files": len(lines), "blake3": digest("".join(lines).encode()).hex()}

    def test_logs_hold_the_frames(self):
        for repo, secret, expected in self.each():
            for stream in {log["stream"] for log in expected["logs"]}:
                told = run(repo, "log", stream, "--list", "--json", secret=secret)
                self.assertEqual(told.status, 0)
                keys = ("stream", "number", "sealed", "frames")
                found = [{key: log[key] for key in keys} for log in told.json]
                self.assertEqual(found, [log for log in expected["logs"] if log["stream"] == stream])

    def test_cat_gives_the_files_of_the_source(self):
        for repo, secret, expected in self.each():
            for file in expected.get("files", ()):
                told = run(repo, "log", file["stream"], "--cat", file["file"], secret=secret)
                self.assertEqual((told.status, len(told.out)), (0, file["len"]), told.err)
                self.assertEqual(digest(told.out).hex(), file["blake3"], file["file"])

    def test_check_finds_nothing(self):
        for repo, secret, _ in self.each():
            told = run(repo, "check", "--json", secret=secret)
            self.assertEqual(told.status, 0, told.err)
            self.assertTrue(told.json["ok"])

    def test_a_kit_opens_it_with_and_without_a_keyring(self):
        for repo, _, expected in self.each():
            kit = repo.with_name("kit")
            if not kit.exists():
                continue
            self.assertEqual(run(repo, "check", secret=("--recovery-kit", kit)).status, 0)
            work = self.copy(repo)
            for name in ("0", "1", "2"):
                (work / "keyring" / name).unlink()
            told = run(work, "list", "--json", secret=("--recovery-kit", kit))
            self.assertEqual(told.status, 21)
            self.assertEqual(told.json["records"], expected["records"])

    def test_statuses(self):
        for repo, secret, expected in self.each():
            wrong = self.fresh()
            wrong.write_bytes(b"incorrect horse\n")
            self.assertEqual(run(repo, "list", secret=("--passphrase-file", wrong)).status, 12)
            self.assertEqual(run(self.fresh(), "list", secret=secret).status, 10)
            empty = self.fresh()
            empty.mkdir()
            self.assertEqual(run(empty, "check", secret=secret).status, 10)
            self.assertEqual(run(repo, "restore", "0" * 26, str(self.fresh()), secret=secret).status, 20)
            self.assertEqual(run(repo, "log", "nobody", "--list", secret=secret).status, 20)
            self.assertEqual(run(repo, "log", "shop", "--cat", "binlog.000099", secret=secret).status, 20)
            self.assertEqual(run(repo, "frobnicate", secret=secret).status, 2)
            full = self.fresh()
            (full / "x").mkdir(parents=True)
            self.assertEqual(run(repo, "restore", expected["backups"][0]["id"], str(full), secret=secret).status, 2)


class GoldenDamaged(Workplace):
    """Every damaged object is reported, and nothing wrong is ever written."""

    def damaged_copies(self, golden: Path, what: str, damage):
        """(name of the object, copy of the repository with it damaged), `damage` tells how."""
        work = self.copy(golden / "repo")
        for name in self.some_objects(golden, what):
            whole = (work / name).read_bytes()
            for broken in damage(random.Random(f"{what} {golden.name} {name}"), whole):
                (work / name).write_bytes(broken)
                yield str(name), work
            (work / name).write_bytes(whole)

    @staticmethod
    def some_objects(golden: Path, what: str) -> list[Path]:
        names = objects_of(golden / "repo")
        if FLIPS:
            return names
        return sorted(random.Random(f"{what} {golden.name}").sample(names, min(len(names), OBJECTS_DAMAGED)))

    def assert_honest(self, golden: Path, work: Path, name: str, expected: dict) -> None:
        told = run(work, "check", secret=way_in(golden))
        if told.status != 21:
            tail = self.may_be_a_torn_tail(golden, name)
            self.assertTrue(tail, f"{name}: check says {told.status}: {told.err}")
            self.assertIn(name.removesuffix(".foot"), told.err)
        for backup in random.Random(name).sample([b for b in expected["backups"] if "files" in b], 1):
            hashes = {file["path"]: file.get("blake3") for file in backup["files"]}
            target = self.fresh()
            restored = run(work, "restore", backup["id"], str(target), secret=way_in(golden))
            self.assertIn(restored.status, (0, 12, 20, 21))
            found = [p for p in target.rglob("*") if p.is_file() and not p.is_symlink()]
            for path in found:
                self.assertEqual(digest(path.read_bytes()).hex(), hashes[str(path.relative_to(target))], name)
            if restored.status == 0:
                self.assertEqual(len(found), sum(h is not None for h in hashes.values()))
        for file in expected.get("files", ()):
            args = ("log", file["stream"], "--cat", file["file"])
            whole = run(golden / "repo", *args, secret=way_in(golden)).out
            self.assertTrue(whole.startswith(run(work, *args, secret=way_in(golden)).out), name)

    def may_be_a_torn_tail(self, golden: Path, name: str) -> bool:
        """What was never sealed may end anywhere, by the text: a log, a segment that nothing needs."""
        if not name.startswith(("logs/", "segments/")):
            return False
        told = run(golden / "repo", "list", "--json", secret=way_in(golden)).json
        unsealed = {f"logs/{log['segment']}" for log in told["logs"] if not log["sealed"]}
        return name in unsealed or (golden / "repo" / name).stat().st_size % PAGE != 0

    def test_flipped_bits(self):
        def damage(seeded: random.Random, whole: bytes):
            for _ in range(FLIPS or 1):
                broken = bytearray(whole)
                broken[seeded.randrange(len(whole))] ^= 1 << seeded.randrange(8)
                yield bytes(broken)

        for golden in GOLDEN:
            expected = expected_of(golden)
            for name, work in self.damaged_copies(golden, "flip", damage):
                with self.subTest(golden=golden.name, object=name):
                    self.assert_honest(golden, work, name, expected)

    def test_truncation(self):
        def damage(seeded: random.Random, whole: bytes):
            sizes = [0, 1, seeded.randrange(len(whole)), len(whole) - 1]
            for size in sizes if FLIPS else seeded.sample(sizes, 1):
                yield whole[:size]

        for golden in GOLDEN:
            expected = expected_of(golden)
            for name, work in self.damaged_copies(golden, "cut", damage):
                with self.subTest(golden=golden.name, object=name):
                    self.assert_honest(golden, work, name, expected)

    def test_missing_objects(self):
        for golden in GOLDEN:
            work = self.copy(golden / "repo")
            for name in self.some_objects(golden, "missing"):
                whole = (work / name).read_bytes()
                (work / name).unlink()
                with self.subTest(golden=golden.name, object=str(name)):
                    status = run(work, "check", secret=way_in(golden)).status
                    if status == 0:
                        self.assert_nothing_needed_it(golden, work, name)
                    else:
                        self.assertEqual(status, 21)
                (work / name).write_bytes(whole)

    def assert_nothing_needed_it(self, golden: Path, work: Path, name: Path) -> None:
        """A head, a session, a log without a record, a segment of a backup that is forgotten."""
        self.assertNotIn(name.parts[0], ("keyring", "manifest", "manifest2"))
        for backup in expected_of(golden)["backups"]:
            told = run(work, "restore", backup["id"], str(self.fresh()), secret=way_in(golden))
            self.assertEqual(told.status, 0, told.err)
        self.assertTrue(name.parts[0] != "logs" or self.may_be_a_torn_tail(golden, str(name)))


if __name__ == "__main__":
    unittest.main()
