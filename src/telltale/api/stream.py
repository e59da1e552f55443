"""/v1/events: alert events as they are committed, over server-sent events.

One reader a process (a NOTIFY wakes it, a poll is the fallback) hands each event to every client whose
scope it lies in. A client that reads too slowly is cut off and comes back with Last-Event-ID: buffers stay
bounded and nothing is lost. A position that this database does not know, or that is too far back, is
answered with `resync`: read the list again, then go on from here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

import structlog
from fastapi import APIRouter, Header, Request
from fastapi.responses import StreamingResponse

from telltale.api.auth import SignedIn, find
from telltale.api.problems import ProblemError, responses
from telltale.metrics import STREAM_CLIENTS
from telltale.store.feed import AlertFeed, Event, Page, Position, parse_position, replay
from telltale.store.keys import Caller
from telltale.store.pool import is_waitable
from telltale.store.scope import Scope

router = APIRouter(prefix="/v1", tags=["events"])
BUFFER: Final = 256  # events a client may be behind before it is cut off
POLL_S: Final = 0.2  # a lost wake-up costs no more than this
PENDING_POLL_S: Final = 0.02  # an event waits for an older transaction to end: look again soon
HEARTBEAT_S: Final = 15.0
RECONNECT_MS: Final = 1000
_log = structlog.get_logger("telltale.api.stream")


@dataclass(eq=False, slots=True)
class Client:
    """One open stream: what it may see, and what it has yet to be sent; None ends it."""

    scope: Scope
    start: Position  # where the hub stood when it joined
    queue: asyncio.Queue[Event | None] = field(default_factory=lambda: asyncio.Queue(BUFFER))
    lagging: bool = False

    def offer(self, event: Event) -> None:
        """Queue an event of its scope; a full queue marks the client for cutting off."""
        if self.lagging or not self.scope.sees(event.dealer):
            return
        try:
            self.queue.put_nowait(event)
        except asyncio.QueueFull:
            self.end()

    def end(self) -> None:
        """Let the stream end: with what is queued when there is room to say so, at once otherwise."""
        self.lagging = True
        with contextlib.suppress(asyncio.QueueFull):
            self.queue.put_nowait(None)


class Hub:
    """The process's one reader of the feed, and its clients."""

    def __init__(self, url: str, *, timeout_s: float) -> None:
        self._url, self._timeout_s = url, timeout_s
        self._clients: set[Client] = set()
        self._head: Position | None = None
        self._closed = False

    @property
    def ready(self) -> bool:
        """Tell whether clients may join."""
        return self._head is not None and not self._closed

    @property
    def clients(self) -> int:
        """Return how many streams are open."""
        return len(self._clients)

    def require_ready(self) -> Position:
        """Return where the reader stands; answer 503 while it has not read yet, or no longer does."""
        if self._head is None or not self.ready:
            raise ProblemError(
                503, "feed-not-ready", "The event feed is starting; try again.", headers={"Retry-After": "1"}
            )
        return self._head

    def join(self, scope: Scope) -> Client:
        """Start queueing events for a client."""
        client = Client(scope, self.require_ready())
        self._clients.add(client)
        STREAM_CLIENTS.set(len(self._clients))
        return client

    def leave(self, client: Client) -> None:
        """Forget a client."""
        self._clients.discard(client)
        STREAM_CLIENTS.set(len(self._clients))

    def close(self) -> None:
        """End every stream; clients come back to the next process with their Last-Event-ID."""
        self._closed = True
        for client in self._clients:
            client.end()

    async def run(self) -> None:
        """Read the feed until cancelled; a lost connection is opened again where reading stopped."""
        while True:
            try:
                await self._read()
            except Exception as error:
                _log.warning("event feed lost, connecting again", error=repr(error))
                await asyncio.sleep(1.0)

    async def _read(self) -> None:
        feed = await AlertFeed.open(self._url, timeout_s=self._timeout_s)
        try:
            while True:
                if self._head is None:
                    self._head = await feed.horizon()
                page = await feed.read(self._head)
                self._hand_out(page)
                await feed.wait(PENDING_POLL_S if page.pending else POLL_S)
        finally:
            await feed.close()

    def _hand_out(self, page: Page) -> None:
        self._head = page.head
        for event in page.events:
            for client in self._clients:
                client.offer(event)


def message(event: str, position: Position, data: bytes) -> bytes:
    """Return one server-sent event; data is JSON and so holds no line break."""
    return b"event: %s\nid: %s\ndata: %s\n\n" % (event.encode(), str(position).encode(), data)


@router.get(
    "/events",
    response_class=StreamingResponse,
    responses=responses(401, 503)
    | {
        200: {"description": "alert events", "content": {"text/event-stream": {"schema": {"type": "string"}}}}
    },
)
async def events(
    request: Request,
    caller: SignedIn,
    last_event_id: Annotated[str | None, Header(alias="Last-Event-ID")] = None,
) -> StreamingResponse:
    """Stream `alert` events; `ready` tells where the stream begins, `resync` to read the list again."""
    hub: Hub = request.app.state.hub
    hub.require_ready()
    return StreamingResponse(
        _stream(request, hub, caller, last_event_id),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _stream(request: Request, hub: Hub, caller: Caller, last_id: str | None) -> AsyncIterator[bytes]:
    client = hub.join(caller.scope)  # before the replay, so that nothing falls between the two
    try:
        yield b"retry: %d\n\n" % RECONNECT_MS
        sent = client.start
        if last_id is not None:
            missed = await _missed(request.app.state.pool, caller.scope, last_id)
            if missed is None:
                yield message("resync", client.start, b"{}")
            for event in missed or ():
                yield message("alert", event.position, event.data)
                sent = max(sent, event.position)
        yield message("ready", sent, b"{}")
        async for chunk in _live(request, client, sent):
            yield chunk
    finally:
        hub.leave(client)


async def _missed(pool: Any, scope: Scope, last_id: str) -> tuple[Event, ...] | None:
    position = parse_position(last_id)
    return await replay(pool, scope, position) if position else None


async def _live(request: Request, client: Client, sent: Position) -> AsyncIterator[bytes]:
    """Yield what the hub queues, behind what was replayed; ends when the hub or the key ends it."""
    while not (client.lagging and client.queue.empty()):
        try:
            async with asyncio.timeout(HEARTBEAT_S):
                event = await client.queue.get()
        except TimeoutError:
            if not await _still_welcome(request):
                return
            yield b": still here\n\n"
            continue
        if event is None:
            return
        if event.position > sent:
            yield message("alert", event.position, event.data)


async def _still_welcome(request: Request) -> bool:
    """Tell whether the key is still valid; a database that is away ends the stream as well."""
    try:
        return await find(request) is not None
    except Exception as error:
        if not is_waitable(error):
            raise
        return False
