"""3,000 damaged files: each is read or refused by an error of gpunn, in little memory; no value changes its column."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.data import mutate

ROOT = Path(__file__).resolve().parents[2]
COUNTS = {"csv": 1000, "parquet": 500, "plain parquet": 300, "npz": 500, "npy": 300, "arrow": 200, "feather": 200}
GROWTH = 64 << 20  # bytes; a file is some 2 KB


@pytest.mark.parametrize("kind", COUNTS)
def test_a_damaged_file_is_read_or_refused_in_little_memory(kind: str) -> None:
    if kind not in ("npz", "npy") and importlib.util.find_spec("pyarrow") is None:
        pytest.skip("pyarrow is not installed (extra `data`)")
    command = [sys.executable, "-m", "tests.data.mutate", kind, str(COUNTS[kind]), "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, f"the process ended with {done.returncode}: {done.stderr[-2000:]}"
    results = json.loads(done.stdout)
    print(kind, results)
    assert not results["bad"]
    assert results["answered"] + results["refused"] == COUNTS[kind] + 1  # and the sound one
    assert results["answered"] - results["unchanged"] >= COUNTS[kind] // 20
    assert results["refused"] >= COUNTS[kind] // 4
    assert results["grown"] < GROWTH
    assert not done.stderr


def test_at_least_3000_damaged_files_are_tested() -> None:
    assert sum(COUNTS.values()) >= 3000


def test_the_test_of_damaged_files_notices_a_shifted_column() -> None:
    """The test of the test: every row whose values stand one column further is found."""
    import gpunn as gn

    sound = mutate.original("csv")
    found = mutate.columns()
    assert mutate.faults("csv", sound, sound, gn.data.read(found)) is None
    moved = dict(zip(mutate.NAMES, [found["id"], found["sentinel"], found["amount"], *list(found.values())[3:]]))
    table = gn.data.read(moved)
    assert mutate.faults("csv", sound, sound, table) == f"{mutate.ROWS} rows for 0 lines"
    assert mutate.faults("npz", b"", b"", table) == f"{mutate.ROWS} rows"
    assert mutate.faults("arrow", b"", b"", table) == "the planted value in ['amount']"
