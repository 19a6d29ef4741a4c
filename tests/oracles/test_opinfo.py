"""Layers and losses against autograd, on the samples that PyTorch tests its own operations with."""

from __future__ import annotations

from typing import Any

import pytest

from tests.oracles.reference import DTYPES, EXPRESSIONS, check_all, operation_samples


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", sorted(EXPRESSIONS))
def test_layers_and_losses_agree_with_an_operation_of_pytorch(name: str, dtype: str, backend: Any) -> None:
    check_all(operation_samples(name, dtype), backend, dtype)
