"""Everything an installation needs, looked at once: database and Kafka."""

from __future__ import annotations

from telltale.broker import partitions_of
from telltale.config import Settings
from telltale.errors import TelltaleError
from telltale.store import doctor as database
from telltale.store.doctor import Finding
from telltale.store.pool import InterfaceError, PostgresError, next_step


async def examine(settings: Settings) -> list[Finding]:
    """Return what was found, in the order to look at it; a server that cannot be reached is a finding."""
    return [*await _database(settings), *await _kafka(settings)]


async def _database(settings: Settings) -> list[Finding]:
    try:
        return await database.examine(settings.database, timeout_s=settings.database_timeout_s)
    except (PostgresError, InterfaceError, OSError) as error:
        step = next_step(error) or "is the server running, and is TELLTALE_DATABASE right?"
        return [Finding("PostgreSQL", f"no answer: {error or type(error).__name__}", step)]


async def _kafka(settings: Settings) -> list[Finding]:
    names = (settings.live_topic, settings.backlog_topic)
    try:
        partitions = await partitions_of(settings.kafka, names)
    except TelltaleError as error:
        return [Finding("Kafka", "no answer", str(error))]
    found = [Finding("Kafka", settings.kafka)]
    for name in names:
        if name in partitions:
            found.append(Finding(f"topic {name}", f"{partitions[name]} partitions"))
        else:
            step = f"create it with as many partitions as ingest workers you may want: {name}"
            found.append(Finding(f"topic {name}", "missing", step))
    return found


def told(findings: list[Finding]) -> str:
    """Return the findings as lines for a person."""
    width = max(len(finding.name) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{'✗' if finding.next_step else '✓'} {finding.name:<{width}}  {finding.value}")
        if finding.next_step:
            lines.append(f"  {'':<{width}}  → {finding.next_step}")
    return "\n".join(lines)
