import numpy as np
import pytest

from telltale.failures.cell_fault import episodes, judge_day, verdicts
from telltale.features import COLUMNS, RestPoints, cell_features, trend_of, weighted_median

pytestmark = pytest.mark.unit

CELLS = 24


def pack_at_rest(
    days: int,
    rng: np.random.Generator,
    *,
    leak: tuple[int, float] | None = None,
    soc: np.ndarray | None = None,
) -> RestPoints:
    """Return `days` days of a pack whose cells stand at constant offsets, one leaking so many mV a day."""
    deviation = rng.normal(0, 4, CELLS) + rng.normal(0, 0.8, (days, CELLS))
    if leak is not None:
        deviation[:, leak[0] - 1] -= leak[1] * np.arange(days)
    soc_pct = rng.uniform(40, 90, days) if soc is None else soc
    return RestPoints(
        day=np.arange(days),
        frames=np.full(days, 20),
        cells=np.full(days, CELLS),
        soc_pct=soc_pct,
        temp_degc=np.full(days, 25.0),
        level_mv=3300 + 8 * soc_pct,
        deviation_mv=deviation,
    )


def certain(matrix: np.ndarray) -> np.ndarray:
    return np.ones(len(matrix))


def test_what_comes_later_does_not_move_the_features_of_a_day() -> None:
    rng = np.random.default_rng(1)
    points = pack_at_rest(30, rng, leak=(7, 2.0))
    before = cell_features(points, 14)
    later = points.day > 14
    points.deviation_mv[later] = rng.normal(0, 500, (int(later.sum()), CELLS))
    points.soc_pct[later] = rng.uniform(0, 100, int(later.sum()))
    points.level_mv[later] = 0
    after = cell_features(points, 14)
    for name in COLUMNS:
        np.testing.assert_array_equal(before[name], after[name])


def test_trend_survives_a_third_of_wild_days() -> None:
    rng = np.random.default_rng(2)
    points = pack_at_rest(10, rng, leak=(3, 3.0), soc=np.full(10, 60.0))
    points.deviation_mv[[4], :] += 300
    assert trend_of(points).mv_day[2] == pytest.approx(-3.0, abs=0.5)


def test_days_at_different_soc_are_not_compared() -> None:
    rng = np.random.default_rng(3)
    points = pack_at_rest(10, rng, soc=np.array([20.0, 80.0] * 5))
    points.deviation_mv[1::2] -= 25  # the curve is steeper up there
    assert np.abs(trend_of(points).mv_day).max() < 0.5


def test_weighted_median_leaves_out_what_is_unknown() -> None:
    values = np.array([[1.0, np.nan], [2.0, np.nan], [np.nan, np.nan], [9.0, np.nan]])
    np.testing.assert_array_equal(weighted_median(values, np.array([1.0, 5.0, 50.0, 1.0])), [2.0, np.nan])


def test_a_leaking_cell_is_named_and_no_other() -> None:
    found = episodes(
        verdicts(pack_at_rest(21, np.random.default_rng(4), leak=(7, 3.0)), range(21), certain, 0.5)
    )
    assert [(e.cell, e.severity) for e in found] == [(7, "important")]


def test_a_constant_offset_is_watched_at_most() -> None:
    points = pack_at_rest(40, np.random.default_rng(5))
    points.deviation_mv[:, 11] -= 50
    found = episodes(verdicts(points, range(40), certain, 0.5))
    assert [(e.cell, e.severity) for e in found] == [(12, "watch")]


def test_a_module_that_drifts_as_one_raises_nothing() -> None:
    points = pack_at_rest(21, np.random.default_rng(6))
    points.deviation_mv[:, 4:14] -= 3.0 * np.arange(21)[:, None]
    found = episodes(verdicts(points, range(21), certain, 0.5))
    assert all(e.severity == "watch" for e in found)


def test_a_vehicle_with_too_little_rest_is_not_scored_and_says_why() -> None:
    points = pack_at_rest(4, np.random.default_rng(7), leak=(2, 30.0))
    assert judge_day(points, 3, certain, 0.5).not_scored == "too_little_rest"


def test_an_episode_ends_after_five_scored_days_without_the_finding() -> None:
    points = pack_at_rest(60, np.random.default_rng(8), soc=np.full(60, 60.0))
    points.deviation_mv[:, 3] -= np.minimum(np.maximum(np.arange(60) - 5, 0) * 3.0, 30) * (np.arange(60) < 30)
    (found,) = episodes(verdicts(points, range(60), certain, 0.5))
    assert found.cell == 4
    assert found.closed is not None
    assert 30 < found.closed < 60
