"""The one door to LightGBM: fit, save, load, score, and say why (TreeSHAP). No other module imports it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from telltale.errors import SettingsError

MODEL, CARD = "model.txt", "model.json"

# The same data give the same trees, on any number of cores.
REPEATABLE: Final[Mapping[str, Any]] = {
    "seed": 20250101,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 2,
    "verbosity": -1,
}


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """What a model was made from and what it may be used for: `model.json`."""

    name: str
    version: str
    features_version: int
    features: tuple[str, ...]
    threshold: float
    trained_prevalence: float  # share of positive rows in training
    assumed_prevalence: float  # at which a probability is printed
    horizon_days: int
    domain: dict[str, Any]
    data: dict[str, Any]  # digest and what was real, injected, simulated
    command: str
    parameters: dict[str, Any]
    libraries: dict[str, str]
    metrics: dict[str, Any]  # name → value, low, high


@dataclass(frozen=True, slots=True)
class Model:
    """A trained ranking model with its card."""

    card: Card
    booster: Any

    def score(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return a score in 0..1 per row of features; it ranks, it is no probability."""
        if not len(matrix):
            return np.zeros(0)
        return np.asarray(self.booster.predict(matrix, num_threads=1), np.float64)

    def contributions(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what each feature adds to each row's score in log odds (exact TreeSHAP); rows x features."""
        shares = np.asarray(self.booster.predict(matrix, pred_contrib=True, num_threads=1), np.float64)
        return shares[:, :-1]  # the last column is the mean


def fit(
    matrix: NDArray[np.float64],
    labels: NDArray[np.bool_],
    weights: NDArray[np.float64],
    *,
    names: tuple[str, ...],
    parameters: Mapping[str, Any],
    rounds: int,
) -> Any:
    """Return a booster of binary log loss; `parameters` are added to REPEATABLE."""
    lightgbm = _lightgbm()
    data = lightgbm.Dataset(matrix, labels.astype(np.float64), weight=weights, feature_name=list(names))
    return lightgbm.train({"objective": "binary", **REPEATABLE, **parameters}, data, num_boost_round=rounds)


def text_of(booster: Any) -> str:
    """Return the booster as LightGBM's text format."""
    return str(booster.model_to_string())


def version_of(text: str, features_version: int) -> str:
    """Return a version that changes with the trees and with the features."""
    return f"{features_version}.{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def save(folder: Path, text: str, card: Card) -> None:
    """Write `model.txt` and `model.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MODEL).write_text(text)
    (folder / CARD).write_bytes(msgspec.json.format(msgspec.json.encode(card), indent=2) + b"\n")


def folder_of(models: Path, name: str) -> Path:
    """Return the folder of a model: under `models`, or the one shipped with this installation or checkout."""
    shipped = Path(__file__).parent
    candidates = (models / name, shipped / "models" / name, shipped.parents[1] / "models" / name)
    return next((folder for folder in candidates if (folder / CARD).exists()), models / name)


def load(folder: Path, *, features: tuple[str, ...], features_version: int) -> Model:
    """Return the model in this folder; raises SettingsError when it is absent or of other features."""
    try:
        card = msgspec.json.decode((folder / CARD).read_bytes(), type=Card)
        text = (folder / MODEL).read_text()
    except (OSError, msgspec.DecodeError) as error:
        raise SettingsError(
            f"model: {folder}: expected {MODEL} and {CARD}, got: {error}; "
            "set TELLTALE_MODELS to the folder of models, or run `telltale train`"
        ) from error
    if (card.features, card.features_version) != (features, features_version):
        raise SettingsError(
            f"model: {folder}: expected features of version {features_version}, got {card.features_version}; "
            f"run `telltale train {folder.name}`"
        )
    return Model(card, _lightgbm().Booster(model_str=text))


def library_version() -> str:
    """Return LightGBM's version."""
    return str(_lightgbm().__version__)


def _lightgbm() -> Any:
    try:
        import lightgbm
    except (ImportError, OSError) as error:
        raise SettingsError(f"model: LightGBM is needed: install telltale[models] ({error})") from error
    return lightgbm
