"""Splitting a table in two parts: every row in one of them, each class in proportion, the same for the same seed."""

import re
from typing import Any

import numpy as np
import pytest

from gpunn.data import Table, moons, read
from gpunn.data.splitting import split
from gpunn.errors import ConfigurationError, DataError


def rows_of(table: Table) -> list[int]:
    return [int(v) for v in table["row"].data]


def numbered(y: list[Any]) -> Table:
    return read({"row": np.arange(len(y)), "y": y}, target="y")


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.9])
def test_split_puts_every_row_in_one_of_two_parts(share: float) -> None:
    train, held = split(numbered([float(v) / 3 for v in range(100)]), share)
    assert sorted(rows_of(train) + rows_of(held)) == list(range(100))
    assert held.rows == 100 * share
    assert rows_of(train) == sorted(rows_of(train)) and rows_of(held) == sorted(rows_of(held))


def test_the_seed_decides_how_split_draws() -> None:
    parts = [rows_of(split(numbered([v / 3 for v in range(50)]), seed=seed)[1]) for seed in (0, 0, 1)]
    assert parts[0] == parts[1] != parts[2]


@pytest.mark.parametrize("seed", range(20))
def test_split_gives_each_class_its_share_in_both_parts(seed: int) -> None:
    _, held = split(numbered(["a"] * 50 + ["b"] * 30 + ["c"] * 20), 0.2, seed=seed)
    counts = {label: held["y"].values.tolist().count(label) for label in "abc"}
    assert abs(counts["a"] - 10) <= 1 and abs(counts["b"] - 6) <= 1 and abs(counts["c"] - 4) <= 1


@pytest.mark.parametrize("seed", range(20))
def test_split_keeps_a_rare_class_in_the_training_part(seed: int) -> None:
    train, held = split(numbered(["rare", *["a"] * 5, *["b"] * 6]), 0.5, seed=seed)
    assert "rare" in train["y"].values.tolist() and held.rows == 6


def test_split_stratifies_numbers_if_the_task_is_classification() -> None:
    train, _ = split(numbered([7, 8, 9, *[1] * 30]), 0.9, task="classification")
    assert {7, 8, 9, 1} == set(train["y"].data.tolist())


def test_split_refuses_a_table_with_one_row_of_each_class() -> None:
    with pytest.raises(DataError, match=re.escape("expected a row to hold out beside one of each class")):
        split(numbered([1, 2]), 0.5)


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0])
def test_split_refuses_a_share_outside_0_to_1(share: float) -> None:
    with pytest.raises(ConfigurationError, match="split share"):
        split(moons(), share)
