"""What to do about an alert, by detector, in both languages: from the table of failure modes.

A detector that knows more than its table (a failure model that knows the pack's service unit) writes `title`,
`check` and `ready` into the evidence, each text as {"zh": ..., "en": ...}, and is believed first.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from telltale.api.models import Advice, AdviceText, Words
from telltale.failures import SEVERITY_WORDS, FailureText, catalogue
from telltale.failures.text import Words as FailureWords

SEVERITY: Final = {name: Words(zh=words["zh"], en=words["en"]) for name, words in SEVERITY_WORDS.items()}
UNKNOWN: Final = FailureText(
    "",
    True,
    FailureWords(
        "车辆异常",
        "检测规则发现了异常；本页列出其证据。",
        ("联系车主，确认车辆当前状态与位置", "用诊断仪读取故障码与冻结帧", "对照本页证据复测"),
        ("诊断仪", "高压作业资质人员与个人防护用品"),
    ),
    FailureWords(
        "Vehicle finding",
        "A detector found something unusual; this page shows its evidence.",
        (
            "Call the owner: where is the vehicle and how does it behave",
            "Read trouble codes and freeze frames with the tester",
            "Measure again what the evidence on this page shows",
        ),
        ("diagnostic tester", "high-voltage qualified technician with protective equipment"),
    ),
)


def advice_for(detector: str, evidence: Mapping[str, Any]) -> Advice:
    """Return what an alert means, what to check in which order and what to have ready."""
    advice = _from_table(detector)
    return Advice(
        hv_qualified=advice.hv_qualified,
        zh=_told(evidence, "zh", advice.zh),
        en=_told(evidence, "en", advice.en),
    )


def _told(evidence: Mapping[str, Any], language: str, table: AdviceText) -> AdviceText:
    """Return the table's words, and over them those that the detector wrote into the evidence."""
    title = _text_in(evidence.get("title"), language)
    return AdviceText(
        title=title or table.title,
        why=table.why,
        check=_texts_in(evidence.get("check"), language) or table.check,
        have_ready=_texts_in(evidence.get("ready"), language) or table.have_ready,
    )


def _texts_in(found: object, language: str) -> list[str]:
    return [text for item in found if (text := _text_in(item, language))] if isinstance(found, list) else []


def _text_in(found: object, language: str) -> str | None:
    text = found.get(language) if isinstance(found, Mapping) else None
    return text if isinstance(text, str) else None


@cache
def _from_table(detector: str) -> Advice:
    found = catalogue.get(detector, UNKNOWN)
    return Advice(hv_qualified=found.hv_qualified, zh=_text(found.zh), en=_text(found.en))


def _text(words: FailureWords) -> AdviceText:
    return AdviceText(
        title=words.title, why=words.why, check=list(words.check), have_ready=list(words.have_ready)
    )
