"""A segment as bytes and back, for the table that keeps one per vehicle and hour."""

from __future__ import annotations

import zlib
from dataclasses import astuple
from typing import Any, Final

import msgspec
import numpy as np

from telltale.errors import TelltaleError
from telltale.fold.frames import Ints
from telltale.fold.segments import RestFrame, RestSum, Segment

PACKED_VERSION: Final = 1  # raise it when the fold changes: older segments are folded again from raw


def pack(segment: Segment) -> bytes:
    """Return the segment as bytes."""
    rest = [(key, _plain(sums)) for key, sums in segment.rest.items()]
    head = [_plain(frame) for frame in segment.head]
    rest_of = (_plain_value(getattr(segment, name)) for name in _SCALARS)
    return zlib.compress(msgspec.msgpack.encode([PACKED_VERSION, [*rest_of], rest, head]), 1)


def unpack(packed: bytes) -> Segment:
    """Return the segment of these bytes; raises TelltaleError when another version packed them."""
    version, scalars, rest, head = msgspec.msgpack.decode(zlib.decompress(packed))
    if version != PACKED_VERSION:
        raise TelltaleError(
            f"fold: expected a segment of version {PACKED_VERSION}, got {version}; "
            "mark its hour dirty to have it folded again from the raw rows"
        )
    fields: dict[str, Any] = dict(zip(_SCALARS, map(_value, scalars), strict=True))
    fields["signals"] = fields["signals"].reshape(-1, 4)
    sums = {(key[0], key[1]): RestSum(*map(_value, values)) for key, values in rest}
    frames = tuple(RestFrame(*map(_value, values)) for values in head)
    return Segment(rest=sums, head=frames, **fields)


_SCALARS: Final = tuple(name for name in Segment.__slots__ if name not in ("rest", "head"))


def _plain(record: RestSum | RestFrame) -> list[int | bytes]:
    return [_plain_value(value) for value in astuple(record)]


def _plain_value(value: int | bool | Ints) -> int | bytes:
    return value.astype("<i8").tobytes() if isinstance(value, np.ndarray) else value


def _value(plain: int | bytes) -> Any:
    return np.frombuffer(plain, "<i8").astype(np.int64) if isinstance(plain, bytes) else plain
