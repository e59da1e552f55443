"""`telltale api` and `telltale key` as processes."""

import asyncio
import json
import os
import signal
import sys
from typing import Any

import asyncpg
import httpx2
import pytest

from telltale.api import serve
from telltale.config import Settings
from telltale.errors import TelltaleError

VERB = (sys.executable, "-c", "from telltale.cli import main; main()")


async def telltale(*words: str, database: str, **settings: str) -> asyncio.subprocess.Process:
    environment = os.environ | {"TELLTALE_DATABASE": database} | settings
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(*VERB, *words, env=environment, stdout=pipe, stderr=pipe)


async def ended(process: asyncio.subprocess.Process) -> tuple[int | None, str, str]:
    out, err = await asyncio.wait_for(process.communicate(), 30)
    return process.returncode, out.decode(), err.decode()


async def first_line(process: asyncio.subprocess.Process) -> dict[str, Any]:
    """Return the JSON line that says where the API listens, on whichever stream logs go."""
    assert process.stdout and process.stderr
    waiting = {asyncio.ensure_future(stream.readline()) for stream in (process.stdout, process.stderr)}
    done, rest = await asyncio.wait(waiting, timeout=30, return_when=asyncio.FIRST_COMPLETED)
    for task in rest:
        task.cancel()
    found: dict[str, Any] = json.loads(next(iter(done)).result())
    return found


async def test_it_says_which_port_it_took_serves_a_new_key_and_stops_when_told(database_urls: Any) -> None:
    made = await ended(await telltale("key", "create", "--role", "dealer", "--dealer", "D7", "--name", "王工",
                                      database=database_urls.owner))  # fmt: skip
    token = made[1].strip()
    assert (made[0], token[:8]) == (0, "tt_live_"), made
    process = await telltale("api", database=database_urls.api, TELLTALE_HTTP_PORT="0")
    line = await first_line(process)
    assert line["event"] == "listening" and line["port"] > 0
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx2.AsyncClient(base_url=line["url"], headers=headers, timeout=10) as client:
        assert (await client.get("/readyz")).text == "ready\n"
        assert (await client.get("/v1/alerts")).json() == {"items": [], "next": None}
        assert "telltale_stream_clients" in (await client.get("/metrics")).text
        async with client.stream("GET", "/v1/events") as stream:
            assert stream.status_code == 200
            revoke = await ended(
                await telltale("key", "revoke", token.split("_")[2], database=database_urls.owner)
            )
            assert revoke[0] == 0, revoke
            assert (await client.get("/v1/alerts")).status_code == 401
            process.send_signal(signal.SIGTERM)  # an open stream does not hold the process
            code, out, err = await ended(process)
    assert code == 0, (out, err)
    assert token.split("_")[3] not in out + err


async def test_an_unmigrated_database_is_told_what_to_run(empty_database_url: str) -> None:
    code, out, err = await ended(await telltale("api", database=empty_database_url, TELLTALE_HTTP_PORT="0"))
    assert code == 1
    assert "telltale migrate" in err and "Traceback" not in out + err


async def test_an_absent_database_ends_the_start_after_the_wait_with_one_line() -> None:
    gone = Settings(database="postgresql://nobody@127.0.0.1:9/none")
    with pytest.raises(TelltaleError, match=r"api: the database cannot be reached: .+"):
        await serve.wait_for_database(gone, wait_s=0.2)


async def test_a_port_in_use_is_named(database_urls: Any) -> None:
    with serve.bind("127.0.0.1", 0) as taken:
        port = str(taken.getsockname()[1])
        code, _, err = await ended(await telltale("api", database=database_urls.api, TELLTALE_HTTP_PORT=port))
    assert code == 1
    assert f"cannot listen on 127.0.0.1 port {port}" in err


@pytest.mark.parametrize(
    "words", [("--role", "king"), ("--role", "dealer"), ("--role", "ops", "--dealer", "D1")]
)
async def test_a_key_that_makes_no_sense_is_refused(database_urls: Any, words: tuple[str, ...]) -> None:
    process = await telltale("key", "create", "--name", "x", *words, database=database_urls.owner)
    code, _, err = await ended(process)
    assert code == 1 and "role" in err and "Traceback" not in err


async def test_no_worker_may_make_keys(database_urls: Any) -> None:
    for url in (database_urls.api, database_urls.ingest, database_urls.score):
        connection = await asyncpg.connect(url, timeout=10)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("INSERT INTO telltale.api_key VALUES ('x', '', 'ops', NULL, 'x')")
        await connection.close()
