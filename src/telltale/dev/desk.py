"""What `telltale dev` and `telltale demo` say and ask at the terminal."""

from __future__ import annotations

import asyncio
import json
import sys
import webbrowser
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from telltale.config import Settings
from telltale.demo import featured_dealer
from telltale.dev.check import check_accounts
from telltale.dev.stack import Plan, Stack, run_stack
from telltale.errors import TelltaleError

ROLE_TEXTS = {
    "dealer": "service adviser of dealer {dealer}: today's alerts, one alert, acknowledge, close",
    "quality": "quality engineer: the whole fleet",
    "ops": "operations: reads, does not edit",
}


@dataclass(frozen=True, slots=True)
class Wish:
    """What the command line asked for."""

    data_dir: Path
    verbs: frozenset[str]
    headless: bool = False
    broker: str | None = None
    database: str | None = None
    with_demo: bool = False
    open_page: bool = False


async def run(wish: Wish, settings: Settings, stop: asyncio.Event) -> None:
    """Run until told to stop; say where everything is, as one JSON line or for people."""
    plan = _plan(wish, settings)

    def announce(stack: Stack) -> None:
        if wish.headless:
            print(json.dumps(stack.describe()), flush=True)  # noqa: T201
            return
        _tell_people(stack, plan.dealer)
        if wish.open_page:
            webbrowser.open(stack.link("dealer"))

    await run_stack(plan, stop, announce)


async def check(wish: Wish, settings: Settings, stop: asyncio.Event, seconds: float) -> None:
    """Run for a while, then print the accounts. Raises TelltaleError when they do not add up."""
    console = Console(stderr=False, width=120)
    plan = _plan(wish, settings)
    async with Stack(plan) as stack:
        console.print(f"running for {seconds:.0f} s in {stack.root}")
        watching = asyncio.create_task(stack.watch())
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({watching, stopping}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if watching.done():
            await watching
        adds_up, table = await check_accounts(stack, console.print)
        stopping.cancel()
        watching.cancel()
        console.print(table)
    if not adds_up:
        raise TelltaleError("demo: the accounts do not add up; see the table")


def _plan(wish: Wish, settings: Settings) -> Plan:
    wish.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    dealer = featured_dealer(wish.data_dir) if wish.with_demo else "D01"
    return Plan(
        wish.data_dir, settings, wish.verbs, wish.broker, wish.database, demo=wish.with_demo, dealer=dealer
    )


def _tell_people(stack: Stack, dealer: str) -> None:
    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    console.print("\n[bold]telltale is running.[/bold] One link per role signs you in:\n")
    for role, text in ROLE_TEXTS.items():
        console.print(f"  {role:8} {stack.link(role)}\n           {text.format(dealer=dealer)}")
    console.print(f"\n  Kafka    {stack.kafka}  topics {stack.live_topic}, {stack.backlog_topic}")
    console.print(f"  database {stack.database}")
    console.print(f"  workers  {', '.join(f'{name} ({pid})' for name, pid in stack.crew.pids.items())}")
    console.print(f"  folder   {stack.root}: data, keys and logs; delete it and nothing is left")
    console.print("\nCtrl-C stops everything.\n")
