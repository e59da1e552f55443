"""What has to change in the alerts of a vehicle so that they say what its days say now."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from telltale.failures.cell_fault import SEVERITIES, Episode

TELLING_MV: Final = 0.5  # of deviation, or mV a day: a smaller change of an old finding is not worth a word


@dataclass(frozen=True, slots=True)
class KnownAlert:
    """An alert as it stands: what it said when it was raised, and since when it is over."""

    id: str
    component: str
    severity: str
    closed_by_people: bool
    opened: int  # vehicle day
    cleared: int | None
    deviation_mv: float  # at opening
    trend_mv_day: float


@dataclass(frozen=True, slots=True)
class Change:
    """One step. `alert` None: of a new alert; `episode` None: nothing is left of the finding."""

    kind: str  # raised | escalated | cleared | corrected
    component: str
    episode: Episode | None
    alert: KnownAlert | None


def component_of(episode: Episode) -> str:
    """Return the component an episode is about."""
    return f"cell:{episode.cell}"


def changes(known: Sequence[KnownAlert], found: Iterable[Episode], *, since: int) -> list[Change]:
    """Return what to do about one vehicle's alerts; alerts opened before day `since` are beyond judgement."""
    episodes = list(found)
    steps: list[Change] = []
    matched: set[str] = set()
    for episode in episodes:
        alert = _match(episode, [a for a in known if a.id not in matched])
        if alert is not None:
            matched.add(alert.id)
            steps += _of_match(alert, episode)
            continue
        earlier = _still_on_the_desk(episode, known)
        if earlier is None:
            steps += _of_new(episode)
        elif episode.closed is None:
            matched.add(earlier.id)
            steps.append(Change("raised", earlier.component, episode, earlier))
    for alert in known:
        if alert.id not in matched and alert.opened >= since and alert.cleared is None:
            steps.append(Change("corrected", alert.component, None, alert))
    return steps


def _match(episode: Episode, alerts: Sequence[KnownAlert]) -> KnownAlert | None:
    same = [alert for alert in alerts if alert.component == component_of(episode)]
    overlapping = [
        alert
        for alert in same
        if (episode.closed is None or alert.opened <= episode.closed)
        and (alert.cleared is None or alert.cleared >= episode.opened)
    ]
    return min(overlapping, key=lambda alert: abs(alert.opened - episode.opened), default=None)


def _still_on_the_desk(episode: Episode, known: Sequence[KnownAlert]) -> KnownAlert | None:
    """Return the alert of this component that people have not closed: the finding comes back on it."""
    same = [a for a in known if a.component == component_of(episode) and not a.closed_by_people]
    return same[-1] if same else None


def _of_new(episode: Episode) -> list[Change]:
    component = component_of(episode)
    steps = [Change("raised", component, episode, None)]
    if episode.closed is not None:
        steps.append(Change("cleared", component, episode, None))
    return steps


def _of_match(alert: KnownAlert, episode: Episode) -> list[Change]:
    if alert.closed_by_people:
        return []
    steps: list[Change] = []
    rank, now = SEVERITIES.index(alert.severity), SEVERITIES.index(episode.severity)
    reopened = alert.cleared is not None and episode.closed != alert.cleared
    if _other_opening(alert, episode) or now < rank or reopened:
        steps.append(Change("corrected", alert.component, episode, alert))
    elif now > rank:
        steps.append(Change("escalated", alert.component, episode, alert))
    if episode.closed is not None and alert.cleared is None:
        steps.append(Change("cleared", alert.component, episode, alert))
    return steps


def _other_opening(alert: KnownAlert, episode: Episode) -> bool:
    values = episode.at_opening.values
    return (
        alert.opened != episode.opened
        or abs(alert.deviation_mv - values["deviation_mv"]) > TELLING_MV
        or abs(alert.trend_mv_day - values["trend_mv_day"]) > TELLING_MV
    )
