"""Tests of the arrays on the page of a report: error of half a step, exact zeros, sizes."""

import numpy as np
import pytest

from mmdefocus.analysis.report.quantisation import pack_array, unpack_array


@pytest.mark.parametrize('bits', [8, 16])
def test_values_return_within_half_a_step(bits: int) -> None:
    random = np.random.default_rng(0)
    values = (random.standard_normal((5, 300)) * 10.0 ** random.uniform(-6, 3, (5, 300))).astype(np.float32)
    restored = unpack_array(pack_array(values, bits)).astype(np.float64)
    scales = np.abs(values).max(axis=1, keepdims=True).astype(np.float64)
    error = np.abs(np.sqrt(np.abs(values) / scales) - np.sqrt(np.abs(restored) / scales))
    assert error.max() <= 0.5 / (2 ** (bits - 1) - 1) + 1e-6  # 1e-6: rounding to float32
    assert error.max() > 0.4 / (2 ** (bits - 1) - 1)  # the bound is tight


@pytest.mark.parametrize('bits', [8, 16])
def test_zero_extremes_and_signs_are_exact(bits: int) -> None:
    values = np.array([[0.0, -2.5, 2.5, 1.0], [0.0, 0.0, 0.0, 0.0], [1e-30, -1e-30, 0.0, 0.0]], np.float32)
    restored = unpack_array(pack_array(values, bits))
    np.testing.assert_array_equal(restored[:, :3], values[:, :3])
    assert 0.9 < restored[0, 3] < 1.1


def test_small_values_survive_16_bits() -> None:
    values = np.array([[1.0, 1e-4, -1e-6]], np.float32)
    np.testing.assert_allclose(unpack_array(pack_array(values, 16)), values, rtol=0.04)


def test_size_is_that_of_the_text() -> None:
    packed = pack_array(np.random.default_rng(0).random((40, 50)).astype(np.float32), 8)
    text = packed.to_json()
    assert abs(packed.size - len(text['codes']) - len(text['scales'])) <= 8  # base64 pads to four characters


def test_empty_rows() -> None:
    assert unpack_array(pack_array(np.zeros((0, 7), np.float32), 16)).shape == (0, 7)
