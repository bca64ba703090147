"""Scores of outputs against labels and against the float model's outputs, with confidence
intervals."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from math import sqrt

import numpy as np
from scipy.stats import norm, t

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Outputs:
    """What a network computed of n samples: per sample the first output [n, elements] for argmax,
    and all float outputs in one row [n, all elements] for distances."""

    first: np.ndarray
    whole: np.ndarray

    def __len__(self) -> int:
        return len(self.first)


@dataclass(frozen=True)
class Score:
    """A figure with the interval that has the true one with 95 % confidence; None where there is
    none."""

    value: float
    low: float | None = None
    high: float | None = None


def top1(outputs: Outputs, labels: np.ndarray, independent: int = 0) -> Score:
    """The part of the samples whose largest output is the label's."""
    return _share(outputs.first.argmax(1) == labels, independent)


def agreement(outputs: Outputs, floats: Outputs, independent: int = 0) -> Score:
    """The part of the samples whose largest output is that of the float model."""
    return _share(outputs.first.argmax(1) == floats.first.argmax(1), independent)


def cosine(outputs: Outputs, floats: Outputs, groups: np.ndarray | None = None) -> Score:
    """Mean over the samples of the cosine between a plan's outputs and the float model's; equal
    rows count as 1, also where they are zero. `groups` [n]: numbers from 0 on."""
    a, b = outputs.whole.astype(np.float64), floats.whole.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    same = (a == b).all(1)
    each = np.where(same, 1.0, (a * b).sum(1) / np.where(lengths > 0, lengths, 1.0))
    return _mean(each, groups)


def mse(outputs: Outputs, floats: Outputs, groups: np.ndarray | None = None) -> Score:
    """Mean squared difference between a plan's outputs and the float model's."""
    gap = outputs.whole.astype(np.float64) - floats.whole.astype(np.float64)
    found = _mean(np.square(gap).mean(1), groups)
    return found if found.low is None else replace(found, low=max(0.0, found.low))


def drop(outputs: Outputs, floats: Outputs, labels: np.ndarray, independent: int = 0) -> Score:
    """By how much fewer samples are right than with the float model: paired, with the interval of
    Agresti and Min (2005, Simple improved confidence intervals for comparing matched
    proportions, half an observation added to each cell)."""
    right, before = outputs.first.argmax(1) == labels, floats.first.argmax(1) == labels
    n = len(right)
    scale = (independent or n) / n  # views of one photograph are no independent samples
    lost, won = (before & ~right).sum(), (right & ~before).sum()
    b, c, size = lost * scale + 0.5, won * scale + 0.5, n * scale + 2.0
    half = norm.ppf(0.5 + CONFIDENCE / 2) * sqrt(b + c - (b - c) ** 2 / size) / size
    middle = (b - c) / size
    return Score(float((lost - won) / n), middle - half, middle + half)


def group_numbers(groups: Sequence[Hashable | None]) -> np.ndarray:
    """[n], from 0 on: samples of one number (views of a photograph) are not independent of each
    other; those without group are."""
    keys = [("row", i) if g is None else ("group", g) for i, g in enumerate(groups)]
    numbers = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    return np.array([numbers[key] for key in keys])


def _share(hits: np.ndarray, independent: int) -> Score:
    """Wilson's interval (E. Wilson, Probable inference, the law of succession, and statistical
    inference, 1927); with groups for as many samples as there are groups."""
    p, n, z = float(hits.mean()), independent or len(hits), norm.ppf(0.5 + CONFIDENCE / 2)
    middle, size = p + z * z / (2 * n), 1 + z * z / n
    half = z * sqrt(p * (1 - p) / n + (z / (2 * n)) ** 2)
    return Score(p, max(0.0, (middle - half) / size), min(1.0, (middle + half) / size))


def _mean(values: np.ndarray, groups: np.ndarray | None) -> Score:
    """The interval of a mean, by Student's t; with groups that of the means of these."""
    mean = float(values.mean())
    if groups is not None:
        values = np.bincount(groups, values) / np.bincount(groups)
    n = len(values)
    if n < 2:
        return Score(mean)
    half = t.ppf(0.5 + CONFIDENCE / 2, n - 1) * float(values.std(ddof=1)) / sqrt(n)
    return Score(mean, mean - half, mean + half)
