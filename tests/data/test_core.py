"""Without pyarrow and pandas NumPy data can be read; other data give an error that names the command to install."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
INSTALL = 'run: python -m pip install "gpunn[data]"'
PROGRAM = """
import sys
sys.modules["pyarrow"] = sys.modules["pandas"] = None
import numpy as np
import gpunn as gn
assert not any(name.split(".")[0] in ("pandas", "pyarrow") for name, module in sys.modules.items() if module)
for name in gn.data.BUILT_IN:
    fitted = gn.data.Preprocessing.fit(name)
    assert fitted.inputs(name).shape == (gn.data.read(name).rows, fitted.width)
np.savez("a.npz", X=np.eye(3), y=[0, 1, 0])
gn.data.read("a.npz")
gn.data.read({"a": [1, None], "b": ["x", "y"]})
open("a.csv", "w").write("a,b\\n1,2\\n")


class Frame:
    def __arrow_c_stream__(self, schema=None):
        raise NotImplementedError


for source in ("a.csv", Frame()):
    try:
        gn.data.read(source)
    except gn.errors.MissingExtraError as error:
        print(error)
"""


def test_without_pyarrow_arrays_are_read_and_csv_names_the_extra(tmp_path: Path) -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{PROGRAM}"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    first, second = done.stdout.splitlines()
    assert first.startswith("a.csv: expected pyarrow, got ") and first.endswith(f"; {INSTALL}")
    assert second.startswith("table: expected pyarrow, got ") and second.endswith(f"; {INSTALL}")


def test_pyarrow_is_imported_only_when_it_is_needed() -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra `data`)")
    code = "import gpunn.data, sys; print([n for n in ('pyarrow', 'pandas') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
