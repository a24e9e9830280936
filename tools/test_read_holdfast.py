"""Checks that read_holdfast.py reads each golden repository as the JSON beside it says.

    test_read_holdfast.py tests/golden

A golden repository is a folder with `repo/`, `passphrase` and `expected.json`. Exit status 0 only
if everything that was expected was read, restored to the byte, and refused when damaged.
"""

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import blake3

TOOL = Path(__file__).with_name("read_holdfast.py")
failures = []


def expect(condition, what):
    if not condition:
        failures.append(what)
        print(f"FAILED: {what}", file=sys.stderr)


def run(repo, passphrase, *verb):
    command = [sys.executable, str(TOOL), str(repo), "--passphrase-file", str(passphrase), *verb]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def compare_restored(backup, target, label):
    for file in backup["files"]:
        path = target / os.fsencode(file["path"]).decode(errors="surrogateescape")
        info = path.lstat()
        if file["kind"] == "link":
            expect(os.readlink(path) == file["target"], f"{label}: {path} points to {file['target']}")
            continue
        expect(stat.S_IMODE(info.st_mode) == file["mode"], f"{label}: {path} has mode {file['mode']:o}")
        expect(info.st_mtime_ns // 1000 == file["mtime_us"], f"{label}: {path} has its time")
        if file["kind"] == "file":
            data = path.read_bytes()
            expect(len(data) == file["len"], f"{label}: {path} has {file['len']} bytes")
            expect(blake3.blake3(data).hexdigest() == file["blake3"], f"{label}: {path} has its bytes")
    restored = {str(p.relative_to(target)) for p in target.rglob("*")}
    expect(restored == {f["path"] for f in backup["files"]}, f"{label}: nothing more and nothing less is there")


def damaged(golden, label):
    """One flipped bit in each kind of object is noticed."""
    with tempfile.TemporaryDirectory() as folder:
        repo = Path(folder) / "repo"
        shutil.copytree(golden / "repo", repo)
        for path in sorted(p for p in repo.rglob("*") if p.is_file() and p.stat().st_size):
            name = path.relative_to(repo)
            # Sessions and locks are not read by a reader.
            if name.parts[0] in ("sessions", "locks"):
                continue
            data = bytearray(path.read_bytes())
            place = 4096 + 40 if len(data) > 8192 else len(data) // 2
            data[place] ^= 0x10
            path.write_bytes(data)
            result = run(repo, golden / "passphrase", "list", "--json")
            noticed = result.returncode == 21 or (result.returncode == 0 and "another copy serves" in result.stderr)
            # A log that nobody sealed ends where no right frame begins any more.
            open_log = result.returncode == 0 and name.parts[0] == "logs" and result.stdout != expected_text(golden)
            expect(noticed or open_log, f"{label}: a flipped bit in {name} is noticed (exit {result.returncode})")
            data[place] ^= 0x10
            path.write_bytes(data)


def expected_text(golden):
    return json.dumps(json.loads((golden / "expected.json").read_text()), indent=1) + "\n"


def golden_repository(golden):
    label = golden.name
    expected = json.loads((golden / "expected.json").read_text())
    listed = run(golden / "repo", golden / "passphrase", "list", "--json")
    expect(listed.returncode == 0, f"{label}: it is read ({listed.stderr.strip()})")
    expect(listed.returncode == 0 and json.loads(listed.stdout) == expected, f"{label}: it holds what is expected")
    short = run(golden / "repo", golden / "passphrase", "list")
    expect(len(short.stdout.splitlines()) == len(expected["backups"]), f"{label}: each backup is listed")
    with tempfile.TemporaryDirectory() as folder:
        for backup in expected["backups"]:
            target = Path(folder) / backup["id"]
            result = run(golden / "repo", golden / "passphrase", "restore", backup["id"], str(target))
            expect(result.returncode == 0, f"{label}: {backup['id']} is restored ({result.stderr.strip()})")
            if result.returncode == 0:
                compare_restored(backup, target, label)
        wrong = Path(folder) / "wrong"
        wrong.write_text("not the passphrase\n")
        expect(run(golden / "repo", wrong, "list").returncode == 12, f"{label}: a wrong passphrase is refused")
        expect(run(folder, wrong, "list").returncode == 10, f"{label}: a folder without a repository is refused")
    damaged(golden, label)


def main():
    folders = sorted(p.parent for p in Path(sys.argv[1]).glob("*/expected.json"))
    if not folders:
        raise SystemExit(f"no golden repository in {sys.argv[1]}")
    for golden in folders:
        golden_repository(golden)
    if failures:
        raise SystemExit(f"{len(failures)} expectations failed")
    print(f"{len(folders)} golden repositories read, restored and refused as expected")


if __name__ == "__main__":
    main()
