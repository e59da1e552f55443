import numpy as np
import pytest

from telltale import boosting
from telltale.errors import SettingsError
from telltale.train.cell_fault import PARAMETERS
from telltale.train.examples import Examples, weights_of

pytestmark = pytest.mark.unit

NAMES = tuple(f"f{i}" for i in range(4))


def fitted(seed: int = 1) -> str:
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(400, 4))
    label = matrix[:, 0] + rng.normal(size=400) > 1
    free = {name: value for name, value in PARAMETERS.items() if name != "monotone_constraints"}
    booster = boosting.fit(matrix, label, np.ones(400), names=NAMES, parameters=free, rounds=20)
    return boosting.text_of(booster)


def test_the_same_rows_give_the_same_trees_to_the_byte() -> None:
    assert fitted() == fitted()
    assert fitted() != fitted(seed=2)


def test_contributions_add_up_to_the_score() -> None:
    import lightgbm

    booster = lightgbm.Booster(model_str=fitted())
    model = boosting.Model(card=None, booster=booster)  # the card plays no part in scoring
    row = np.random.default_rng(3).normal(size=(1, 4))
    base = booster.predict(row, pred_contrib=True)[0, -1]
    odds = np.log(model.score(row) / (1 - model.score(row)))
    assert model.contributions(row).sum() + base == pytest.approx(odds[0])


def test_a_missing_model_says_what_to_do(tmp_path) -> None:
    with pytest.raises(SettingsError, match="TELLTALE_MODELS"):
        boosting.load(tmp_path / "cell_fault", features=NAMES, features_version=1)


def test_every_vehicle_weighs_the_same_however_many_histories_it_has() -> None:
    examples = Examples(np.zeros((6, 4)), np.zeros(6, bool), np.array([0, 0, 1, 1, 2, 2]))
    weights = weights_of(examples, ["car2", "car2", "car4"])
    assert weights[:4].sum() == pytest.approx(weights[4:].sum())
