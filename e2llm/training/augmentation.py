"""Edited copies of training windows, in which one band of one region moves alone.

In recorded windows features rise and fall together, so whatever learns from them alone may guess one feature from
another. Stage 1 regresses the evidence of copies and what each edit changed, and the ear is fitted on both; what copies
show of an emotion is nobody's to tell, so they have no label.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..core.claims import MAX_ABS_Z
from ..data.band_edits import Edit, draw_clear_edits, band_edited
from ..models.eegpt import EEGPT, NO_SOURCE, UNLABELLED
from ..models.projector import EvidenceProbe

if TYPE_CHECKING:
    from ..data.dataset import Corpus



TARGETS_Z = (2.5, 3.5, 4.5, 5.5)  # how far the feature of a copy is moved; one copy of every window for each


@dataclass(frozen=True)
class AugmentedWindows:
    """Edits of training windows and what was measured in the edited signals; the signals are made when they are asked for."""

    corpus: Corpus
    edits: tuple[Edit, ...]
    z: np.ndarray  # (n_copies, n_evidence)

    @classmethod
    def draw(cls, corpus: Corpus, rows: np.ndarray, seed: int) -> AugmentedWindows:
        """Copies of the windows ``rows`` by :func:`e2llm.data.band_edits.clear_edits`, which raises ValueError if none is clear."""
        rng = np.random.default_rng(seed)
        drawn = [draw_clear_edits(corpus, rows, rng, target) for target in TARGETS_Z]
        return cls(corpus, tuple(edit for each in drawn for edit in each.clear),
                   np.concatenate([each.z_after for each in drawn]))

    def __len__(self) -> int:
        return len(self.edits)

    def batch(self, places: list[int]) -> dict[str, torch.Tensor]:
        """Inputs of stage 1 for some copies: equalised signal in millivolts, no label, targets for the evidence alone."""
        edits, corpus = [self.edits[place] for place in places], self.corpus
        spectral = np.full((len(edits), corpus.spectral.shape[1]), np.nan, dtype=np.float32)
        spectral[:, : self.z.shape[1]] = np.clip(self.z[places], -MAX_ABS_Z, MAX_ABS_Z)
        return {"signal_mv": corpus.equalize(band_edited(corpus, edits),
                                             corpus.norm_groups[[edit.row for edit in edits]]),
                "labels": torch.full((len(edits),), UNLABELLED), "spectral": torch.from_numpy(spectral)}

    def append_augmented(self, order: np.ndarray, batch_size: int, n: int, seed: int) -> np.ndarray:
        """An order of windows with ``n`` copies of its own windows after each batch; copy i stands as the number of windows plus i.

        The windows of a batch take turns, and so do the copies of a window. ValueError if no window of a batch has a
        copy.
        """
        if not n:
            return order
        rng, batches = np.random.default_rng(seed), order.reshape(-1, batch_size)
        turns: dict[int, list[int]] = {}
        for place in rng.permutation(len(self)):
            turns.setdefault(self.edits[place].row, []).append(place)
        copies_of = {row: cycle(places) for row, places in turns.items()}

        def drawn(batch: np.ndarray) -> list[int]:
            own = [row for row in rng.permutation(batch) if row in copies_of]
            if not own:
                raise ValueError(f"No window of a batch of {batch_size} has a clear edit: take larger batches, or no "
                                 "copies.")
            return [len(self.corpus.windows) + next(copies_of[own[i % len(own)]]) for i in range(n)]

        return np.concatenate([np.concatenate([batch, drawn(batch)]) for batch in batches])

    def collate(self, windows: Callable[[list[int]], dict[str, torch.Tensor]]) -> Callable[[list[int]],
                                                                                           dict[str, torch.Tensor]]:
        """Batches of an order from :meth:`beside`: ``windows`` makes the part of the windows, copies follow.

        "source_index" says where in the batch the window of each copy stands, :data:`e2llm.models.eegpt.NO_ORIGIN`
        where it does not.
        """
        n_windows = len(self.corpus.windows)

        def collate(rows: list[int]) -> dict[str, torch.Tensor]:
            own, augmented_places = [row for row in rows if row < n_windows], [row - n_windows for row in rows
                                                                               if row >= n_windows]
            batch = windows(own)
            if not augmented_places:
                return batch
            place = {row: i for i, row in enumerate(own)}
            source_index = [NO_SOURCE] * len(own) + [place.get(self.edits[copy].row, NO_SOURCE)
                                                     for copy in augmented_places]
            return {**{name: torch.cat([batch[name], part]) for name, part in self.batch(augmented_places).items()},
                    "source_index": torch.tensor(source_index)}

        return collate


def fit_evidence_probe(encoder: EEGPT, augmented: AugmentedWindows, tokens: np.ndarray,
                       rows: np.ndarray) -> EvidenceProbe:
    """How evidence is heard in an encoder's tokens (of ``rows``), learned from training windows, edited copies, and what each edit changed."""
    corpus = augmented.corpus
    train = np.isin(rows, corpus.split.train)
    place = {row: i for i, row in enumerate(rows[train])}
    source_index = np.array([*np.full(train.sum(), NO_SOURCE), *(place[edit.row] for edit in augmented.edits)])
    predicted_evidence = np.array(tokens).reshape(len(rows), tokens.shape[1], -1)[train]
    return EvidenceProbe.fit(np.concatenate([predicted_evidence, encode_edited(encoder, corpus, augmented.edits)]),
                             np.concatenate([corpus.z[rows[train]], augmented.z]),
                   corpus.evidence_names.columns, source_index)


@torch.no_grad()
def encode_edited(encoder: EEGPT, corpus: Corpus, edits: Sequence[Edit], chunk: int = 64) -> np.ndarray:
    """Encoder tokens of edited windows, shape (n, 16, eeg_width)."""
    encoder.eval()
    parts = [edits[start : start + chunk] for start in range(0, len(edits), chunk)]
    found = [encoder(corpus.equalize(band_edited(corpus, part), corpus.norm_groups[[edit.row for edit in part]]))
             for part in parts]
    return torch.cat(found).flatten(2).numpy()
