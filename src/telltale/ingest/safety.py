"""The safety lane inside a batch: judge its new rows, and remember what holds once it is committed."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from telltale.records import Array, Rows
from telltale.rules import RULES_VERSION, PreviousRows, SafetyAlert, VehicleState, Verdict, judge
from telltale.store.safety import AlertRow

# The same finding, made again after a restore or a redrive, gets the same id.
_ALERTS: Final = uuid.UUID("5d1f5a3e-9d2b-5c6e-8f64-7e1a11e7a1e0")
ASK_AGAIN_US: Final = 30_000_000
ASK_AGAIN_MOST_US: Final = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Judged:
    """What the safety lane says of a batch, ready to store."""

    verdict: Verdict
    alerts: tuple[AlertRow, ...] = ()
    changed: tuple[tuple[int, int, Any], ...] = ()  # vehicle, judged until (µs), state
    gone: tuple[int, ...] = ()
    opened: tuple[AlertRow, ...] = ()

    def with_opened(self, opened: Sequence[AlertRow]) -> Judged:
        """Note which findings opened an alert."""
        return replace(self, opened=tuple(opened))


class SafetyLane:
    """Safety rules with the state of this worker's vehicles: conditions that hold, and the row before."""

    def __init__(self) -> None:
        self._states: dict[int, VehicleState] = {}
        self._previous = PreviousRows()
        self._ask_again: dict[int, tuple[int, int]] = {}  # vehicle → (not before, wait the next time), µs

    def load(self, stored: Mapping[int, Any]) -> None:
        """Take over the conditions that the database holds."""
        self._states = {
            vehicle: VehicleState.from_json(json.dumps(state)) for vehicle, state in stored.items()
        }

    def judge(
        self,
        rows: Rows,
        edition: Array,
        seen_at: Callable[[int], int],
        vin: Array,
        believed: Sequence[int] = (),
    ) -> Judged:
        """Judge rows about to be stored; `seen_at` tells the Kafka timestamp of one, µs. Safe in a thread."""
        self._previous.believe(believed)
        verdict = judge(rows, self._states, previous=self._previous, edition=edition)
        changed = tuple(
            (vehicle, state.judged_until, json.loads(state.to_json()))
            for vehicle, state in verdict.states.items()
        )
        alerts = tuple(
            _alert_row(alert, seen_at(alert.row), bytes(vin[alert.row])) for alert in verdict.alerts
        )
        return Judged(verdict, alerts, changed, verdict.gone)

    def to_ask(self, judged: Judged, now_us: int) -> list[int]:
        """Return vehicles whose history decides whether their insulation reading is to be believed.

        The answer may change, when a backlog is read after live reports; it is asked again, ever less often.
        """
        never = (now_us, 0)
        return [v for v in judged.verdict.unproven if self._ask_again.get(v, never)[0] <= now_us]

    def asked(self, vehicles: Sequence[int], now_us: int) -> None:
        """Note that these vehicles have been asked about."""
        for vehicle in vehicles:
            wait_us = self._ask_again.get(vehicle, (0, ASK_AGAIN_US))[1]
            self._ask_again[vehicle] = now_us + wait_us, min(2 * wait_us, ASK_AGAIN_MOST_US)

    def committed(self, judged: Judged) -> None:
        """Remember what a batch has shown, now that it is stored."""
        self._states.update(judged.verdict.states)
        for vehicle in judged.gone:
            self._states.pop(vehicle, None)
        if judged.verdict.newest is not None:
            self._previous.remember(judged.verdict.newest)

    @staticmethod
    def nothing() -> Judged:
        """Return the verdict on a batch without new rows."""
        return Judged(Verdict(states={}))


def _alert_row(alert: SafetyAlert, seen_at: int, vin: bytes) -> AlertRow:
    name = f"{vin.decode('latin-1')}|{alert.detector}|{alert.component}|{alert.happened_at}"
    return AlertRow(
        str(uuid.uuid5(_ALERTS, name)),
        alert.vehicle_id,
        alert.kind,
        alert.detector,
        RULES_VERSION,
        alert.component,
        alert.severity,
        alert.happened_at,
        seen_at,
        dict(alert.evidence),
    )
