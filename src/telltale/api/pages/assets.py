"""Static files under names that carry their digest, so that a browser may keep them for ever."""

from __future__ import annotations

import hashlib
import mimetypes
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Final

from fastapi import APIRouter, Response

from telltale.api.problems import not_found, responses

router = APIRouter(include_in_schema=False)
SERVED: Final = (
    "app.css",
    "app.js",
    "chart.js",
    "icon.svg",
    "vendor/htmx/htmx.min.js",
    "vendor/uplot/uPlot.iife.min.js",
    "vendor/uplot/uPlot.min.css",
)


@dataclass(frozen=True, slots=True)
class Asset:
    """One file as served."""

    body: bytes
    media_type: str

    @property
    def digest(self) -> str:
        """Return the part of the URL that changes with the content."""
        return hashlib.sha256(self.body).hexdigest()[:16]


@cache
def assets() -> dict[str, Asset]:
    """Return every served file by name."""
    folder = resources.files("telltale.api") / "static"
    return {
        name: Asset(folder.joinpath(name).read_bytes(), mimetypes.guess_type(name)[0] or "text/plain")
        for name in SERVED
    }


def static_url(name: str) -> str:
    """Return the URL of a file; raises KeyError for one that is not served."""
    return f"/static/{assets()[name].digest}/{name}"


@router.get("/static/{digest}/{name:path}", responses=responses(404))
async def static(digest: str, name: str) -> Response:
    """Return a file under its digest."""
    asset = assets().get(name)
    if asset is None or asset.digest != digest:
        raise not_found()
    headers = {"Cache-Control": "public, max-age=31536000, immutable"}
    return Response(asset.body, media_type=asset.media_type, headers=headers)
