"""One line per event on standard error, as JSON or for people; libraries' lines among ours."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog

from telltale.errors import SettingsError

FORMATS = ("json", "console")


def configure(log_format: str, level: int = logging.INFO) -> None:
    """Set up logging of this process. Raises SettingsError on an unknown format."""
    if log_format not in FORMATS:
        raise SettingsError(f"TELLTALE_LOG_FORMAT is {log_format!r}, expected one of {', '.join(FORMATS)}")
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    last: list[Any] = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    if log_format == "console":
        last = [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    logging.basicConfig(handlers=[handler], level=level, force=True)
    logging.getLogger("aiokafka").setLevel(logging.WARNING)
    # It logs each failed connection attempt; whoever opened it says so once, in our words.
    logging.getLogger("aiokafka.consumer.group_coordinator").setLevel(logging.ERROR)
