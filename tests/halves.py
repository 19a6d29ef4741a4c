"""Numbers that decide about the rounding to half precision."""

import ml_dtypes
import numpy as np

# How far a number may be from the one it was rounded to, relative to it.
ROUNDING = {"float16": 2.0**-11, "bfloat16": 2.0**-8}
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)  # NumPy knows the name once ml_dtypes is imported


def every(half: str) -> np.ndarray:
    """All numbers of this precision, infinities and NaNs too."""
    return np.arange(2**16, dtype=np.uint16).view(half)


def floats_around(half: str) -> np.ndarray:
    """float32 numbers that decide about rounding: all of the half precision, the middles between neighbours and what
    lies next to those, extremes, and random bits."""
    exact = every(half).astype(np.float32)
    finite = np.unique(exact[np.isfinite(exact)])
    middles = finite[1:] / 2 + finite[:-1] / 2
    around = [np.nextafter(middles, np.float32(side)) for side in (np.inf, -np.inf)]
    random = np.random.default_rng(30).integers(0, 2**32, 100_000, np.uint32).view(np.float32)
    odd = np.array([-0.0, np.inf, -np.inf, np.nan, 65519.996, 65520, 3.3961775e38, 3.4e38, 1e-45, -1e-45], np.float32)
    return np.concatenate([finite, middles, *around, random[~np.isnan(random)], odd])
