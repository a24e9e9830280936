"""The command line."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Optional

import read_holdfast

from .errors import Damage, HoldfastError, NotThere, UsageError
from .limits import LIMIT_DEPTH
from .wire import backup_name
from .crypto import digest
from .keyring import Credentials
from .records import BackupCommitted, Stream
from .segments import FRAME_KINDS, KIND_OPENING
from .logs import LogSegment, archived_files, write_archived_file
from .maps import MapFile
from .repository import Repository
from .restore import Restorer
from .check import Checker, known_gap


def file_as_json(file: MapFile) -> dict:
    told = {
        "path": file.text_path,
        "kind": file.kind,
        "len": file.size,
        "mode": file.mode,
        "mtime_us": file.mtime,
    }
    if file.kind == "link":
        told["target"] = os.fsdecode(file.target)
    if file.kind == "file":
        told["blocks"] = {kind: file.count(kind) for kind in ("data", "zero", "hole")}
    return told


def backup_as_json(repo: Repository, backup: BackupCommitted) -> dict:
    learned = repo.learned.get(backup.ident)
    files = repo.map_of(backup).files
    depths = Counter()
    for run in (run for file in files for run in file.runs if run.kind == "data"):
        depths[run.depth] += run.count
    return {
        "id": backup.name,
        "server": repo.server_name(backup.server),
        "source": backup.source,
        "begin_us": backup.begin,
        "end_us": backup.end,
        "parent": backup.parent and backup_name(backup.parent),
        "map": str(backup.map),
        "coordinates": [position.as_json() for position in backup.coordinates.positions],
        "learned": learned and learned.as_json(),
        "facts": backup.facts,
        "note": backup.note,
        "stats": backup.stats.__dict__,
        "warnings": list(backup.warnings),
        "depths": [depths[depth] for depth in range(LIMIT_DEPTH + 1)],
        "files": [file_as_json(file) for file in files],
    }


def log_as_json(log: LogSegment, frames: bool) -> dict:
    told = {
        "stream": str(log.opening.stream),
        "number": log.opening.number,
        "segment": log.segment.hex(),
        "sealed": log.sealed,
        "file": log.opening.position.file,
        "offset": log.opening.position.offset,
        "event_bytes": log.event_bytes,
    }
    if frames:
        told["frames"] = [
            {
                "kind": FRAME_KINDS[frame.header.kind],
                "len": frame.header.plain_size,
                "blake3": digest(log.plaintext(frame)).hex(),
            }
            for frame in log.frames
            if frame.header.kind != KIND_OPENING
        ]
    return told


def print_json(value: object) -> None:
    text = json.dumps(value, indent=2, ensure_ascii=False)
    sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape") + b"\n")


def command_list(repo: Repository, args: argparse.Namespace) -> None:
    backups = list(repo.backups.values())
    logs = [log for stream in repo.log_segments().values() for log in stream]
    if args.json:
        told = {"repository": repo.keys.repository.hex(), "records": len(repo.records)}
        told["backups"] = [backup_as_json(repo, backup) for backup in backups]
        told["logs"] = [log_as_json(log, frames=False) for log in logs]
        print_json(told)
        return
    print(f"repository {repo.keys.repository.hex()}, {len(repo.records)} records")
    for backup in backups:
        stats = backup.stats
        print(
            f"backup {backup.name}  {repo.server_name(backup.server)}  {backup.source}  "
            f"{stats.files} files, {stats.file_bytes} bytes  {backup.note!r}"
        )
    for log in logs:
        print_log(repo, log)


def print_log(repo: Repository, log: LogSegment) -> None:
    state = "sealed" if log.sealed else "open"
    print(
        f"log {repo.server_name(log.opening.stream.server)}  {log.opening.stream}  number {log.opening.number}  "
        f"{state}  from {log.opening.position}, {log.event_bytes} bytes of events  {log.name}"
    )


def command_restore(repo: Repository, args: argparse.Namespace) -> None:
    backup = repo.find_backup(args.backup)
    restorer = Restorer(repo, backup, Path(args.dir))
    found = restorer.run()
    left_out = f", {len(restorer.failed)} left out" if restorer.failed else ""
    print(f"backup {backup.name}: {len(found.files) - len(restorer.failed)} files and folders restored{left_out}")
    if restorer.failed:
        raise Damage(f"backup {backup.name}", "", f"{len(restorer.failed)} damaged files were left out")


def command_check(repo: Repository, args: argparse.Namespace) -> None:
    checker = Checker(repo)
    checker.run()
    findings = repo.journal.findings
    if args.json:
        told = {"repository": repo.keys.repository.hex(), "ok": not repo.journal.damaged}
        told["counts"] = dict(checker.counts)
        told["findings"] = [
            {"severity": f.severity, "object": f.obj, "place": f.place, "problem": f.problem} for f in findings
        ]
        print_json(told)
        return
    print(", ".join(f"{count} {what}" for what, count in checker.counts.items()))
    print("damaged" if repo.journal.damaged else "everything verified")


def streams_named(repo: Repository, name: str, args: argparse.Namespace) -> dict[Stream, list[LogSegment]]:
    def fits(stream: Stream) -> bool:
        named = name in (str(stream), stream.server.hex(), repo.server_name(stream.server))
        return named and (args.stream is None or args.stream == str(stream))

    found = {stream: logs for stream, logs in repo.log_segments().items() if fits(stream)}
    if not found:
        raise NotThere(f"no archived log of {name}")
    return found


def command_log(repo: Repository, args: argparse.Namespace) -> None:
    streams = streams_named(repo, args.name, args)
    if args.cat is not None:
        cat_log(repo, streams, args.cat)
    elif args.json:
        print_json([log_as_json(log, frames=True) for logs in streams.values() for log in logs])
    else:
        for stream, logs in streams.items():
            for log in logs:
                print_log(repo, log)
            for archived in archived_files(logs).values():
                print(f"file {archived.file!r}  {stream}  bytes {archived.begin} to {archived.end}")


def cat_log(repo: Repository, streams: dict[Stream, list[LogSegment]], file: str) -> None:
    found = [(s, files[file]) for s, logs in streams.items() if file in (files := archived_files(logs))]
    if not found:
        raise NotThere(f"no binlog file {file!r} is archived there")
    if len(found) > 1:
        names = ", ".join(str(stream) for stream, _ in found)
        raise UsageError(f"several streams have {file!r}; choose one with --stream: {names}")
    stream, archived = found[0]
    if archived.begin != 4:
        raise NotThere(f"{file!r} is archived only from offset {archived.begin} on")
    for log, end, problem in archived.problems:
        if known_gap(repo, stream, file, end):
            raise NotThere(f"{file!r} has a gap that a record tells of: {log.name}: {problem}")
        raise Damage(log.name, "events", problem)
    for before, after in zip(archived.stretches, archived.stretches[1:]):
        if before.end != after.begin:
            raise Damage(after.log.name, "events", f"{file!r} lacks bytes {before.end} to {after.begin}")
    write_archived_file(archived, sys.stdout.buffer.write)
    sys.stdout.buffer.flush()


def read_given_file(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None


def credentials(args: argparse.Namespace) -> Credentials:
    if args.passphrase_file:
        data = read_given_file(args.passphrase_file)
        return Credentials(passphrase=data.split(b"\n", 1)[0].removesuffix(b"\r"))
    if args.key_file:
        return Credentials(key_file=read_given_file(args.key_file))
    return Credentials(recovery_kit=read_given_file(args.recovery_kit).decode("utf-8", "replace"))


def argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="read-holdfast", description=read_holdfast.__doc__.split("\n", 1)[0])
    parser.add_argument("repo", metavar="REPO")
    secret = parser.add_mutually_exclusive_group(required=True)
    secret.add_argument("--passphrase-file", metavar="F")
    secret.add_argument("--key-file", metavar="F")
    secret.add_argument("--recovery-kit", metavar="F")
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("list", help="backups, their files, and logs")
    one.add_argument("--json", action="store_true")
    one.set_defaults(run=command_list)
    one = commands.add_parser("restore", help="write a backup's files into an empty folder")
    one.add_argument("backup", metavar="BACKUP")
    one.add_argument("dir", metavar="DIR")
    one.set_defaults(run=command_restore)
    one = commands.add_parser("check", help="read and verify everything")
    one.add_argument("--json", action="store_true")
    one.set_defaults(run=command_check)
    one = commands.add_parser("log", help="archived binlogs")
    one.add_argument("name", metavar="NAME")
    what = one.add_mutually_exclusive_group(required=True)
    what.add_argument("--list", action="store_true")
    what.add_argument("--cat", metavar="FILE")
    one.add_argument("--stream", metavar="HEX")
    one.add_argument("--json", action="store_true")
    one.set_defaults(run=command_log)
    return parser


def main(argv: Optional[list[str]] = None) -> int:
    args = argument_parser().parse_args(argv)
    repo: Optional[Repository] = None
    status = 0
    try:
        repo = Repository(Path(args.repo), credentials(args))
        args.run(repo, args)
    except HoldfastError as error:
        print(f"read_holdfast: {error}", file=sys.stderr)
        status = error.status
    except BrokenPipeError:
        status = 1
    except OSError as error:
        print(f"read_holdfast: {error.filename or 'output'}: {error.strerror}", file=sys.stderr)
        status = 1
    if repo is not None:
        for finding in repo.journal.findings:
            print(f"read_holdfast: {finding}", file=sys.stderr)
        if status == 0 and repo.journal.damaged and must_fail(args):
            status = Damage.status
    return status


def must_fail(args: argparse.Namespace) -> bool:
    """Damage found on the way fails every command but those whose output was proved whole without it."""
    return args.command != "restore"

