"""Words of the pages: every key in both languages, no text outside the catalogue."""

import ast
import inspect
import re
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from typing import get_args

import pytest

from telltale.api.advice import SEVERITY, advice_for
from telltale.api.pages.shape import component_words, facts, named
from telltale.api.pages.words import catalogue, say
from telltale.failures import catalogue as failures
from telltale.rules import findings
from telltale.store.alerts import Outcome, Severity, State

pytestmark = pytest.mark.unit
TEMPLATES = sorted((Path(str(resources.files("telltale.api.pages"))) / "templates").glob("*.html"))
SAID = re.compile(r"\bt\(\s*'([^']+)'\s*([),~])")
KINDS = ("raised", "escalated", "cleared", "corrected", "acknowledged", "closed")
# What the keys made of two parts can become.
ENDS = {
    "view.": ("todo", "watch", "closed"), "empty.": ("todo", "watch", "closed"), "state.": get_args(State),
    "outcome.": get_args(Outcome), "kind.": KINDS,
    "vehicle.": ("variant", "chemistry", "dealer", "plant", "build_date", "in_service_date",
                 "software_version"),
}  # fmt: skip


def wanted() -> set[str]:
    found = set()
    for template in TEMPLATES:
        for key, after in SAID.findall(template.read_text(encoding="utf-8")):
            found |= {key + end for end in ENDS[key]} if after == "~" else {key}
    return found


def test_every_key_a_template_says_is_in_the_catalogue() -> None:
    assert len(wanted()) > 60
    assert wanted() - set(catalogue()) == set()


def test_every_text_exists_in_both_languages_with_the_same_values() -> None:
    for key, (zh, en) in catalogue().items():
        assert zh.strip() and en.strip(), key
        assert set(re.findall(r"{\w+}", zh)) == set(re.findall(r"{\w+}", en)), key


def test_every_text_in_the_catalogue_is_used_somewhere() -> None:
    made_up = ("signal.", "component.", "problem.", "chart.")
    source = "".join(
        f.read_text(encoding="utf-8") for f in Path(str(resources.files("telltale.api.pages"))).glob("*.py")
    )
    unused = {k for k in set(catalogue()) - wanted() if not k.startswith(made_up) and f'"{k}"' not in source}
    assert unused - {"yes", "no"} == set()


class Text(HTMLParser):
    """Collects what a reader of the page would read: text, and the attributes that are read aloud."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_data(self, data: str) -> None:
        self.found.append(data)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [
            v or "" for k, v in attrs if k in ("title", "alt", "placeholder", "aria-label", "data-new")
        ]


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_no_template_holds_a_text_of_its_own(template: Path) -> None:
    source = re.sub(r"{%.*?%}|{{.*?}}", "", template.read_text(encoding="utf-8"), flags=re.DOTALL)
    parser = Text()
    parser.feed(source)
    assert [text for text in parser.found if re.search(r"[^\W\d_]", text)] == []


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_no_template_holds_inline_script_or_style(template: Path) -> None:
    source = template.read_text(encoding="utf-8")
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:|<script(?![^>]*\ssrc=)|https?://", source)


def test_every_severity_has_its_words() -> None:
    assert set(SEVERITY) == set(get_args(Severity))
    assert {name: words.zh for name, words in SEVERITY.items()} == {
        "watch": "关注", "general": "一般", "important": "重要", "urgent": "紧急"}  # fmt: skip


@pytest.mark.parametrize("detector", sorted(failures))
def test_every_detector_says_what_to_check_and_what_to_have_ready(detector: str) -> None:
    for text in (advice_for(detector, {}).zh, advice_for(detector, {}).en):
        assert text.title and text.why and text.check and text.have_ready


def test_what_the_detector_wrote_into_the_evidence_is_believed_before_the_table() -> None:
    own = {
        "title": {"zh": "弱", "en": "weak"},
        "ready": [{"zh": "模组 3", "en": "module 3"}],
        "check": "nonsense",
    }
    found, table = advice_for("insulation", own), advice_for("insulation", {})
    assert (found.en.title, found.zh.have_ready) == ("weak", ["模组 3"])
    assert (found.en.check, found.zh.why) == (table.en.check, table.zh.why)


def test_components_are_named_in_words() -> None:
    assert component_words("zh", "cell:57") == "57 号单体"
    assert component_words("en", "subsystem:2/cell:5") == "Battery subsystem 2 · Cell 5"
    assert component_words("en", "flux-capacitor") == "flux-capacitor"


def test_evidence_is_shown_with_units_and_without_curves() -> None:
    evidence = {
        "insulation_ohm_per_v": 81.23456789,
        "plausible_before": True,
        "window_at_us": [1, 2],
        "since_us": 5,
    }
    found = [(f.name, f.value, f.unit) for f in facts("en", evidence)]
    assert found == [("Insulation resistance", "81.2346", "Ω/V"), ("Read well before", "yes", "")]
    assert say("zh", "yes") == "是"


def test_evidence_in_two_languages_is_shown_in_the_readers() -> None:
    evidence = {"service_unit": {"zh": "模组 3", "en": "module 3", "cells": [1, 2]}, "trend_mv_day": -1.25}
    found = [(f.name, f.value, f.unit) for f in facts("zh", evidence)]
    assert found == [("维修单元", "模组 3", ""), ("趋势", "-1.25", "mV/d")]


def test_every_name_in_the_safety_rules_evidence_has_words() -> None:
    tree = ast.parse(inspect.getsource(findings))
    keys = [key.value for node in ast.walk(tree) if isinstance(node, ast.Dict) for key in node.keys
            if isinstance(key, ast.Constant) and isinstance(key.value, str)]  # fmt: skip
    evidence = [key for key in keys if key not in ("pack", "vehicle")]  # components
    shown = {key: (named("zh", key)[0], named("en", key)[0]) for key in evidence}
    assert len(shown) > 20
    assert {key: words for key, words in shown.items() if words[0] == words[1]} == {}


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_text_stands_out_from_its_ground_as_wcag_aa_asks(theme: int) -> None:
    css = (Path(str(resources.files("telltale.api"))) / "static" / "app.css").read_text(encoding="utf-8")
    colours = dict(
        re.findall(r"--([\w-]+): (#[0-9a-f]{6})", re.findall(r":root {(.*?)}", css, flags=re.DOTALL)[theme])
    )
    pairs = [(ink, ground) for ink in ("ink", "soft", "link") for ground in ("paper", "card")]
    pairs += [(s, f"{s}-bg") for s in ("urgent", "important", "general", "watch")] + [
        ("accent-ink", "accent")
    ]
    for ink, ground in [*pairs, ("ok", "card")]:
        high, low = sorted((luminance(colours[ink]), luminance(colours[ground])), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 4.5, (ink, ground)
