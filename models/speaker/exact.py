# ruff: noqa: INP001 - modules of one script's directory, not a package
"""Arithmetic whose results are the same bits on every machine.

Sums of floats depend on their order, and the order on the BLAS, its threads and the CPU's vector width. Here every operand of
a matrix product lies on a power-of-two grid and the products' sum stays below 2^53 grid units, so float64 holds it exactly
and the order cannot matter. Elsewhere only + - * / sqrt and rint are used, which IEEE 754 rounds in one way.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

MANTISSA_BITS: Final = 53
_SQUARINGS: Final = 20
_LOWEST_EXPONENT: Final = -40.0


def snap(values: Array, bits: int) -> Array:
    """Round to multiples of 2^-bits, ties to even."""
    return np.rint(values * 2.0**bits) * 2.0**-bits


def product(left: Array, right: Array, bits: int) -> Array:
    """Matrix product of operands on grids whose bits add up to `bits`; exact.

    Raises:
        ArithmeticError: the sum might not fit 53 bits, so it might depend on its order.
    """
    bound = float(np.abs(left).max() * np.abs(right).max()) * left.shape[-1] * 2.0**bits
    if not bound < 2.0**MANTISSA_BITS:
        message = f"a product may reach {bound:.3g} grid units, more than float64 adds exactly; use a coarser grid"
        raise ArithmeticError(message)
    return left @ right


def exponential(values: Array) -> Array:
    """Return e^x for x ≤ 0, by (1 + x/2^20)^(2^20): libm and numpy round exp differently on different CPUs."""
    power = 1.0 + np.maximum(values, _LOWEST_EXPONENT) * 2.0**-_SQUARINGS
    for _ in range(_SQUARINGS):
        power = power * power
    return power


class Stream:
    """Random numbers from the raw PCG64 words, the only part of numpy.random that promises never to change.

    Source: NEP 19 (bit generators keep their streams; the distributions of Generator may change).
    """

    def __init__(self, seed: int) -> None:
        self._words = np.random.PCG64(seed)

    def uniform(self, *shape: int) -> Array:
        """Values in [0, 1) on the grid 2^-32."""
        words = self._words.random_raw(int(np.prod(shape)))
        return (np.asarray(words, np.uint64) >> np.uint64(32)).astype(np.float64).reshape(shape) * 2.0**-32

    def normal(self, *shape: int) -> Array:
        """Mean 0, variance 1, within ±3.5: the sum of four uniforms (libm has no part in it)."""
        total = sum((self.uniform(*shape) for _ in range(4)), np.zeros(shape))
        return (total - 2.0) * float(np.sqrt(3.0))

    def integers(self, low: int, high: int, *shape: int) -> npt.NDArray[np.int64]:
        """Values low … high - 1."""
        return low + np.floor(self.uniform(*shape) * (high - low)).astype(np.int64)

    def permutation(self, count: int) -> npt.NDArray[np.int64]:
        """The numbers 0 … count - 1 in random order."""
        return np.argsort(self.uniform(count), kind="stable")
