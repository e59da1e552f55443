"""A 64-bit digest of a data unit: tells a conflicting re-send from a repeated one.

Multilinear hashing (Lemire and Kaser): the sum of 32-bit words times fixed 64-bit keys, here modulo 2^64 and
mixed at the end. The keys come from splitmix64, so the digest is the same on every machine and in every
release. It is no cryptographic hash: it is only compared between readings of the same identity.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from telltale.records import Array

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


@lru_cache(maxsize=256)
def _keys(words: int) -> NDArray[np.uint64]:
    counter = np.arange(1, words + 2, dtype=np.uint64)
    return _mix(counter * _GOLDEN) | np.uint64(1)


def digests(units: Array) -> NDArray[np.int64]:
    """Return one digest per row of bytes (n, length)."""
    rows, length = units.shape
    words = (length + 3) // 4
    padded = np.zeros((rows, words * 4), np.uint8)
    padded[:, :length] = units
    keys = _keys(words)
    total: NDArray[Any] = padded.view("<u4").astype(np.uint64) @ keys[:words]
    mixed = _mix(total + keys[words:] * np.uint64(length + 1))
    return mixed.view(np.int64)


def digest(unit: bytes) -> int:
    """Return the digest of one data unit."""
    return int(digests(np.frombuffer(unit, np.uint8).reshape(1, -1))[0])
