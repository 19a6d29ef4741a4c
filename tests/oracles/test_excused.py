"""The list of excuses and the number of samples that are compared must not change unnoticed."""

from __future__ import annotations

from collections import Counter
from functools import cache

import pytest

from tests.oracles.calls import Call
from tests.oracles.excused import EXCUSES, excuses_for
from tests.oracles.reference import DTYPES, EXPRESSIONS, MODULES, module_samples, operation_samples


@cache
def calls(dtype: str) -> dict[str, list[Call]]:
    """All samples of each operation and module."""
    found = {name: [s.call() for s in operation_samples(name, dtype)] for name in EXPRESSIONS}
    for name in MODULES:
        found[name] = [s.call() for training in (True, False) for s in module_samples(name, dtype, training)]
    return found


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_excuse_applies_to_a_sample_of_each_of_its_operations(dtype: str) -> None:
    met = {(c.name, excuse.sample) for given in calls(dtype).values() for c in given for excuse in excuses_for(c)}
    written = [(name, excuse.sample) for excuse in EXCUSES for name in excuse.operations]
    assert len(written) == len(set(written))
    assert set(written) == met


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_operation_and_module_is_compared_on_enough_samples(dtype: str) -> None:
    ran = Counter({name: sum(not excuses_for(c) for c in given) for name, given in calls(dtype).items()})
    assert [name for name, count in ran.items() if count == 0] == []
    assert len(EXPRESSIONS) >= 43
    assert sum(ran[name] for name in EXPRESSIONS) >= 328
    assert len(MODULES) >= 30
    assert sum(ran[name] for name in MODULES) >= 510
