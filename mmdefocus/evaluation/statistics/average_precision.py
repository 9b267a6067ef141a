"""COCO's average precision of a list of right and wrong predictions."""

import numpy as np

# Recalls at which COCO reads the precision.
RECALLS = np.linspace(0, 1, 101)


def average_precision(correct: np.ndarray, objects: int) -> float:
    """Return the AP of one class: the mean, over 101 recalls, of the highest precision at this or a higher recall.

    Source: Lin et al., Microsoft COCO (2014, arXiv 1405.0312) and pycocotools.

    Args:
        correct: The predictions by descending score are right, (P,) bool.
        objects: Number of true objects, at least one.
    """
    hits = np.cumsum(correct)
    precision = np.maximum.accumulate((hits / np.arange(1, len(hits) + 1))[::-1])[::-1]
    return float(np.append(precision, 0)[np.searchsorted(hits / objects, RECALLS)].mean())


def mean_average_precision(
    label: np.ndarray, score: np.ndarray, correct: np.ndarray, objects: np.ndarray, found_of: np.ndarray | None = None
) -> float:
    """Return the mean AP of the classes with objects.

    Args:
        label: Classes of the predictions, (P,) int.
        score: Their scores, (P,); of equal ones, the first prediction comes first.
        correct: They are right, (P,) bool.
        objects: Number of objects of every class, (C,) int; at least one object.
        found_of: The number of them that are to be found, (C,) int; all by default. A class whose objects need not be
            found has an AP of 1.
    """
    found_of = objects if found_of is None else found_of
    rows = np.lexsort((-score, label))
    ends = np.searchsorted(label[rows], np.arange(len(objects) + 1))
    return float(
        np.mean(
            [
                average_precision(correct[rows[ends[one] : ends[one + 1]]], found_of[one]) if found_of[one] else 1.0
                for one in np.flatnonzero(objects)
            ]
        )
    )
