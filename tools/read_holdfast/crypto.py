"""Hashes, derived keys, AES-256-GCM and CRC-32C."""

from __future__ import annotations

from typing import Optional

import google_crc32c
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .limits import TAG


def digest(data: bytes) -> bytes:
    return blake3(data).digest()


def keyed(key: bytes, data: bytes) -> bytes:
    return blake3(data, key=key).digest()


def derive(purpose: str, material: bytes) -> bytes:
    return blake3(material, derive_key_context=f"holdfast format 1: {purpose}").digest()


def unseal(key: bytes, nonce: bytes, aad: bytes, sealed: bytes) -> Optional[bytes]:
    """The plaintext, or None where the tag does not match."""
    if len(sealed) < TAG:
        return None
    try:
        return AESGCM(key).decrypt(nonce, sealed, aad)
    except InvalidTag:
        return None


def crc32c(data: bytes) -> int:
    return google_crc32c.value(data)
