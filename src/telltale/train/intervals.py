"""Exact intervals of shares and rates, by bisection on the distribution itself."""

from __future__ import annotations

import math
from collections.abc import Callable

ALPHA = 0.05  # two-sided 95 %


def rate(count: int, exposure: float) -> dict[str, float]:
    """Return events per unit of exposure with the exact (Garwood) Poisson interval."""
    if exposure <= 0:
        return {"value": math.nan, "low": math.nan, "high": math.nan}
    low, high = poisson(count)
    return {"value": count / exposure, "low": low / exposure, "high": high / exposure}


def poisson(count: int) -> tuple[float, float]:
    """Return the exact 95 % interval of the mean of a Poisson count; with none seen, one-sided: -ln 0.05."""
    if count == 0:
        return 0.0, -math.log(ALPHA)
    top = 10.0 * count + 20.0
    low = _root(lambda mean: 1.0 - _poisson_below(count - 1, mean) - ALPHA / 2, 0.0, top)
    high = _root(lambda mean: ALPHA / 2 - _poisson_below(count, mean), 0.0, top)
    return low, high


def share(hits: int, of: int) -> dict[str, float]:
    """Return a share with the exact (Clopper-Pearson) 95 % interval."""
    if of == 0:
        return {"value": math.nan, "low": 0.0, "high": 1.0}
    low = 0.0 if hits == 0 else _root(lambda p: 1.0 - _binomial_below(hits - 1, of, p) - ALPHA / 2, 0.0, 1.0)
    high = 1.0 if hits == of else _root(lambda p: ALPHA / 2 - _binomial_below(hits, of, p), 0.0, 1.0)
    return {"value": hits / of, "low": low, "high": high}


def _poisson_below(count: int, mean: float) -> float:
    """Return P(X <= count)."""
    return (
        math.fsum(math.exp(-mean + k * math.log(mean) - math.lgamma(k + 1)) for k in range(count + 1))
        if mean
        else 1.0
    )


def _binomial_below(hits: int, of: int, p: float) -> float:
    return math.fsum(math.comb(of, k) * p**k * (1 - p) ** (of - k) for k in range(hits + 1))


def _root(rising: Callable[[float], float], low: float, high: float) -> float:
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return (low + high) / 2
