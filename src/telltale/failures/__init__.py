"""Failure modes: one file each, gathered in one table of what their alerts say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from telltale.failures.cell_fault_text import CELL_FAULT
from telltale.failures.safety import SAFETY
from telltale.failures.text import SEVERITY_WORDS, FailureText, Words

catalogue: Final[Mapping[str, FailureText]] = {text.detector: text for text in (*SAFETY, CELL_FAULT)}

__all__ = ["SEVERITY_WORDS", "FailureText", "Words", "catalogue"]
