"""What `dir`, and with it the completion of an interactive session, shows of gpunn: the names a user may use."""

import importlib

import gpunn as gn

ON_REQUEST = {"backends", "estimators", "testing"}  # modules that users import themselves, as in `import gpunn.testing`


def test_dir_of_gpunn_shows_public_names_only() -> None:
    for name in ON_REQUEST:
        importlib.import_module(f"gpunn.{name}")
    assert dir(gn) == sorted({*gn.__all__, *ON_REQUEST})


def test_dir_of_schedules_shows_public_names_only() -> None:
    names = "Constant Cosine Exponential InverseTime OneCycle Power ReduceOnPlateau Schedule Sequence StepDecay Warmup"
    assert dir(gn.schedules) == names.split()


def test_every_name_that_dir_shows_can_be_reached() -> None:
    for module in (gn, gn.schedules):
        for name in dir(module):
            assert getattr(module, name) is not None and not name.startswith("_")


def test_every_schedule_that_gpunn_defines_is_shown_by_dir() -> None:
    defined = {
        name
        for name, value in vars(gn.schedules).items()
        if isinstance(value, type) and value.__module__ == "gpunn.schedules" and not name.startswith("_")
    }
    assert defined <= {*dir(gn.schedules)}
