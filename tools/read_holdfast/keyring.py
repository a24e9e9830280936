"""Keyring, key slots, recovery kit: format-spec/keyring.md."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Optional

import argon2

from .limits import LIMIT_KEKS, LIMIT_KEYRING, LIMIT_NAME, LIMIT_SLOTS
from .errors import Damage, Journal, NoRepository, UnknownVersion, WrongSecret
from .wire import Cursor
from .crypto import derive, digest, unseal
from .objects import ObjectStore, hashed_body

KEYRING_COPIES = ("keyring/0", "keyring/1", "keyring/2")
FEATURE_SEALED_AGAIN = 1
SLOT_KINDS = {1: "passphrase", 2: "key file"}


@dataclass(frozen=True)
class Argon2Cost:
    salt: bytes
    memory_kib: int
    passes: int
    lanes: int


@dataclass(frozen=True)
class Slot:
    ident: bytes
    kind: str
    cost: Optional[Argon2Cost]
    label: str
    made: int
    bound: bytes  # the slot's bytes from its id up to and including its time
    nonce: bytes
    wrapped: bytes


@dataclass(frozen=True)
class KeyringObject:
    name: str
    repository: bytes
    generation: int
    slots: list[Slot]
    bound: bytes  # magic to generation
    nonce: bytes
    sealed: bytes


@dataclass(frozen=True)
class Secrets:
    root_key: bytes
    keks: dict[int, bytes]


@dataclass(frozen=True)
class Credentials:
    """What the user brought; exactly one of them is set."""

    passphrase: Optional[bytes] = None
    key_file: Optional[bytes] = None
    recovery_kit: Optional[str] = None


@dataclass
class Keys:
    """Every key of an opened repository."""

    repository: bytes
    secrets: Secrets

    def __post_init__(self) -> None:
        self.block_id = derive("block ids", self.secrets.root_key)
        self.head = derive("heads", self.secrets.root_key)
        self.stream_tag = derive("stream tags", self.secrets.root_key)
        self._manifest = {
            generation: derive("manifest records", kek + self.repository)
            for generation, kek in self.secrets.keks.items()
        }

    def kek(self, generation: int, obj: str, place: str) -> bytes:
        if generation not in self.secrets.keks:
            raise Damage(obj, place, f"names KEK generation {generation}, which the keyring lacks")
        return self.secrets.keks[generation]

    def manifest(self, generation: int, obj: str) -> bytes:
        self.kek(generation, obj, "generation of the KEK")
        return self._manifest[generation]


def parse_slot(cur: Cursor) -> Slot:
    start = cur.at
    ident = cur.take(8)
    kind = cur.choice(SLOT_KINDS, "kind of slot")
    cost = None
    if kind == "passphrase":
        cost = Argon2Cost(cur.take(32), cur.u32(), cur.u32(), cur.u32())
        if not (1 <= cost.memory_kib <= 4_194_304 and 1 <= cost.passes <= 64 and 1 <= cost.lanes <= 64):
            raise cur.bad("parameters of Argon2id are out of their limits")
    label = cur.text(LIMIT_NAME, "label")
    made = cur.i64()
    return Slot(ident, kind, cost, label, made, cur.data[start : cur.at], cur.take(12), cur.take(48))


def parse_keyring(data: bytes, name: str) -> KeyringObject:
    cur = Cursor(hashed_body(data, name), name, "keyring")
    cur.magic(b"HFKEYS\0\0")
    cur.version()
    # What a writer must know is nothing to a reader.
    features, _for_writers = cur.u32(), cur.u32()
    unknown = features & ~FEATURE_SEALED_AGAIN
    if unknown:
        raise cur.bad(f"the repository uses features (0x{unknown:x}) that this reader does not know")
    state = cur.u32()
    if state > features & FEATURE_SEALED_AGAIN:
        raise cur.bad(f"the state of a re-encryption is {state}")
    repository, generation = cur.ident(), cur.u64()
    bound = cur.data[: cur.at]
    slots = [parse_slot(cur) for _ in range(cur.count(LIMIT_SLOTS, 81, "slots"))]
    nonce, sealed = cur.take(12), cur.blob(LIMIT_KEYRING, "secrets")
    cur.end()
    return KeyringObject(name, repository, generation, slots, bound, nonce, sealed)


def parse_secrets(cur: Cursor) -> Secrets:
    cur.version()
    root_key = cur.take(32)
    keks: dict[int, bytes] = {}
    last = -1
    for _ in range(cur.count(LIMIT_KEKS, 36, "KEKs")):
        generation = cur.u32()
        if generation <= last:
            raise cur.bad("generations of the KEKs do not rise")
        last = generation
        keks[generation] = cur.take(32)
    if not keks:
        raise cur.bad("there is no KEK")
    return Secrets(root_key, keks)


def slot_key(slot: Slot, given: Credentials) -> Optional[bytes]:
    """The key of a slot, where what the user brought is of the slot's kind."""
    if slot.kind == "passphrase" and given.passphrase is not None:
        return argon2.low_level.hash_secret_raw(
            secret=given.passphrase,
            salt=slot.cost.salt,
            time_cost=slot.cost.passes,
            memory_cost=slot.cost.memory_kib,
            parallelism=slot.cost.lanes,
            hash_len=32,
            type=argon2.low_level.Type.ID,
            version=0x13,
        )
    if slot.kind == "key file" and given.key_file is not None:
        return derive("key file", given.key_file)
    return None


def unlock_with_slots(ring: KeyringObject, given: Credentials) -> bytes:
    for slot in ring.slots:
        try:
            key = slot_key(slot, given)
        except argon2.exceptions.HashingError as error:
            raise Damage(ring.name, f"slot {slot.ident.hex()}", f"Argon2id refuses: {error}") from None
        unlocked = key and unseal(key, slot.nonce, ring.repository + slot.bound, slot.wrapped)
        if unlocked:
            return unlocked
    raise WrongSecret(f"{ring.name}: none of its {len(ring.slots)} slots opens with what was given")


def open_secrets(ring: KeyringObject, unlock_key: bytes) -> Secrets:
    plain = unseal(unlock_key, ring.nonce, ring.bound, ring.sealed)
    if plain is None:
        raise Damage(ring.name, "secrets", "tag does not match")
    cur = Cursor(plain, ring.name, "secrets")
    secrets = parse_secrets(cur)
    cur.end()
    return secrets


@dataclass(frozen=True)
class RecoveryKit:
    repository: bytes
    unlock_key: bytes
    secrets: Secrets


def parse_recovery_kit(text: str) -> RecoveryKit:
    found = re.search(
        r"-----BEGIN HOLDFAST RECOVERY KIT-----(.*?)-----END HOLDFAST RECOVERY KIT-----", text, re.DOTALL
    )
    if not found:
        raise WrongSecret("recovery kit: its first or last line is missing")
    try:
        data = bytes.fromhex("".join(found.group(1).split()))
    except ValueError:
        raise WrongSecret("recovery kit: holds something else than hexadecimal digits") from None
    if len(data) < 8 or digest(data[:-8])[:8] != data[-8:]:
        raise WrongSecret("recovery kit: its check digits do not match; was it typed wrong?")
    cur = Cursor(data[:-8], "recovery kit", "")
    cur.version()
    kit = RecoveryKit(cur.ident(), cur.take(32), parse_secrets(cur))
    cur.end()
    return kit


def read_keyrings(store: ObjectStore, journal: Journal) -> list[KeyringObject]:
    """The copies that are whole, those of the highest generation first."""
    rings = []
    other = None
    for name in KEYRING_COPIES:
        try:
            data = store.load(name, LIMIT_KEYRING)
            if data is None:
                journal.damage(name, "", "this copy of the keyring is missing")
            else:
                rings.append(parse_keyring(data, name))
        except Damage as error:
            other = error if isinstance(error, UnknownVersion) else other
            journal.caught(error)
    if other and not rings:
        raise other  # a repository of another version, not a damaged one
    rings.sort(key=lambda ring: -ring.generation)
    for ring in rings[1:]:
        if ring.generation < rings[0].generation:
            journal.note(ring.name, "", f"is of generation {ring.generation}, not {rings[0].generation}")
        elif ring != KeyringObject(**{**rings[0].__dict__, "name": ring.name}):
            journal.damage(ring.name, "", f"differs from {rings[0].name} of the same generation")
    return rings


def open_keys(store: ObjectStore, given: Credentials, journal: Journal) -> Keys:
    if not any(store.has(name) for name in KEYRING_COPIES):
        if not (store.names("manifest") or store.names("manifest2")):
            raise NoRepository(f"{store.root}: no keyring and no manifest: not a repository")
    rings = read_keyrings(store, journal)
    if given.recovery_kit is not None:
        return open_keys_with_kit(rings, parse_recovery_kit(given.recovery_kit), journal)
    if not rings:
        raise Damage("keyring/*", "", "no copy is whole; only a recovery kit can open the repository")
    ring = rings[0]
    return Keys(ring.repository, open_secrets(ring, unlock_with_slots(ring, given)))


def open_keys_with_kit(rings: list[KeyringObject], kit: RecoveryKit, journal: Journal) -> Keys:
    if not rings:
        return Keys(kit.repository, kit.secrets)
    ring = rings[0]
    if ring.repository != kit.repository:
        raise WrongSecret(f"the recovery kit is of repository {kit.repository.hex()}")
    try:
        return Keys(ring.repository, open_secrets(ring, kit.unlock_key))
    except Damage as error:
        journal.caught(error)
        return Keys(kit.repository, kit.secrets)
