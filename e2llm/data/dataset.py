"""TODO purpose of data.dataset."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..core.claims import EvidenceNames
from ..core.labels import LabelSet
from .normalization import Equaliser
from .preprocessing import Windows
from .protocols import Split


@dataclass(frozen=True)
class Corpus:
    """Windows of a run with everything that a split lets one know of them."""

    windows: Windows
    label_set: LabelSet
    split: Split
    equalise: Equaliser
    z: np.ndarray  # (n_windows, n_evidence) against each person's own level
    evidence_names: EvidenceNames
    spectral: np.ndarray  # (n_windows, n_evidence + n_groups * n_bands), z and the same for scalp groups: what stage 1 learns to hear
    labels: np.ndarray  # class indices
    subjects: np.ndarray  # subject names
    norm_groups: np.ndarray  # whose levels a window is compared with (Split.whose)
    predicted_evidence: np.ndarray | None = None  # z as the trained encoder hears it, NaN for windows outside the split; None before stage 1

