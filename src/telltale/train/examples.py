"""Histories as training rows: one row per cell and day, seeing nothing later than that day."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from telltale.failures.cell_fault import outside_domain
from telltale.features import COLUMNS, Floats, cell_features, matrix_of
from telltale.train.histories import History

SHOWS_MV: Final = 6.0  # a leak that shows less at rest is neither a positive nor a negative
WORST: Final = 4  # healthy cells kept per day by each of two orders, and as many at random


@dataclass(frozen=True, slots=True)
class Examples:
    """Training rows of all histories."""

    matrix: Floats
    label: NDArray[np.bool_]
    history: NDArray[np.int64]  # index of each row's history

    def of(self, histories: Iterable[int]) -> NDArray[np.bool_]:
        """Tell which rows belong to these histories."""
        return np.isin(self.history, list(histories))


def examples_of(histories: Sequence[History], seed: int) -> Examples:
    """Return leaking cells on days on which the leak shows, and others: those that look worst, and some."""
    matrices, labels, owners = [], [], []
    for index, history in enumerate(histories):
        rng = np.random.default_rng([seed, index])
        for day in np.unique(history.points.day):
            features = cell_features(history.points, int(day))
            if outside_domain(features) is not None:
                continue
            kept, label = _chosen(history, int(day), features, rng)
            matrices.append(matrix_of(features)[kept])
            labels.append(label)
            owners.append(np.full(len(kept), index))
    return Examples(np.concatenate(matrices), np.concatenate(labels), np.concatenate(owners))


def _chosen(
    history: History, day: int, features: dict[str, Floats], rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    cells = len(features[COLUMNS[0]])
    worst = [np.argsort(features[name])[:WORST] for name in ("trend_mv_day", "deviation_mv")]
    kept = np.unique(np.concatenate([*worst, rng.choice(cells, min(WORST, cells), replace=False)]))
    if history.leak is None:
        return kept, np.zeros(len(kept), bool)
    culprit = history.cell - 1
    kept = kept[kept != culprit]
    sag = history.sag_mv(day)
    if sag >= SHOWS_MV:
        return np.append(kept, culprit), np.append(np.zeros(len(kept), bool), True)
    if sag <= 0:
        return np.append(kept, culprit), np.zeros(len(kept) + 1, bool)
    return kept, np.zeros(len(kept), bool)


def weights_of(examples: Examples, vehicles: Sequence[str]) -> Floats:
    """Return weights that let every vehicle count the same, however many histories it was given."""
    owner = np.array(vehicles)[examples.history]
    names, inverse, count = np.unique(owner, return_inverse=True, return_counts=True)
    return (len(owner) / len(names) / count)[inverse]
