"""What to do about an alert, by detector, in both languages: from the table of failure modes.

A detector that knows more than its table (a failure model that knows the pack's service unit) writes
`advice` into the evidence, in the same shape, and is believed first.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from pydantic import ValidationError

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
    if "advice" in evidence:
        try:
            return Advice.model_validate(evidence["advice"])
        except ValidationError:
            pass  # written by another version: the table is there for every version
    return _from_table(detector)


@cache
def _from_table(detector: str) -> Advice:
    found = catalogue.get(detector, UNKNOWN)
    return Advice(hv_qualified=found.hv_qualified, zh=_text(found.zh), en=_text(found.en))


def _text(words: FailureWords) -> AdviceText:
    return AdviceText(
        title=words.title, why=words.why, check=list(words.check), have_ready=list(words.have_ready)
    )
