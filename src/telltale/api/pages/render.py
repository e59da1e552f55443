"""Templates to responses: one Jinja environment, autoescaped, strict about names it does not know."""

from __future__ import annotations

from functools import cache, partial
from typing import Any
from urllib.parse import urlencode

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from telltale.api.advice import SEVERITY
from telltale.api.pages import shape
from telltale.api.pages.assets import static_url
from telltale.api.pages.words import language_of, say
from telltale.store.keys import Caller


@cache
def environment() -> Environment:
    """Return the environment of all pages."""
    made = Environment(
        loader=PackageLoader("telltale.api.pages", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals.update(static=static_url, severity_words=SEVERITY)
    made.filters.update(clock=shape.clock, utc=shape.utc)
    return made


def page(
    request: Request, template: str, *, caller: Caller | None = None, status: int = 200, **values: Any
) -> HTMLResponse:
    """Return a template as a response in the viewer's language."""
    language = language_of(request)
    here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    html = (
        environment()
        .get_template(template)
        .render(
            t=partial(say, language),
            language=language,
            caller=caller,
            here="/" if "key=" in here else here,
            language_url=lambda other: (
                f"/language?{urlencode({'to': other, 'next': '/' if 'key=' in here else here})}"
            ),
            component=partial(shape.component_words, language),
            chart_words=partial(shape.chart_words, language),
            **values,
        )
    )
    return HTMLResponse(
        html, status, headers={"Content-Language": language, "Vary": "Cookie, Accept-Language"}
    )
