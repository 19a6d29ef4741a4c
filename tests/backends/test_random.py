"""Random numbers: known answers of the generator, and the same bits on every backend."""

from typing import Any

import numpy as np
import pytest

from gpunn.backends.reference.backend import Backend
from gpunn.backends.reference.philox import random_words

ONES = 2**64 - 1
# The known answers of Random123 for philox4x64-10: counter, key, words.
KNOWN = (
    ((0, 0, 0, 0), (0, 0), (0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B)),
    (
        (ONES, ONES, ONES, ONES), (ONES, ONES),
        (0x87B092C3013FE90B, 0x438C3C67BE8D0224, 0x9CC7D7C69CD777B6, 0xA09CAEBF594F0BA0),
    ),
    (
        (0x243F6A8885A308D3, 0x13198A2E03707344, 0xA4093822299F31D0, 0x082EFA98EC4E6C89),
        (0x452821E638D01377, 0xBE5466CF34E90C6C),
        (0xA528F45403E61D95, 0x38C72DBD566E9788, 0xA5A1610E72FD18B5, 0x57BD43B5E52B7FE6),
    ),
)  # fmt: skip
STEPS = (0, 1, 2**33 + 5)
KEYS = np.array([[7, 0], [ONES, 12], [2**63, 3 << 32]], np.uint64)


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_numpy_philox_gives_the_known_answers(
    counter: tuple[int, ...], key: tuple[int, ...], words: tuple[int, ...]
) -> None:
    number = sum(c << 64 * i for i, c in enumerate(counter))
    before = (number - 1) % 2**256  # NumPy counts up before it draws
    generator = np.random.Philox(counter=before, key=np.array(key, np.uint64))
    assert tuple(int(w) for w in generator.random_raw(4)) == words


@pytest.mark.parametrize("name", ["strict", pytest.param("cuda", marks=pytest.mark.cuda)])
def test_the_cuda_philox_kernel_gives_the_known_answers(name: str) -> None:
    from tests.conftest import backend_named

    backend = backend_named(name)
    counters, keys, words = (np.array([case[i] for case in KNOWN], np.uint64) for i in range(3))
    out = backend.zeros(words.shape, "uint64")
    types = (("T", "float64"),)
    arguments = backend.from_host(counters), backend.from_host(keys), out, words.size
    backend.launch("random", "philox_blocks", types, (1,), *arguments)
    np.testing.assert_array_equal(backend.to_host(out), words)


def draw(backend: Any, name: str, shape: tuple[int, ...], dtype: Any, keys: np.ndarray, step: int) -> np.ndarray:
    out = backend.zeros(shape, dtype)
    device_keys, device_step = backend.from_host(keys), backend.from_host(np.array([step], np.uint64))
    assert getattr(backend, name)(device_keys, device_step, out=out) is out
    result: np.ndarray = backend.to_host(out)
    return result


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 15, 16, 17, 4099])
def test_random_words_are_those_of_the_definition(backend: Any, size: int, step: int) -> None:
    alone = draw(backend, "random_words", (size,), "uint64", KEYS[1], step)
    np.testing.assert_array_equal(alone, random_words(KEYS[1], step, size))
    together = draw(backend, "random_words", (3, size), "uint64", KEYS, step)
    np.testing.assert_array_equal(together[1], alone)


@pytest.mark.parametrize(
    ("name", "dtype"), [("random_bits", "uint16"), ("random_uniform", "float32"), ("random_uniform", "float64")]
)
@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (33, 7), (600, 20)], ids=str)
def test_random_bits_and_uniform_numbers_have_the_same_bits_on_every_backend(
    backend: Any, reference: Backend, name: str, dtype: str, shape: tuple[int, ...]
) -> None:
    for step in STEPS:
        expected = draw(reference, name, (3, *shape), dtype, KEYS, step)
        together = draw(backend, name, (3, *shape), dtype, KEYS, step)
        np.testing.assert_array_equal(together, expected)
        np.testing.assert_array_equal(draw(backend, name, shape, dtype, KEYS[2], step), expected[2])
        assert expected.min() >= 0
        assert dtype == "uint16" or expected.max() < 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (33, 7), (600, 20)], ids=str)
def test_normal_numbers_agree_to_two_units_in_the_last_place_on_every_backend(
    backend: Any, reference: Backend, dtype: str, shape: tuple[int, ...]
) -> None:
    expected = draw(reference, "random_normal", (3, *shape), dtype, KEYS, 3)
    together = draw(backend, "random_normal", (3, *shape), dtype, KEYS, 3)
    np.testing.assert_array_max_ulp(together, expected, maxulp=2)
    np.testing.assert_array_equal(draw(backend, "random_normal", shape, dtype, KEYS[0], 3), together[0])


def test_random_normal_numbers_are_normally_distributed(backend: Any) -> None:
    sample = draw(backend, "random_normal", (200, 100), "float64", KEYS[0], 1)
    assert abs(sample.mean()) < 0.03
    assert abs(sample.std() - 1) < 0.02
    assert abs((sample**4).mean() - 3) < 0.2


@pytest.mark.parametrize("size", [1, 2, 3, 64, 1000, 4097])
def test_a_random_permutation_is_the_same_on_every_backend(backend: Any, reference: Backend, size: int) -> None:
    together = draw(backend, "permutation", (3, size), "int64", KEYS, 9)
    np.testing.assert_array_equal(np.sort(together, axis=1), np.tile(np.arange(size), (3, 1)))
    np.testing.assert_array_equal(together, draw(reference, "permutation", (3, size), "int64", KEYS, 9))
    np.testing.assert_array_equal(draw(backend, "permutation", (size,), "int64", KEYS[1], 9), together[1])


def test_another_key_or_step_gives_other_random_numbers(backend: Any) -> None:
    draws = [draw(backend, "random_words", (50,), "uint64", key, step) for key in KEYS for step in STEPS]
    assert len(np.unique(np.concatenate(draws))) == 50 * len(draws)
