"""API keys: `tt_live_<id>_<secret>`. The database holds the SHA-256 of the secret, never the secret.

The secret is 192 random bits, so a plain digest is enough: there is nothing to guess, and a slow hash on
every request would only make the API easy to exhaust.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field
from typing import Any, Final

from telltale.errors import SettingsError
from telltale.store.pool import connect
from telltale.store.scope import ROLES, Role, Scope

PREFIX: Final = "tt_live_"
ADMIN_TIMEOUT_S: Final = 20.0
_TOKEN: Final = re.compile(r"tt_live_(?P<id>[0-9a-f]{12})_(?P<secret>[0-9a-f]{48})")
_NO_DIGEST: Final = bytes(32)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is asking: a key that is valid right now, and what it may see."""

    key_id: str
    name: str
    scope: Scope


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key just made; `token` is shown once and kept nowhere."""

    id: str
    token: str = field(repr=False)
    digest: bytes = field(repr=False)


def mint() -> NewKey:
    """Return a fresh key."""
    key_id, secret = secrets.token_hex(6), secrets.token_hex(24)
    return NewKey(key_id, f"{PREFIX}{key_id}_{secret}", _digest(secret))


def split_token(token: str) -> tuple[str, str] | None:
    """Return (id, secret) of a well-formed token, or None."""
    match = _TOKEN.fullmatch(token)
    return (match["id"], match["secret"]) if match else None


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


async def create_key(connection: Any, role: Role, dealer: str | None, name: str) -> NewKey:
    """Store a new key for this role and return it; connect as the owner, no worker may make keys."""
    scope, key = Scope(role, dealer), mint()
    await connection.execute(
        "INSERT INTO telltale.api_key (id, secret_sha256, role, dealer, name) VALUES ($1, $2, $3, $4, $5)",
        key.id,
        key.digest,
        scope.role,
        scope.dealer,
        name,
    )
    return key


async def revoke_key(connection: Any, key_id: str) -> bool:
    """End a key's life; tell whether there was such a key still alive."""
    row = await connection.fetchrow(
        "UPDATE telltale.api_key SET revoked_at = now() WHERE id = $1 AND revoked_at IS NULL RETURNING id",
        key_id,
    )
    return row is not None


async def make_key(url: str, role: str, dealer: str | None, name: str) -> NewKey:
    """Make a key in the database at `url`; raises SettingsError for a role that does not exist."""
    known = next((one for one in ROLES if one == role), None)
    if known is None:
        raise SettingsError(f"key: expected a role of {', '.join(ROLES)}, got {role!r}")
    connection = await connect(url, role_name="key", timeout_s=ADMIN_TIMEOUT_S)
    try:
        return await create_key(connection, known, dealer, name)
    finally:
        await connection.close()


async def end_key(url: str, key_id: str) -> None:
    """Revoke a key in the database at `url`; raises SettingsError when there is no such key alive."""
    connection = await connect(url, role_name="key", timeout_s=ADMIN_TIMEOUT_S)
    try:
        if not await revoke_key(connection, key_id):
            raise SettingsError(f"key: expected the id of a key that is not revoked, got {key_id!r}")
    finally:
        await connection.close()


async def find_caller(pool: Any, token: str) -> Caller | None:
    """Return whom a token belongs to, or None when it is malformed, unknown, wrong or revoked.

    Asked of the database on every request, so that a revoked key stops at once.
    """
    parts = split_token(token)
    if parts is None:
        return None
    row = await pool.fetchrow(
        "SELECT id, secret_sha256, role, dealer, name FROM telltale.api_key "
        "WHERE id = $1 AND revoked_at IS NULL",
        parts[0],
    )
    known = row["secret_sha256"] if row else _NO_DIGEST
    if not hmac.compare_digest(known, _digest(parts[1])) or row is None:
        return None
    return Caller(row["id"], row["name"], Scope(row["role"], row["dealer"]))
