"""scikit-learn's own checks of an estimator, all of them, with and without its array API dispatch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sklearn", minversion="1.9", reason="scikit-learn is not installed (extra `sklearn`)")

from sklearn import config_context
from sklearn.utils.estimator_checks import parametrize_with_checks

from gpunn.backends import available_devices
from gpunn.estimators import MLPClassifier, MLPRegressor

ROOT = Path(__file__).resolve().parents[2]
DISPATCH = os.environ.get("SCIPY_ARRAY_API") == "1"  # SciPy reads it when it is first imported
ESTIMATORS = [MLPClassifier(max_iter=100), MLPRegressor(max_iter=100)]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@parametrize_with_checks(ESTIMATORS)
def test_an_estimator_passes_a_check_of_scikit_learn(estimator: Any, check: Any) -> None:
    if DISPATCH and "cupy" in str(getattr(check, "keywords", {})) and len(available_devices()) == 1:
        pytest.skip("CuPy is checked where there is a GPU")
    with config_context(array_api_dispatch=DISPATCH):
        check(estimator)


@pytest.mark.skipif(DISPATCH, reason="this is the other process already")
def test_the_estimators_pass_the_checks_of_scikit_learn_with_array_api_dispatch() -> None:
    """Also the checks that are left out unless SciPy dispatches: on torch, array-api-strict and CuPy."""
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", __file__]
    environment = {**os.environ, "SCIPY_ARRAY_API": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert "passed" in done.stdout and "xfailed" not in done.stdout, done.stdout[-2000:]
