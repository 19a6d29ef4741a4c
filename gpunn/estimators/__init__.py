"""Multi-layer perceptrons with scikit-learn's interface, trained by gpunn (extra `sklearn`)."""

from gpunn.errors import MissingExtraError

try:
    from gpunn.estimators.classifier import MLPClassifier
    from gpunn.estimators.regressor import MLPRegressor
except ImportError as error:  # scikit-learn is missing or too old
    raise MissingExtraError(
        "gpunn.estimators", expected="scikit-learn 1.9 or newer", got=str(error),
        fix='run: python -m pip install "gpunn[sklearn]"',
    ) from error  # fmt: skip

__all__ = ["MLPClassifier", "MLPRegressor"]
