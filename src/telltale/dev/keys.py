"""One API key per role, made once per data folder and kept there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from telltale.store.keys import create_key, find_caller
from telltale.store.pool import Pool, open_pool
from telltale.store.scope import ROLES, Role

TIMEOUT_S: Final = 10.0


async def keys_for(owner_url: str, path: Path, dealer: str) -> dict[str, str]:
    """Return a valid key for each role: those in `path` as far as the database knows them, else new ones."""
    kept = _read(path)
    pool = await open_pool(owner_url, role_name="dev", timeout_s=TIMEOUT_S)
    try:
        keys: dict[str, str] = {
            role: await _known_or_new(pool, kept.get(role, ""), role, dealer if role == "dealer" else None)
            for role in ROLES
        }
    finally:
        await pool.close()
    _write(path, keys)
    return keys


async def _known_or_new(pool: Pool, token: str, role: Role, dealer: str | None) -> str:
    caller = await find_caller(pool, token)
    if caller is not None and (caller.scope.role, caller.scope.dealer) == (role, dealer):
        return token
    async with pool.acquire() as connection:
        return (await create_key(connection, role, dealer, f"telltale dev, {role}")).token


def _read(path: Path) -> dict[str, str]:
    return dict(json.loads(path.read_text())) if path.exists() else {}


def _write(path: Path, keys: dict[str, str]) -> None:
    path.touch(mode=0o600)
    path.write_text(json.dumps(keys, indent=1))
