"""Every alert can be explained to the person who gets it."""

import pytest

from telltale.failures import SEVERITY_WORDS, catalogue
from telltale.rules import RULES

pytestmark = pytest.mark.unit


def test_every_safety_rule_has_words_in_both_languages() -> None:
    for rule in RULES:
        text = catalogue[rule.detector]
        for words in (text.zh, text.en):
            assert words.title and words.why and words.check and words.have_ready


@pytest.mark.parametrize("detector", sorted(catalogue))
def test_chinese_words_are_chinese_and_both_languages_have_the_same_steps(detector: str) -> None:
    text = catalogue[detector]
    assert any("\u4e00" <= letter <= "\u9fff" for letter in text.zh.title)
    assert text.en.title.isascii()
    assert len(text.zh.check) == len(text.en.check)
    assert len(text.zh.have_ready) == len(text.en.have_ready)


def test_an_unknown_language_falls_back_to_english() -> None:
    assert catalogue["insulation"].words("fr") is catalogue["insulation"].en


def test_every_severity_has_a_word_in_both_languages() -> None:
    assert set(SEVERITY_WORDS) == {"watch", "general", "important", "urgent"}
    assert SEVERITY_WORDS["urgent"]["zh"] == "紧急"
