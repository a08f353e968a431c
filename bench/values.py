"""What values would gain from what `quality.calibrate` does to keys:

    python -m bench.values MODEL --release RELEASE --text TEXT [--tokens 2048]

A constant may be taken off all values of a head and added to what attention gives, whose weights add up to one;
channels, or any combinations of them, may be scaled before they are stored if the inverse follows. A type errs in
proportion to the energy of what it stores, alike in all channels, and the model feels an error by the matrix behind
attention. Everything is fitted to one stretch of the text and measured on another. pytest tests its arithmetic.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt
from gguf.quants import dequantize

from bench.keys import dumped
from toolchain.models.quality.samples import read_text

Numbers = npt.NDArray[np.float64]
_LEAST = 1e-9
"""of the mean variance, added to all: matrices are inverted"""


def gains(values: Numbers, others: Numbers, felt: Numbers) -> tuple[float, float, float]:
    """Decibels less felt error of a head's `values` (tokens, size) with the constant of `others`; then with channels
    scaled, too; then with the best invertible matrix instead. `felt` (size, size) weighs errors.
    """
    constant = others.mean(axis=0)
    plain, rest, fitted = values, values - constant, others - constant
    covariance = fitted.T @ fitted / len(fitted)
    covariance += np.eye(len(covariance)) * _LEAST * np.trace(covariance) / len(covariance)
    scale = np.diag(np.sqrt(np.diag(felt) / np.diag(covariance)))
    root = _power(covariance, 0.5)
    inverse = _power(covariance, -0.5)
    matrix = inverse @ _power(root @ felt @ root, 0.5) @ inverse
    even = np.eye(len(felt))
    errors = [_error(plain, even, felt), *(_error(rest, metric, felt) for metric in (even, scale, matrix))]
    return tuple(10 * float(np.log10(errors[i] / errors[j])) for i, j in ((0, 1), (1, 2), (1, 3)))  # type: ignore[return-value]


def _error(values: Numbers, metric: Numbers, felt: Numbers) -> float:
    """Felt error, but for a factor, where M values are stored and M^T M is the metric."""
    energy = np.einsum("ij,jk,ik->", values, metric, values) / len(values)
    return float(energy * np.trace(felt @ np.linalg.inv(metric)))


def _power(matrix: Numbers, exponent: float) -> Numbers:
    values, vectors = np.linalg.eigh(matrix)
    floor = _LEAST * values.max()
    found: Numbers = (vectors * np.maximum(values, floor) ** exponent) @ vectors.T
    return found


def main() -> None:
    """Print the gains, mean over heads and their range."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--release", type=Path, required=True)
    parser.add_argument("--text", required=True)
    parser.add_argument("--tokens", type=int, default=2048)
    given = parser.parse_args()
    weights = {one.name: one for one in gguf.GGUFReader(given.model).tensors}
    found = []
    for first, second in zip(*dumped(given.release, given.model, read_text(given.text), given.tokens), strict=True):
        if first.v is None or second.v is None:
            continue
        behind = weights[f"blk.{first.layer}.attn_output.weight"]
        rows = dequantize(behind.data, behind.tensor_type).astype(np.float64)
        heads, size = first.v.shape[1:]
        felt = rows.reshape(len(rows), heads, -1, size)  # KV heads, then the heads that ask each
        for head in range(heads):
            matrix = np.einsum("egi,egj->ij", felt[:, head], felt[:, head])
            values, others = (one[:, head].astype(np.float64) for one in (first.v, second.v))
            found.append(gains(values, others, matrix))
    for name, row in zip(("constant", "then channels scaled", "or any matrix"), np.array(found).T, strict=True):
        sys.stdout.write(f"{name}: {row.mean():.2f} dB ({row.min():.2f} to {row.max():.2f})\n")


if __name__ == "__main__":
    main()
