"""Arrays as small integers, compressed, for the page of a report."""

import base64
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class PackedArray:
    """A matrix as integers of 8 or 16 bits: value = sign(c) · (c / m)² · scale of the row, with m = 127 or 32767.

    The square gives small values the finer steps that a logarithmic colour scale shows. Zero stays exactly zero.

    Attributes:
        bits: 8 or 16.
        shape: Rows and columns.
        scales: Largest magnitude of every row, (rows), float32.
        codes: Compressed integers (zlib); those of 16 bits as all low bytes, then all high bytes.
    """

    bits: int
    shape: tuple[int, int]
    scales: np.ndarray
    codes: bytes

    @property
    def size(self) -> int:
        """Length of its text on the page in characters, without the field names."""
        return (len(self.codes) + self.scales.nbytes) * 4 // 3

    def to_json(self) -> dict[str, Any]:
        """Return what ``unpack`` of the page's script reads."""
        return {
            'bits': self.bits,
            'rows': self.shape[0],
            'columns': self.shape[1],
            'scales': to_base64(self.scales.astype('<f4').tobytes()),
            'codes': to_base64(self.codes),
        }


def pack_array(values: np.ndarray, bits: int) -> PackedArray:
    """Quantise and compress a matrix (rows, columns) of finite floats.

    The error of a value is half a step of its square root: |√(|v| / scale) − √(|v'| / scale)| ≤ 1 / (2 m).
    """
    scales = np.abs(values).max(axis=1, initial=0).astype(np.float32)
    relative = values / np.where(scales > 0, scales, 1)[:, None]
    codes = np.rint(np.sign(relative) * np.sqrt(np.abs(relative)) * (2 ** (bits - 1) - 1)).astype(f'<i{bits // 8}')
    planes = codes.reshape(-1, 1).view(np.uint8).T
    return PackedArray(bits, (values.shape[0], values.shape[1]), scales, zlib.compress(planes.tobytes(), 6))


def unpack_array(packed: PackedArray) -> np.ndarray:
    """Return the values of a packed matrix, float32, as the page's script computes them."""
    planes = np.frombuffer(zlib.decompress(packed.codes), np.uint8).reshape(packed.bits // 8, -1)
    codes = np.ascontiguousarray(planes.T).view(f'<i{packed.bits // 8}').reshape(packed.shape).astype(np.float64)
    values = np.sign(codes) * (codes / (2 ** (packed.bits - 1) - 1)) ** 2 * packed.scales[:, None]
    return values.astype(np.float32)


def to_base64(data: bytes) -> str:
    """Return bytes as text."""
    return base64.b64encode(data).decode('ascii')
