"""Opaque keyset cursors: where a list goes on. What stands in one is nobody's business but ours."""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_BYTES: Final = 8 + 16


class CursorError(ValueError):
    """A cursor that this API has not given out."""


def encode(raised_at: datetime, alert_id: UUID) -> str:
    """Return the cursor that stands behind this alert."""
    micros = (raised_at - _EPOCH) // timedelta(microseconds=1)
    return base64.urlsafe_b64encode(micros.to_bytes(8, "big", signed=True) + alert_id.bytes).decode()


def decode(cursor: str) -> tuple[datetime, UUID]:
    """Return the key a cursor stands for; raises CursorError."""
    try:
        raw = base64.b64decode(cursor.encode("ascii"), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise CursorError("cursor: not one of ours; take `next` of the last page as it is") from error
    if len(raw) != _BYTES:
        raise CursorError(f"cursor: expected {_BYTES} bytes, got {len(raw)}; take `next` of the last page")
    try:
        at = _EPOCH + timedelta(microseconds=int.from_bytes(raw[:8], "big", signed=True))
    except OverflowError as error:
        raise CursorError("cursor: its time is no date; take `next` of the last page") from error
    return at, UUID(bytes=raw[8:])
