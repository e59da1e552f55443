"""What alerts of cell_fault say, and how they follow what is found."""

import math

import pytest

from telltale.failures import catalogue
from telltale.failures.cell_fault import Episode, Finding, probability
from telltale.failures.cell_fault_text import DEPOT, PHRASES, SERVICE_UNITS, top_reasons
from telltale.failures.reconcile import KnownAlert, changes
from telltale.features import COLUMNS, RANKED_BY
from telltale.train.intervals import poisson, rate, share

pytestmark = pytest.mark.unit


def finding(deviation_mv: float = -20.0, trend_mv_day: float = -2.0, severity: str = "general") -> Finding:
    values = dict.fromkeys(COLUMNS, 0.0) | {"deviation_mv": deviation_mv, "trend_mv_day": trend_mv_day}
    return Finding(7, severity, 0.9, values)


def episode(
    opened: int = 100, severity: str = "general", closed: int | None = None, **values: float
) -> Episode:
    found = finding(**values)
    return Episode(7, opened, severity, closed, found, found, opened, ((opened, severity),))


def alert(**changed: object) -> KnownAlert:
    fields = {
        "id": "a",
        "component": "cell:7",
        "severity": "general",
        "closed_by_people": False,
        "opened": 100,
        "cleared": None,
        "deviation_mv": -20.0,
        "trend_mv_day": -2.0,
    }
    return KnownAlert(**(fields | changed))


def kinds(known: list[KnownAlert], found: list[Episode]) -> list[str]:
    return [change.kind for change in changes(known, found, since=0)]


def test_a_new_episode_is_raised_once() -> None:
    assert kinds([], [episode()]) == ["raised"]
    assert kinds([alert()], [episode()]) == []


def test_a_worse_finding_escalates_its_alert() -> None:
    assert kinds([alert()], [episode(severity="urgent")]) == ["escalated"]


def test_a_finding_that_ended_clears_its_alert_once() -> None:
    assert kinds([alert()], [episode(closed=120)]) == ["cleared"]
    assert kinds([alert(cleared=120)], [episode(closed=120)]) == []


def test_another_opening_after_late_data_is_a_correction() -> None:
    assert kinds([alert()], [episode(opened=98)]) == ["corrected"]
    assert kinds([alert()], [episode(deviation_mv=-15.0)]) == ["corrected"]
    assert kinds([alert()], [episode(deviation_mv=-20.2)]) == []


def test_an_alert_without_a_finding_is_withdrawn_in_sight_and_only_once() -> None:
    assert kinds([alert()], []) == ["corrected"]
    assert kinds([alert(cleared=100)], []) == []


def test_what_people_closed_stays_closed() -> None:
    assert kinds([alert(closed_by_people=True)], [episode(severity="urgent")]) == []


def test_a_finding_that_comes_back_uses_the_alert_still_on_the_desk() -> None:
    (change,) = changes([alert(cleared=110)], [episode(opened=150)], since=0)
    assert (change.kind, change.alert.id) == ("raised", "a")


def test_every_feature_a_model_ranks_by_can_be_told_in_both_languages() -> None:
    assert set(PHRASES) == set(RANKED_BY)
    for name, (_, zh, en) in PHRASES.items():
        assert "{v" in zh, name
        assert "{v" in en, name


def test_reasons_are_the_largest_contributions_with_value_and_unit() -> None:
    values = dict.fromkeys(RANKED_BY, -1.0) | {"fall_mv": 22.43, "slope_mv_pct": math.nan}
    shares = [0.0] * len(RANKED_BY)
    shares[RANKED_BY.index("fall_mv")] = 2.0
    shares[RANKED_BY.index("slope_mv_pct")] = 3.0  # not known: nothing to tell
    shares[RANKED_BY.index("trend_z")] = -1.0
    (reason,) = top_reasons(RANKED_BY, values, shares)
    assert reason["en"] == "fell 22.4 mV within the last 10 days"
    assert (reason["value"], reason["unit"]) == (22.43, "mV")


def test_the_service_unit_is_the_packs_and_never_a_cell() -> None:
    assert SERVICE_UNITS["P96-NCM"].of(13)["en"] == "module (12 cells in series) 2"
    assert DEPOT.of(13)["en"] == "pack: depot repair"


def test_the_advice_measures_again_before_it_exchanges() -> None:
    check = catalogue["cell_fault"].en.check
    order = [
        next(i for i, step in enumerate(check) if word in step) for word in ("rest", "Balance", "exchange")
    ]
    assert order == sorted(order)
    assert catalogue["cell_fault"].hv_qualified


def test_a_probability_falls_with_the_prevalence_it_assumes() -> None:
    assert probability(0.9, 0.5, 0.5) == pytest.approx(0.9)
    assert probability(0.9, 0.5, 1e-6) == pytest.approx(9e-6, rel=1e-3)


def test_exact_intervals_agree_with_published_tables() -> None:
    assert poisson(0) == (0.0, pytest.approx(2.9957, abs=1e-4))
    assert poisson(5) == (pytest.approx(1.6235, abs=1e-3), pytest.approx(11.6683, abs=1e-3))
    assert share(20, 20)["low"] == pytest.approx(0.8316, abs=1e-4)
    assert share(18, 20)["low"] == pytest.approx(0.6830, abs=1e-4)
    assert rate(0, 0)["value"] != rate(0, 0)["value"]
