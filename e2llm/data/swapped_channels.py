"""Two channels that were exchanged: seen from how a channel goes with all others, if the two lie far apart.

Neighbours on the scalp record nearly the same, so the correlations of a channel with all others tell where it lies. If
two channels were exchanged, their rows of the matrix of correlations fit the template the other way round. Neighbours
cannot be told apart in this way, and neither can a left site from its right neighbour at the front or the back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..core.montage import make_info

FEWEST = 16  # channels, below which rows are too short
OTHERS = 3  # other people whose mean is a template; with fewer, distances on the head are one
EXCHANGED = {"others": 0.3, "distances": 0.4}  # 1: exactly as if exchanged, -1: exactly as it should be
ALIKE = {"others": 0.5, "distances": 0.3}  # correlation with the template, without which nothing is said
_NEAR = 0.25  # share of the pairs that lie so near each other that they are not judged
_EVERY = 8  # windows, of which one is looked at


def correlations_of(windows: np.ndarray) -> tuple[np.ndarray, int]:
    """Sum of the correlations of all pairs of channels over every eighth window, and how many windows that are.

    Parameters
    ----------
    windows : ndarray, shape (n_windows, n_channels, n_samples)
        Clean windows.

    Returns
    -------
    total : ndarray, shape (n_channels * (n_channels - 1) / 2,)
        Upper triangle, row by row.
    n : int
    """
    upper, chosen = np.triu_indices(windows.shape[1], 1), windows[::_EVERY]
    total = np.zeros(len(upper[0]))
    for window in chosen:
        x = window - window.mean(axis=1, keepdims=True)
        x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
        total += (x @ x.T)[upper]
    return total, len(chosen)


def exchange_scores(matrix: np.ndarray, template: np.ndarray) -> np.ndarray:
    """How much better a matrix fits a template with two channels exchanged.

    With d the difference of two rows, without the two channels themselves, the score of a pair is
    ``- d(matrix) . d(template) / d(template) . d(template)``: -1 if the rows are those of the template, 1 if they are
    exchanged, 0 if they tell nothing.

    Parameters
    ----------
    matrix, template : ndarray, shape (n_channels, n_channels)
        Correlations, or what stands for them.

    Returns
    -------
    ndarray, shape (n_channels, n_channels)
        Above the diagonal, -1 for pairs that are too near each other in the template, and elsewhere.
    """
    def products(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        rows = a @ b.T
        own = np.diag(rows)
        theirs = (np.diag(a)[:, None] - a) * (np.diag(b)[:, None] - b)  # of the two channels themselves
        return own[:, None] + own - rows - rows.T - theirs - theirs.T

    apart = products(template, template)
    scores = -products(matrix, template) / np.maximum(apart, 1e-9)
    upper = np.triu(np.ones(matrix.shape, dtype=bool), 1)
    return np.where(upper & (apart > np.quantile(apart[upper], _NEAR)), scores, -1.0)


def _full(upper: np.ndarray, n: int) -> np.ndarray:
    matrix = np.zeros((n, n))
    matrix[np.triu_indices(n, 1)] = upper
    return matrix + matrix.T + np.eye(n)


def _cosines(sites: Sequence[str]) -> np.ndarray:
    """Cosine of the angle between sites, seen from the middle of the cap."""
    xyz = np.array([channel["loc"][:3] for channel in make_info(list(sites), 1.0)["chs"]])
    xyz = xyz - xyz.mean(axis=0)
    xyz /= np.linalg.norm(xyz, axis=1, keepdims=True)
    return xyz @ xyz.T


def _found(matrix: np.ndarray, template: np.ndarray, kind: str) -> tuple[int, int] | None:
    """The pair that most looks exchanged, if it does."""
    upper = np.triu_indices(len(matrix), 1)
    scores = exchange_scores(matrix, template)
    i, j = (int(k) for k in np.unravel_index(scores.argmax(), scores.shape))
    if scores[i, j] <= EXCHANGED[kind]:
        return None
    order = list(range(len(matrix)))
    order[i], order[j] = j, i
    right = matrix[np.ix_(order, order)]
    alike = np.corrcoef(right[upper], template[upper])[0, 1]
    return (i, j) if alike > ALIKE[kind] else None


def exchanged_channels(recordings: Mapping[str, tuple[str, np.ndarray]],
                       sites: Sequence[str]) -> dict[str, str]:
    """Recordings of which two channels look exchanged.

    Parameters
    ----------
    recordings : mapping of str to (str, ndarray)
        Recording to its subject and the mean correlations of its channels, as :func:`correlations_of` orders them.
    sites : sequence of str
        The channels.

    Returns
    -------
    dict of str to str
        Recording to a sentence. What is so in all recordings stands at the first.
    """
    n = len(sites)
    if n < FEWEST or not recordings:
        return {}
    matrices = {name: _full(np.asarray(upper), n) for name, (_, upper) in recordings.items()}
    cosines, found = _cosines(sites), {}
    enough = len({subject for subject, _ in recordings.values()}) > OTHERS
    for name, (subject, _) in recordings.items():
        others = [matrices[other] for other, (whose, _) in recordings.items() if whose != subject]
        kind = "others" if enough else "distances"
        pair = _found(matrices[name], np.median(others, axis=0) if enough else cosines, kind)
        if pair:
            with_what = "those of the other people" if enough else "their distances on the head"
            found[name] = (f"{sites[pair[0]]} and {sites[pair[1]]} look exchanged: their correlations with the other "
                           f"channels fit {with_what} the other way round")
    if enough and (pair := _found(np.median(list(matrices.values()), axis=0), cosines, "distances")):
        first = next(iter(recordings))
        found.setdefault(first, f"{sites[pair[0]]} and {sites[pair[1]]} look exchanged in all recordings: their "
                                "correlations with the other channels do not fit their distances on the head")
    return found
