"""Train and judge the ranking model of `cell_fault`: split by vehicle, repeatable to the byte."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from telltale import boosting
from telltale.failures import cell_fault
from telltale.failures.cell_fault import DETECTOR, Scorer, episodes, verdicts
from telltale.features import FEATURES_VERSION, RANKED_BY, Floats
from telltale.train.card import readme
from telltale.train.examples import SHOWS_MV, Examples, examples_of, weights_of
from telltale.train.histories import History, leak_day, recorded, recordings_in, simulated
from telltale.train.intervals import rate, share

SEED: Final = 20_250_101
LEAKS, CONFOUNDERS = 20, 6  # put into each recorded car
SIMULATED_VEHICLES, SIMULATED_DAYS, SIMULATED_FOLDS = 72, 40.0, 4
ROUNDS: Final = 150
ASSUMED_PREVALENCE: Final = (
    1e-6  # of a cell that leaks, per cell and day: no field data, stated beside each use
)
HEALTHY_QUANTILE: Final = 0.99  # the threshold: of the worst-looking healthy cells, one in a hundred passes
BOOTSTRAPS: Final = 1000

# More fall, more alone, further below the pack: never less suspicious. Keeps it from learning the cars.
RISING: Final = frozenset(n for n in RANKED_BY if "lead" in n or "share" in n or "fall_mv" in n)
FREE: Final = frozenset({"residual_mv", "pack_trend_spread_mv_day", "pack_level_spread_mv", "slope_mv_pct"})
PARAMETERS: Final[Mapping[str, Any]] = {
    "learning_rate": 0.05,
    "num_leaves": 8,
    "min_data_in_leaf": 40,
    "feature_fraction": 0.6,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "lambda_l2": 5.0,
    "monotone_constraints": [0 if n in FREE else 1 if n in RISING else -1 for n in RANKED_BY],
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What judging one history with a model that never saw its vehicle gave."""

    history: int
    days: int  # scored
    found_after: int | None  # days from the leak's begin to an alert that names the cell
    false: int  # episodes above watch that name a healthy cell


def train(
    data: Path, out: Path, *, command: str, seed: int = SEED, say: Callable[[str], None] = print
) -> boosting.Card:
    """Train on the recorded cars under `data` and on the simulator; write model, card and README to `out`."""
    paths = recordings_in(data)
    histories = [
        *recorded(paths, seed, leaks=LEAKS, confounders=CONFOUNDERS),
        *simulated(seed, SIMULATED_VEHICLES, SIMULATED_DAYS),
    ]
    say(f"{len(histories)} histories of {len({h.vehicle for h in histories})} vehicles")
    examples = examples_of(histories, seed)
    weights = weights_of(examples, [h.vehicle for h in histories])
    say(f"{len(examples.label)} rows, {int(examples.label.sum())} of leaking cells")
    models, scores = _out_of_fold(histories, examples, weights)
    threshold = float(np.quantile(scores[~examples.label & ~np.isnan(scores)], HEALTHY_QUANTILE))
    outcomes = [_judge(i, history, models[i].predict, threshold) for i, history in enumerate(histories)]
    metrics = _metrics(histories, examples, scores, outcomes, seed)
    booster = _fit(examples, weights, np.ones(len(examples.label), bool))
    text = boosting.text_of(booster)
    card = boosting.Card(
        name=DETECTOR,
        version=boosting.version_of(text, FEATURES_VERSION),
        features_version=FEATURES_VERSION,
        features=RANKED_BY,
        threshold=round(threshold, 6),
        trained_prevalence=round(float((examples.label * weights).sum() / weights.sum()), 6),
        assumed_prevalence=ASSUMED_PREVALENCE,
        horizon_days=14,
        domain=_domain(),
        data=_data(paths, histories, examples),
        command=command,
        parameters={**boosting.REPEATABLE, **PARAMETERS, "rounds": ROUNDS, "training_seed": seed},
        libraries={"lightgbm": boosting.library_version(), "numpy": np.__version__},
        metrics=metrics,
    )
    boosting.save(out, text, card)
    (out / "README.md").write_text(readme(card), encoding="utf-8")
    return card


def _fit(examples: Examples, weights: Floats, rows: np.ndarray) -> Any:
    return boosting.fit(
        examples.matrix[rows],
        examples.label[rows],
        weights[rows],
        names=RANKED_BY,
        parameters=PARAMETERS,
        rounds=ROUNDS,
    )


def _folds(histories: Sequence[History]) -> list[frozenset[str]]:
    real = sorted({h.vehicle for h in histories if h.recorded})
    drawn = sorted({h.vehicle for h in histories if not h.recorded})
    parts = [frozenset(drawn[k::SIMULATED_FOLDS]) for k in range(SIMULATED_FOLDS)]
    return [frozenset({vehicle}) for vehicle in real] + [part for part in parts if part]


def _out_of_fold(
    histories: Sequence[History], examples: Examples, weights: Floats
) -> tuple[dict[int, Any], Floats]:
    """Return for each history a model that never saw its vehicle, and each row's score by such a model."""
    scores, models = np.full(len(examples.label), np.nan), {}
    for fold in _folds(histories):
        members = [i for i, history in enumerate(histories) if history.vehicle in fold]
        inside = examples.of(members)
        booster = _fit(examples, weights, ~inside)
        models.update(dict.fromkeys(members, booster))
        if inside.any():
            scores[inside] = booster.predict(examples.matrix[inside])
    return models, scores


def _judge(index: int, history: History, score: Scorer, threshold: float) -> Outcome:
    judged = verdicts(history.points, np.unique(history.points.day).tolist(), score, threshold)
    found = [e for e in episodes(judged) if e.severity != "watch"]
    right = [e for e in found if history.leak is not None and e.cell == history.cell]
    begins = [
        next(day for day, severity in e.steps if severity != "watch") - leak_day(history) for e in right
    ]
    scored = sum(verdict.not_scored is None for verdict in judged)
    return Outcome(index, scored, min(begins, default=None), len(found) - len(right))


def _metrics(
    histories: Sequence[History],
    examples: Examples,
    scores: Floats,
    outcomes: Sequence[Outcome],
    seed: int,
) -> dict[str, Any]:
    rng = np.random.default_rng([seed, 5])
    metrics: dict[str, Any] = {}
    for origin in (True, False):
        name = "recorded" if origin else "simulated"
        members = [i for i, h in enumerate(histories) if h.recorded is origin]
        rows = examples.of(members) & ~np.isnan(scores)
        metrics[f"average_precision_{name}"] = _bootstrapped(
            examples.history[rows], partial(_precision, examples, scores, rows), rng
        )
        leaking = [outcomes[i] for i in members if histories[i].leak is not None and _shows(histories[i])]
        found = [o.found_after for o in leaking if o.found_after is not None]
        metrics[f"leaks_found_share_{name}"] = share(len(found), len(leaking)) | {"of": len(leaking)}
        metrics[f"days_to_alert_median_{name}"] = _median(np.array(found, float), rng)
        days = sum(outcomes[i].days for i in members)
        metrics[f"false_episodes_per_vehicle_day_{name}"] = rate(
            sum(outcomes[i].false for i in members), days
        )
    return metrics


def _shows(history: History) -> bool:
    days = np.unique(history.points.day)
    return any(history.sag_mv(int(day)) >= 2 * SHOWS_MV for day in days[:-1])


def _precision(examples: Examples, scores: Floats, rows: np.ndarray, kept: np.ndarray) -> float:
    """Return the average precision over rows of some histories, each as often as it was drawn."""
    times = np.bincount(kept, minlength=int(examples.history.max()) + 1)[examples.history[rows]]
    label, weight = examples.label[rows], times.astype(float)
    order = np.argsort(-scores[rows], kind="stable")
    hit = (label * weight)[order]
    precision = np.cumsum(hit) / np.maximum(np.cumsum(weight[order]), 1e-12)
    return float((precision * hit).sum() / max(hit.sum(), 1e-12))


def _bootstrapped(
    owners: np.ndarray, statistic: Callable[[np.ndarray], float], rng: np.random.Generator
) -> dict[str, float]:
    """Return a statistic with a 95 % interval from drawing histories again."""
    names = np.unique(owners)
    if not len(names):
        return {"value": float("nan"), "low": float("nan"), "high": float("nan")}
    drawn = [statistic(rng.choice(names, len(names))) for _ in range(BOOTSTRAPS // 5)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return _rounded(statistic(names), low, high)


def _median(values: Floats, rng: np.random.Generator) -> dict[str, float]:
    if not len(values):
        return {"value": float("nan"), "low": float("nan"), "high": float("nan")}
    drawn = np.median(rng.choice(values, (BOOTSTRAPS, len(values))), axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return _rounded(float(np.median(values)), low, high)


def _rounded(value: float, low: float, high: float) -> dict[str, float]:
    return {"value": round(float(value), 4), "low": round(float(low), 4), "high": round(float(high), 4)}


def _domain() -> dict[str, Any]:
    return {
        "least_cells": cell_fault.LEAST_CELLS,
        "least_rest_days_of_28": cell_fault.LEAST_REST_DAYS,
        "least_span_days_at_same_soc": cell_fault.LEAST_SPAN_DAYS,
        "chemistry": "any with a sloping curve, also unknown; LFP is blind on its plateau",
    }


def _data(paths: Sequence[Path], histories: Sequence[History], examples: Examples) -> dict[str, Any]:
    kinds = [f"{'recorded' if h.recorded else 'simulated'} {h.kind}" for h in histories]
    return {
        "recordings": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths},
        "histories": {kind: kinds.count(kind) for kind in sorted(set(kinds))},
        "rows": len(examples.label),
        "positive_rows": int(examples.label.sum()),
        "rows_digest": hashlib.sha256(examples.matrix.tobytes() + examples.label.tobytes()).hexdigest(),
    }
