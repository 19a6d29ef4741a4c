"""Layers and losses against PyTorch's modules, on the inputs that PyTorch tests them with."""

from __future__ import annotations

from typing import Any

import pytest

from tests.oracles.modules import MODULES
from tests.oracles.reference import DTYPES, check_all, module_samples


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", MODULES)
def test_layers_and_losses_agree_with_a_module_of_pytorch(name: str, dtype: str, training: bool, backend: Any) -> None:
    check_all(module_samples(name, dtype, training), backend, dtype)
