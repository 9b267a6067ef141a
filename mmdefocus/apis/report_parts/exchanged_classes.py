"""What is taken for what: a matrix, or a list where there are too many classes."""

from collections.abc import Sequence

import numpy as np

from mmdefocus.pages import Chart, Table, matrix

_READABLE = 60  # classes
_LISTED = 100


def confusion_part(counts: np.ndarray, labels: Sequence[str]) -> Chart | Table:
    """Show a confusion matrix, rows true and columns predicted, (C, C) int, with the names of its classes."""
    if len(labels) <= _READABLE:
        return matrix(counts, labels, labels, 'predicted', 'true', title='Confusion matrix')
    pairs = sorted(((int(counts[i, j]), i, j) for i, j in np.argwhere(counts).tolist() if i != j), reverse=True)
    rows = [[labels[i], labels[j], count] for count, i, j in pairs[:_LISTED]]
    return Table(['true', 'predicted', 'count'], rows, 'The most frequent exchanges; the matrix has too many classes')
