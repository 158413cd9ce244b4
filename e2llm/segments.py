"""What is known of one EEG window, and the measured statements that may be made of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from .effects import BANDS
from .emotions import LabelSet
from .features import EvidenceNames, level
from .montage import REGIONS

INTENSITIES = ("weak", "moderate", "strong")  # thirds of the 0-1 scale
MAX_CLAIMS = 3


@dataclass(frozen=True)
class Claim:
    """One measured statement: a feature of the window is low or high against the person's own level."""

    feature: str  # "occipital alpha", "frontal asymmetry"
    level: str

    def __str__(self) -> str:
        return f"{self.feature} {self.level}"


@dataclass(frozen=True)
class Segment:
    """What is known of one EEG window, real or imagined; ``window`` is None for an imagined one."""

    window: int | None
    label: str
    intensity: float
    claims: tuple[Claim, ...]
    subject: str = ""
    clip: int = 0

    @property
    def state(self) -> str:
        """Label and, where the source has it, intensity: "fear strong"."""
        return self.label if np.isnan(self.intensity) else f"{self.label} {INTENSITIES[self.intensity_level]}"

    @property
    def intensity_level(self) -> int:
        """Third of the intensity scale: 0 weak, 1 moderate, 2 strong."""
        return min(2, int(3 * self.intensity))

    def part(self) -> dict:
        """Content part of a message: the window, or words that stand in for it."""
        if self.window is not None:
            return {"type": "eeg", "window": int(self.window)}
        return {"type": "text", "text": f"[ {', '.join([self.state, *map(str, self.claims)])} ]"}

    def value(self, axis: str, label_set: LabelSet) -> float:
        """Place on the axis valence, arousal or intensity."""
        if axis == "intensity":
            return self.intensity if np.isnan(self.intensity) else self.intensity_level
        return getattr(label_set, axis)[self.label]


def salient_claims(z: np.ndarray, names: EvidenceNames, limit: int = MAX_CLAIMS) -> tuple[Claim, ...]:
    """The most salient measured statements of a window: low or high features by falling ``|z|``."""
    order = np.argsort(-np.abs(z), kind="stable")[:limit]
    return tuple(Claim(names.columns[i], level(z[i])) for i in order if level(z[i]) != "typical")


def real_segments(index: pd.DataFrame, rows: np.ndarray, z: np.ndarray, names: EvidenceNames) -> list[Segment]:
    """Segments of recorded windows with their measured claims; ``z`` has a row for every window of the index."""
    table = index.iloc[rows]
    return [Segment(int(row), label, float(intensity), salient_claims(z[row], names), str(subject), int(clip))
            for row, label, intensity, subject, clip
            in zip(rows, table["label"], table["intensity"], table["subject"], table["clip"], strict=True)]


def imagined_segments(label_set: LabelSet, n: int, rng: np.random.Generator) -> list[Segment]:
    """Segments that exist only in words, to teach a fresh language model the language of the tasks.

    Their claims are independent of their label, so the words teach no link between evidence and emotion; that
    link can only be learned from EEG.
    """
    features = [f"{region} {band}" for region in REGIONS for band in BANDS] + ["frontal asymmetry"]
    segments = []
    for _ in range(n):
        chosen = rng.choice(len(features), size=rng.integers(0, MAX_CLAIMS + 1), replace=False)
        claims = tuple(Claim(features[i], str(rng.choice(["low", "high"]))) for i in chosen)
        intensity = float(rng.uniform()) if label_set.has_affect else float("nan")
        segments.append(Segment(None, label_set.labels[rng.integers(len(label_set))], intensity, claims))
    return segments
