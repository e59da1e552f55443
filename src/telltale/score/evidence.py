"""From an episode to what an alert stores: evidence in units, reasons, advice, versions, and a stable id."""

from __future__ import annotations

import math
import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import numpy as np

from telltale.boosting import Model
from telltale.failures.cell_fault import DETECTOR, RULES_VERSION, Episode, Finding, probability
from telltale.failures.cell_fault_text import CELL_FAULT, DEPOT, SERVICE_UNITS, WEAK_TITLE, top_reasons
from telltale.failures.reconcile import Change, KnownAlert, component_of
from telltale.features import LONG_DAYS, RANKED_BY
from telltale.fold.frames import DAY_OFFSET_US, DAY_US
from telltale.store.findings import AlertWrite, VehicleFacts
from telltale.store.times import date_of, moment

NAMESPACE: Final = uuid.UUID("7c0d63c8-5a0b-5d0e-9a0c-6f2b2d1f4e11")
WEAK_REASONS: Final = (
    "deviation_mv",
    "deviation_z",
    "deviation_soc_pct",
    "long_trend_mv_day",
    "trend_mv_day",
)


@dataclass(frozen=True, slots=True)
class Context:
    """What stands around the findings of one vehicle."""

    vehicle_id: int
    facts: VehicleFacts
    model: Model
    seen_at: datetime

    @property
    def version(self) -> str:
        """Return the version of what judged: features and trees, then rules."""
        return f"{self.model.card.version}-r{RULES_VERSION}"


def day_ends(day: int) -> datetime:
    """Return the last moment of a vehicle day: when its verdict could be known."""
    return moment((day + 1) * DAY_US - DAY_OFFSET_US - 1_000_000)


def write_of(change: Change, context: Context) -> AlertWrite:
    """Return what is stored for one change of an alert."""
    episode, alert = change.episode, change.alert
    if episode is None:
        assert alert is not None  # noqa: S101 - a change without episode is always of an alert
        return _withdrawn(alert, context)
    evidence = evidence_of(episode, context)
    payload: dict[str, Any] = {"severity": episode.severity, "day": date_of(episode.newest_day).isoformat()}
    if change.kind == "corrected" and alert is not None:
        payload |= {"before": _before(alert), "after": {**evidence["opening"], "severity": episode.severity}}
    if change.kind != "cleared":
        payload |= {"features": _numbers(episode.newest), "reasons": evidence["reasons"]}
    return AlertWrite(
        id=alert.id if alert is not None else alert_id(episode, context),
        vehicle_id=context.vehicle_id,
        is_new=alert is None and change.kind == "raised",
        kind=change.kind,
        detector=DETECTOR,
        version=context.version,
        component=change.component,
        severity=episode.severity,
        happened_at=day_ends(episode.opened),
        seen_at=context.seen_at,
        cleared_at=None if episode.closed is None else day_ends(episode.closed),
        evidence=evidence,
        payload=payload,
    )


def alert_id(episode: Episode, context: Context) -> str:
    """Return the id of an episode's alert: the same finding made again keeps it."""
    name = f"{context.facts.public_id}/{DETECTOR}/{component_of(episode)}/{date_of(episode.opened)}"
    return str(uuid.uuid5(NAMESPACE, name))


def _withdrawn(alert: KnownAlert, context: Context) -> AlertWrite:
    opened = day_ends(alert.opened)
    return AlertWrite(
        id=alert.id,
        vehicle_id=context.vehicle_id,
        is_new=False,
        kind="corrected",
        detector=DETECTOR,
        version=context.version,
        component=alert.component,
        severity=alert.severity,
        happened_at=opened,
        seen_at=context.seen_at,
        cleared_at=opened,
        evidence=None,
        payload={
            "before": _before(alert),
            "after": None,
            "zh": "迟到的数据使该发现不再成立",
            "en": "with the readings that came late this finding does not hold",
        },
    )


def _before(alert: KnownAlert) -> dict[str, Any]:
    return {
        "day": date_of(alert.opened).isoformat(),
        "severity": alert.severity,
        "deviation_mv": alert.deviation_mv,
        "trend_mv_day": alert.trend_mv_day,
    }


def evidence_of(episode: Episode, context: Context) -> dict[str, Any]:
    """Return an alert's evidence: units in the names, words in both languages, versions, the opening."""
    newest, card = episode.newest, context.model.card
    unit = SERVICE_UNITS.get(context.facts.pack_design or "", DEPOT).of(episode.cell)
    words = {"zh": CELL_FAULT.zh, "en": CELL_FAULT.en}
    title = WEAK_TITLE if episode.severity == "watch" else {k: w.title for k, w in words.items()}
    values = _numbers(newest)
    shown = (
        "deviation_mv",
        "trend_mv_day",
        "fall_mv",
        "long_trend_mv_day",
        "soc_pct",
        "temp_degc",
        "rest_days",
    )
    return {
        "title": title,
        "check": [{"zh": zh, "en": en} for zh, en in zip(words["zh"].check, words["en"].check, strict=True)],
        "ready": [
            {"zh": f"维修单元：{unit['zh']}", "en": f"service unit: {unit['en']}"},
            *(
                {"zh": zh, "en": en}
                for zh, en in zip(words["zh"].have_ready, words["en"].have_ready, strict=True)
            ),
        ],
        "reasons": _reasons(newest, context.model),
        "window": {
            "from": moment((episode.newest_day - LONG_DAYS + 1) * DAY_US - DAY_OFFSET_US).isoformat(),
            "to": day_ends(episode.newest_day).isoformat(),
        },
        "service_unit": unit,
        **{name: values[name] for name in shown},
        "chemistry": context.facts.chemistry,
        "score": round(newest.score, 4),
        "probability": _significant(
            probability(newest.score, card.trained_prevalence, card.assumed_prevalence)
        ),
        "assumed_prevalence": card.assumed_prevalence,
        "model_version": card.version,
        "features_version": card.features_version,
        "rules_version": RULES_VERSION,
        "opening": {
            "day": date_of(episode.opened).isoformat(),
            "deviation_mv": episode.at_opening.values["deviation_mv"],
            "trend_mv_day": episode.at_opening.values["trend_mv_day"],
        },
    }


def _reasons(finding: Finding, model: Model) -> list[dict[str, Any]]:
    if finding.severity == "watch":
        falling = range(len(WEAK_REASONS), 0, -1)  # a weak cell is not ranked high: say what it shows
        return [r | {"log_odds": None} for r in top_reasons(WEAK_REASONS, finding.values, [*falling])]
    row = np.array([[finding.values[name] for name in RANKED_BY]])
    return top_reasons(RANKED_BY, finding.values, model.contributions(row)[0].tolist())


def _numbers(finding: Finding) -> dict[str, float | None]:
    """Return features as JSON knows numbers: rounded, unknown as null."""
    return {name: round(value, 4) if math.isfinite(value) else None for name, value in finding.values.items()}


def _significant(value: float) -> float:
    return float(f"{value:.2g}")
