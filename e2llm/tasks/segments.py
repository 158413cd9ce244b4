"""What is known of one EEG window, and the measured statements that may be made of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from ..core.bands import BANDS
from ..core.claims import LOW_HIGH, WHOLE, Claim, EvidenceNames, Scale, salient_claims
from ..core.labels import LabelSet
from ..core.montage import REGIONS
from ..core.verdicts import agrees
from ..data.dataset import Corpus
from ..models.projector import top_evidence

INTENSITIES = ("weak", "moderate", "strong")  # thirds of the 0-1 scale


def third(intensity: float) -> int:
    """Place of an intensity (0 to 1) in :data:`INTENSITIES`."""
    return min(2, int(3 * intensity))


@dataclass(frozen=True)
class Segment:
    """What is known of one EEG window, real or imagined; ``window`` is None for an imagined one."""

    window: int | None
    label: str
    intensity: float
    claims: tuple[Claim, ...]  # what may be said of it
    subject: str = ""
    clip: int = 0
    scale: Scale = LOW_HIGH  # of its claims

    @property
    def state(self) -> str:
        """Label and, where the source has it, intensity: "fear strong"."""
        return self.label if np.isnan(self.intensity) else f"{self.label} {INTENSITIES[self.intensity_level]}"

    @property
    def intensity_level(self) -> int:
        """Third of the intensity scale: 0 weak, 1 moderate, 2 strong."""
        return third(self.intensity)

    def part(self, evidence: bool = True) -> dict:
        """Content part of a message: the window, or words that stand in for it.

        Parameters
        ----------
        evidence : bool
            Whether its evidence stands in the prompt.
        """
        if self.window is not None:
            return {"type": "eeg", "window": int(self.window)} | ({} if evidence else {"evidence": False})
        stated = map(str, self.claims) if evidence else ()
        return {"type": "text", "text": f"[ {', '.join([self.state, *stated])} ]"}

    def value(self, axis: str, label_set: LabelSet) -> float:
        """Place on an axis.

        Parameters
        ----------
        axis : str
            "valence", "arousal" or "intensity".
        label_set : LabelSet
            Gives the coordinates of the label.
        """
        if axis == "intensity":
            return self.intensity if np.isnan(self.intensity) else self.intensity_level
        return getattr(label_set, axis)[self.label]


def predicted_claims(z: np.ndarray, predicted_evidence: np.ndarray, names: EvidenceNames) -> tuple[Claim, ...]:
    """Claims that a model can learn to make of a window: top-k predicted evidence that is also true of the signal.

    Training it to cite measured evidence that its tokens do not hold would train it to invent claims.

    Parameters
    ----------
    z, predicted_evidence : ndarray, shape (n_evidence,)
        Measured evidence, and what the evidence probe predicts.
    names : EvidenceNames
        Their columns, and the scale of the claims.

    Raises
    ------
    ValueError
        If there is no prediction for this window.

    References
    ----------
    Gekhman, Z., et al. (2024). Does fine-tuning LLMs on new knowledge encourage hallucinations? EMNLP.
    """
    if not np.isfinite(predicted_evidence).all():
        raise ValueError("There is no predicted evidence for this window: it lies outside the split that the encoder "
                         "was trained with.")
    scale = names.scale
    most = min(scale.most, len(names.columns))  # a small cap measures less than a thought has room for
    found = top_evidence(torch.from_numpy(np.asarray(predicted_evidence))[None], most, scale.cited)
    which, is_used = (part[0].numpy() for part in found)
    stated, measured = scale.index(predicted_evidence), scale.index(z)
    return tuple(Claim(names.columns[i], scale.words[stated[i]]) for i in which[is_used]
                 if agrees(stated[i], measured[i], scale))


def real_segments(index: pd.DataFrame, rows: np.ndarray, z: np.ndarray, names: EvidenceNames,
                  predicted_evidence: np.ndarray | None = None) -> list[Segment]:
    """Segments of recorded windows with the claims that may be made of them.

    Parameters
    ----------
    index : DataFrame
        A row for every window of the dataset.
    rows : ndarray of int, shape (n,)
        Window ids of the segments.
    z, predicted_evidence : ndarray, shape (n_windows, n_evidence)
        Measured and predicted evidence of all windows. Without a prediction, claims are the measured ones.
    names : EvidenceNames
        Columns of the evidence.
    """
    table = index.iloc[rows]
    claims = [salient_claims(z[row], names) if predicted_evidence is None
              else predicted_claims(z[row], predicted_evidence[row], names) for row in rows]
    return [Segment(int(row), label, float(intensity), said, str(subject), int(clip), names.scale)
            for row, said, label, intensity, subject, clip
            in zip(rows, claims, table["label"], table["intensity"], table["subject"], table["clip"], strict=True)]


def imagined_segments(label_set: LabelSet, n: int, rng: np.random.Generator,
                      scale: Scale = LOW_HIGH) -> list[Segment]:
    """Segments that exist only in words, to train a new language model on the language of the tasks.

    Their claims are independent of their label: the words hold no link between evidence and emotion. That link can be
    learned from EEG only.

    Parameters
    ----------
    label_set : LabelSet
        Labels to draw from.
    n : int
        Number of segments.
    rng : Generator
        Source of the draws.
    scale : Scale
        Of the claims.
    """
    levels = [word for word in scale.words if word != "typical"]
    features = [f"{region} {band}" for region in REGIONS for band in BANDS] + list(WHOLE)
    segments = []
    for _ in range(n):
        chosen = np.sort(rng.choice(len(features), size=rng.integers(0, scale.most + 1), replace=False))
        claims = tuple(Claim(features[i], str(rng.choice(levels))) for i in chosen)
        intensity = float(rng.uniform()) if label_set.has_affect else float("nan")
        label = label_set.labels[rng.integers(len(label_set))]
        segments.append(Segment(None, label, intensity, claims, scale=scale))
    return segments


def segments_of(corpus: Corpus, rows: np.ndarray) -> list[Segment]:
    """Segments of some windows of a dataset.

    Parameters
    ----------
    corpus : Corpus
        With or without evidence as a trained encoder predicts it.
    rows : ndarray of int, shape (n,)
        Window ids.
    """
    return real_segments(corpus.windows.index, rows, corpus.z, corpus.evidence_names, corpus.predicted_evidence)
