"""Errors that end a command, and findings that are told beside its output."""

from __future__ import annotations

from dataclasses import dataclass

from .limits import VERSION


class HoldfastError(Exception):
    """Something that ends a command; `status` is the exit status."""

    status = 1


class UsageError(HoldfastError):
    status = 2


class NoRepository(HoldfastError):
    status = 10


class WrongSecret(HoldfastError):
    status = 12


class NotThere(HoldfastError):
    status = 20


class Damage(HoldfastError):
    """An object that is not as the format demands.  Names the object and the place in it."""

    status = 21

    def __init__(self, obj: str, place: str, problem: str):
        super().__init__(f"{obj}: {place}: {problem}" if place else f"{obj}: {problem}")
        self.obj, self.place, self.problem = obj, place, problem


class UnknownVersion(Damage):
    """A whole structure of a version that this reader does not know."""

    def __init__(self, obj: str, place: str, version: int):
        super().__init__(obj, place, f"needs a reader of version {version}; this one knows {VERSION}")


@dataclass(frozen=True)
class Finding:
    severity: str  # "damage" or "note"
    obj: str
    place: str
    problem: str

    def __str__(self) -> str:
        where = f"{self.obj}: {self.place}" if self.place else self.obj
        return f"{self.severity}: {where}: {self.problem}"


class Journal:
    """What was found on the way, each finding once."""

    def __init__(self) -> None:
        self._findings: dict[Finding, None] = {}

    def damage(self, obj: str, place: str, problem: str) -> None:
        self._findings.setdefault(Finding("damage", obj, place, problem))

    def note(self, obj: str, place: str, problem: str) -> None:
        self._findings.setdefault(Finding("note", obj, place, problem))

    def caught(self, error: Damage) -> None:
        self.damage(error.obj, error.place, error.problem)

    @property
    def findings(self) -> list[Finding]:
        return list(self._findings)

    @property
    def damaged(self) -> bool:
        return any(f.severity == "damage" for f in self._findings)
