"""Synthetic VINs: valid check digits, nobody's maker code, always the same."""

import pytest

from telltale.simulate.vin import check_digit, is_valid, synthetic_vin, vin_of_name

pytestmark = pytest.mark.unit


def test_check_digit_of_the_worked_example_in_the_standard():
    assert check_digit("1M8GDM9AXKP042788") == "X"
    assert check_digit("11111111111111111") == "1"


def test_every_synthetic_vin_is_valid_and_of_nobodys_maker():
    vins = {synthetic_vin(serial, year=2010 + serial % 20) for serial in range(500)}
    assert len(vins) == 500
    assert all(is_valid(vin) and vin.startswith("L0T") for vin in vins)


def test_a_changed_character_makes_a_vin_invalid():
    vin = synthetic_vin(123_456)
    assert not is_valid(vin[:-1] + ("7" if vin[-1] != "7" else "8"))
    assert not is_valid(vin.replace("L", "I"))


def test_a_recorded_car_always_gets_the_same_vin():
    assert vin_of_name("car2") == vin_of_name("car2") != vin_of_name("car4")
    assert is_valid(vin_of_name("car2"))
    assert vin_of_name("car2", prefix="LXX").startswith("LXX") and is_valid(vin_of_name("car2", prefix="LXX"))
