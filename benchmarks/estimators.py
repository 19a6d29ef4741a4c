"""Are the estimators as good as scikit-learn's perceptrons, and how much sooner are they fitted?

    python -m benchmarks.estimators

Both have the same parameters, scikit-learn's defaults, and the same random_state. Every case is a whole `fit` on scaled
features. The details tell the mean score of five folds and its standard error. To ask it on one and on two threads, run
it twice, with `--threads 1` and with `--threads 2`.
"""

from __future__ import annotations

import math
import warnings
from importlib import import_module
from typing import Any

from benchmarks.command import alone
from benchmarks.harness import NOT_INSTALLED, Calls, Row, Setting, say, timed

SETS = {"digits": "Classifier", "breast_cancer": "Classifier", "wine": "Classifier", "diabetes": "Regressor"}
SETTINGS: dict[str, dict[str, Any]] = {
    "": {},
    ", early stopping": {"early_stopping": True},
    ", sgd": {"solver": "sgd"},
    ", lbfgs": {"solver": "lbfgs"},
}
MODULES = {"gpunn": "gpunn.estimators", "scikit-learn": "sklearn.neural_network"}


def run(setting: Setting) -> list[Row]:
    try:
        from sklearn import datasets
        from sklearn.preprocessing import StandardScaler
    except ImportError:
        return [Row("estimators", name, "scikit-learn", "s", note=NOT_INSTALLED) for name in SETS]
    rows = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of epochs that do not converge: both say it
        for name, task in SETS.items():
            X, y = getattr(datasets, f"load_{name}")(return_X_y=True)
            X = StandardScaler().fit_transform(X)
            for told, options in list(SETTINGS.items())[: 1 if setting.quick else None]:
                say(f"estimators: {name}{told}")
                epochs = {"max_iter": 5} if setting.quick else {}
                rows += case(f"{name}{told}", task, X, y, options | epochs, setting)
    return rows


def case(name: str, task: str, X: Any, y: Any, options: dict[str, Any], setting: Setting) -> list[Row]:
    """Both on one set with the same parameters."""
    made = {
        competitor: getattr(import_module(module), f"MLP{task}")(random_state=0, **options)
        for competitor, module in MODULES.items()
    }
    made["gpunn"].set_params(device=setting.device)
    subjects = {competitor: Calls(lambda e=e: e.fit(X, y)) for competitor, e in made.items()}
    rows = timed("estimators", name, subjects, setting, unit="s")
    for row in rows:
        if not row.note:
            row.details["score"] = scored(made[row.competitor], X, y, task)
    return rows


def scored(estimator: Any, X: Any, y: Any, task: str) -> str:
    """Accuracy or R² of five folds: the mean and its standard error."""
    from sklearn.model_selection import KFold, StratifiedKFold, cross_val_score

    folds = (StratifiedKFold if task == "Classifier" else KFold)(5, shuffle=True, random_state=0)
    scores = cross_val_score(estimator, X, y, cv=folds)
    return f"{scores.mean():.4f} ± {scores.std(ddof=1) / math.sqrt(len(scores)):.4f}"


if __name__ == "__main__":
    alone("estimators")
