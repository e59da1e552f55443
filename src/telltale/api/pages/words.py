"""Words of the pages in Chinese and English: one table, `words.json`, key → [zh, en]."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Final, Literal

from fastapi import Request

Language = Literal["zh", "en"]
LANGUAGES: Final[tuple[Language, ...]] = ("zh", "en")
COOKIE: Final = "telltale_language"


@cache
def catalogue() -> dict[str, tuple[str, str]]:
    """Return every text by key."""
    text = resources.files("telltale.api.pages").joinpath("words.json").read_text(encoding="utf-8")
    return {key: (zh, en) for key, (zh, en) in json.loads(text).items()}


def say(language: Language, key: str, **values: object) -> str:
    """Return a text of the catalogue with its values filled in; raises KeyError for an unknown key."""
    return catalogue()[key][LANGUAGES.index(language)].format(**values)


def accepted(header: str) -> Language | None:
    """Return the first of our languages that an Accept-Language header ranks highest, if any."""
    ranked = []
    for position, part in enumerate(header.split(",")):
        tag, _, weight = part.strip().partition(";q=")
        try:
            rank = float(weight or 1)
        except ValueError:
            rank = 0.0
        ranked.append((-rank, position, tag.lower()))
    for rank, _, tag in sorted(ranked):
        for language in LANGUAGES:
            if rank < 0 and tag.split("-")[0] == language:
                return language
    return None


def language_of(request: Request) -> Language:
    """Return the language to answer in: what was chosen, else what the browser asks for, else the setting."""
    chosen = request.cookies.get(COOKIE)
    for language in LANGUAGES:
        if chosen == language:
            return language
    asked = accepted(request.headers.get("accept-language", ""))
    return asked or ("en" if request.app.state.settings.language == "en" else "zh")
