"""Old readings go by the piece, and only when a limit is set."""

from datetime import UTC, datetime, timedelta

from tests.servers.postgres import DatabaseUrls

from telltale.store.pool import connect
from telltale.store.retention import drop_older

INSERT = """
INSERT INTO report (vehicle_id, observed_at, part, received_at, source_id, time_source, flags, digest)
SELECT 1, t, 0, t, 1, 0, 0, 0 FROM unnest($1::timestamptz[]) AS t
"""


async def test_only_pieces_wholly_past_the_limit_are_dropped(database_urls: DatabaseUrls) -> None:
    now = datetime.now(UTC)
    times = [now - timedelta(days=days) for days in (0, 10, 40, 400)]
    ingest = await connect(database_urls.ingest, role_name="ingest", timeout_s=30)
    await ingest.execute("SELECT ensure_partitions($1)", times)
    await ingest.execute(INSERT, times)
    score = await connect(database_urls.score, role_name="score", timeout_s=30)
    assert await drop_older(score, 0) == []
    assert await score.fetchval("SELECT count(*) FROM report") == 4
    assert await drop_older(score, 30)
    kept = [row[0] for row in await score.fetch("SELECT observed_at FROM report ORDER BY 1 DESC")]
    assert kept == times[:2]
    assert await drop_older(score, 30) == []
    await ingest.execute("SELECT ensure_partitions($1)", times)
    await ingest.execute(INSERT, times[3:])
    assert await score.fetchval("SELECT count(*) FROM report") == 3
    await ingest.close()
    await score.close()
