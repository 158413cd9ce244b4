"""What any model must beat, and the ceiling on the twin."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from .calibration import Baseline
from .effects import Preset, oracle_probabilities
from .features import differential_entropy
from .splits import Split

STRENGTHS = (0.001, 0.003, 0.01, 0.03, 0.1, 1.0)  # inverse regularisation, chosen on the validation part


def linear_baseline(power: np.ndarray, labels: np.ndarray, owners: np.ndarray, split: Split, calibrated: bool) -> np.ndarray:
    """Differential entropy of every channel and band, and logistic regression.

    Parameters
    ----------
    power : ndarray, shape (n_windows, n_channels, n_bands)
        Square microvolts.
    labels : ndarray of int
        Class indices.
    owners : ndarray of str
        Subjects.
    split : Split
        Trains on train, chooses its regularisation on val.
    calibrated : bool
        Express features against each person's own level first, from the rows that the encoder's input is calibrated on.

    Returns
    -------
    ndarray of int, shape (len(split.test),)
        Predicted class indices.
    """
    features = differential_entropy(np.asarray(power)).reshape(len(power), -1)
    if calibrated:
        features = Baseline.fit(features, owners, split).z(features, owners)
    fitted = []
    for strength in STRENGTHS:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000))
        with threadpool_limits(1):  # small matrices: threads that wait for each other take fifteen times as long
            model.fit(features[split.train], labels[split.train])
        fitted.append((balanced_accuracy_score(labels[split.val], model.predict(features[split.val])), model))
    best = max(fitted, key=lambda pair: pair[0])[1]
    return best.predict(features[split.test])


def oracle(truth: Path, subjects: np.ndarray, clips: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """Answers of the classifier that knows the generating model, for windows of a twin.

    Parameters
    ----------
    truth : Path
        Ground-truth folder of the twin (:func:`e2llm.simulate.truth_folder`).
    subjects, clips, windows : ndarray
        Which windows.

    Returns
    -------
    ndarray of int
        Most probable class indices.
    """
    made = yaml.safe_load((truth / "twin.yaml").read_text())
    effects = dict(made["effects"], intensity=tuple(made["effects"]["intensity"]))
    with np.load(truth / "truth.npz") as stored:
        known = {name: stored[name] for name in stored.files}
    place = {key: i for i, key in enumerate(zip(known["subject"], known["clip"], known["window"], strict=True))}
    rows = [place[int(s), int(c), int(w)] for s, c, w in zip(subjects, clips, windows, strict=True)]
    person = known["person_effects"][known["subject"][rows] - 1]
    return oracle_probabilities(known["latents"][rows], person, Preset(**effects)).argmax(axis=1)
