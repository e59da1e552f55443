"""The demo held to its accounts: what was sent, what became of it, and whether that is the same."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Final

from rich.table import Table

from telltale.dev.stack import Stack
from telltale.store.accounts import OUTCOMES, Account, accounts
from telltale.store.pool import connect

FEEDER_STOP_S: Final = 60.0  # what it is sending is finished and counted
CATCH_UP_S: Final = 120.0
TIMEOUT_S: Final = 20.0


async def check_accounts(stack: Stack, tell: Callable[[str], None]) -> tuple[bool, Table]:
    """Stop the feeder, wait until ingest has read everything, and compare: (adds up, table by protocol)."""
    await stack.crew.stop(FEEDER_STOP_S, "demo")
    sent = _sent(stack)
    tell(f"the fleet sent {sum(sent.values()):,} frames; waiting until all are read")
    found = await _until_read(stack, sent)
    rows = [(sent.get(p, 0), found.get(p, Account(p, 0))) for p in sorted(sent.keys() | found.keys())]
    adds_up = bool(rows) and all(given == account.sent and account.adds_up for given, account in rows)
    return adds_up, _table(rows)


def _sent(stack: Stack) -> dict[str, int]:
    """Return what the feeder counted, by protocol; nothing if the count is of other topics."""
    path = stack.root / "sent.json"
    noted = json.loads(path.read_text()) if path.exists() else {"topics": [], "sent": {}}
    mine = set(noted["topics"]) == {stack.live_topic, stack.backlog_topic}
    return dict(noted["sent"]) if mine else {}


async def _until_read(stack: Stack, sent: dict[str, int]) -> dict[str, Account]:
    """Return the accounts once they hold as many frames as were sent, or after CATCH_UP_S as they are."""
    topics = [stack.live_topic, stack.backlog_topic]
    url = stack.url_of("telltale_api")
    connection = await connect(url, role_name="check", timeout_s=TIMEOUT_S)
    deadline = time.monotonic() + CATCH_UP_S
    try:
        while True:
            found = {account.protocol: account for account in await accounts(connection, topics)}
            read = sum(account.sent for account in found.values())
            if read >= sum(sent.values()) or time.monotonic() > deadline:
                return found
            await asyncio.sleep(0.5)
    finally:
        await connection.close()


def _table(rows: list[tuple[int, Account]]) -> Table:
    table = Table(title="sent = stored + partial + duplicate + conflicting + control + rejected")
    for column in ("protocol", "sent", "read", *OUTCOMES, "adds up"):
        table.add_column(column, justify="left" if column == "protocol" else "right")
    for given, account in rows:
        outcomes = [f"{getattr(account, outcome):,}" for outcome in OUTCOMES]
        fine = given == account.sent and account.adds_up
        table.add_row(account.protocol, f"{given:,}", f"{account.sent:,}", *outcomes, "yes" if fine else "NO")
    return table
