"""What an alert tells the person who has to act on it, in the two languages of the product."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

SEVERITY_WORDS: Final = {
    "watch": {"zh": "关注", "en": "watch"},
    "general": {"zh": "一般", "en": "general"},
    "important": {"zh": "重要", "en": "important"},
    "urgent": {"zh": "紧急", "en": "urgent"},
}


@dataclass(frozen=True, slots=True)
class Words:
    """One detector in one language. Steps of `check` are in the order in which they are to be done."""

    title: str
    why: str
    check: tuple[str, ...]
    have_ready: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FailureText:
    """What a detector's alert means. `hv_qualified`: only high-voltage personnel may check."""

    detector: str
    hv_qualified: bool
    zh: Words
    en: Words

    def words(self, language: str) -> Words:
        """Return the words in this language; English for any but `zh`."""
        return self.zh if language == "zh" else self.en
