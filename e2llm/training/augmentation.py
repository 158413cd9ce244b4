"""Augmentation of stage 1: band-edited training windows, in which one band of one region changes alone.

In recorded windows features rise and fall together, so a model of them may predict one feature from another. Stage 1
regresses the evidence of augmented windows and the change that each edit made, and the evidence probe is fitted on
both. The emotion of an augmented window is not known, so it has no label.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, cycle, zip_longest
from pathlib import Path

import numpy as np
import torch

from ..core.claims import MAX_ABS_Z
from ..core.montage import region_indices
from ..core.space import working_array
from ..data.band_edits import DrawnEdits, Edit, draw_clear_edits, scale_band
from ..data.dataset import Corpus
from ..models.eegpt import EEGPT
from ..models.evidence_probe import BLOCK, EvidenceProbe, moments_of
from . import processes
from .losses import NO_SOURCE, UNLABELLED

TARGETS_Z = (2.5, 3.5, 4.5, 5.5)  # how far the edited feature is moved; one augmented window of every window for each
ENOUGH_EDITS = 1000  # for the evidence probe; where there are more training windows, one edit of each


@dataclass(frozen=True)
class AugmentedWindows:
    """Band edits of training windows with their measured evidence; signals are made when a batch needs them.

    Parameters
    ----------
    corpus : Corpus
        Dataset.
    edits : tuple of Edit
        One for each augmented window.
    z : ndarray, shape (n_augmented, n_evidence)
        Evidence measured in the edited signals.
    """

    corpus: Corpus
    edits: tuple[Edit, ...]
    z: np.ndarray

    @classmethod
    def draw(cls, corpus: Corpus, rows: np.ndarray, seed: int,
             on_step: Callable[..., None] | None = None) -> AugmentedWindows:
        """Draw edits of windows by :func:`e2llm.data.band_edits.draw_clear_edits`.

        Parameters
        ----------
        corpus : Corpus
            Dataset.
        rows : ndarray of int, shape (n_rows,)
            Windows to edit.
        seed : int
            Of the draws.
        on_step : callable, optional
            ``on_step(n)`` with the number of edits that are measured, ``len(TARGETS_Z) * n_rows`` at the end.

        Raises
        ------
        ValueError
            If no edit is clear.
        """
        rng = np.random.default_rng(seed)
        drawn: list[DrawnEdits] = []

        def report(n: int) -> None:
            if on_step is not None:
                on_step(len(drawn) * len(rows) + n)

        for target in TARGETS_Z:
            drawn.append(draw_clear_edits(corpus, rows, rng, target, report))
        return cls(corpus, tuple(edit for each in drawn for edit in each.clear),
                   np.concatenate([each.z_after for each in drawn]))

    def __len__(self) -> int:
        return len(self.edits)

    def batch(self, places: list[int], equalized: Mapping[int, torch.Tensor] | None = None,
              own: list[int] | None = None, kept: KeptEdits | None = None) -> dict[str, torch.Tensor]:
        """Inputs of stage 1: equalized signal in millivolts, no label, targets for the evidence only.

        See :func:`edited_inputs` for ``equalized``.

        Parameters
        ----------
        places : list of int
            Of the edits.
        equalized : mapping of int to Tensor, optional
            See :func:`edited_inputs`.
        own : list of int, optional
            Make signals of these only.
        kept : KeptEdits, optional
            Of the edits of earlier batches; by default all are made.
        """
        edits = [self.edits[place] for place in (places if own is None else own)]
        spectral = np.full((len(places), self.corpus.spectral.shape[1]), np.nan, dtype=np.float32)
        spectral[:, : self.z.shape[1]] = np.clip(self.z[places], -MAX_ABS_Z, MAX_ABS_Z)
        signals = (kept or KeptEdits(self.corpus, 0)).inputs(edits, equalized or {})
        return {"signal_mv": signals,
                "labels": torch.full((len(places),), UNLABELLED), "spectral": torch.from_numpy(spectral)}

    def append_augmented(self, order: np.ndarray, batch_size: int, n: int, seed: int) -> np.ndarray:
        """Append augmented windows to every batch of an order of windows.

        Augmented window i stands as the number of windows plus i. The windows of a batch take turns, and so do the
        augmented windows of a window.

        Parameters
        ----------
        order : ndarray of int, shape (n_batches * batch_size,)
            Windows.
        batch_size, n : int
            Windows of a batch, and augmented windows to append; each is made from a window of the batch.
        seed : int
            Of the turns.

        Raises
        ------
        ValueError
            If no window of a batch has an augmented one.
        """
        if not n:
            return order
        rng, batches = np.random.default_rng(seed), order.reshape(-1, batch_size)
        turns: dict[int, list[int]] = {}
        for place in rng.permutation(len(self)):
            turns.setdefault(self.edits[place].row, []).append(place)
        augmented_of = {row: cycle(places) for row, places in turns.items()}

        def drawn(batch: np.ndarray) -> list[int]:
            own = [row for row in rng.permutation(batch) if row in augmented_of]
            if not own:
                raise ValueError(f"No window of a batch of {batch_size} has a clear edit: take larger batches, or no "
                                 "augmented windows.")
            return [len(self.corpus.windows) + next(augmented_of[own[i % len(own)]]) for i in range(n)]

        return np.concatenate([np.concatenate([batch, drawn(batch)]) for batch in batches])

    def collate(self, windows: Callable[..., dict[str, torch.Tensor]],
                kept_bytes: int = 2**28) -> Callable[[list[int]], dict]:
        """Batches of an order from :meth:`append_augmented`: ``windows(rows, own)`` makes the recorded part.

        Edited channels stay in memory, ``kept_bytes`` of them at most: an edit comes in several batches.
        ``source_index`` is the place in the batch of the window that each augmented one was made from;
        :data:`e2llm.training.losses.NO_SOURCE` where there is none. Of several processes each makes the signals of its
        part of a batch, and ``order``; see :func:`e2llm.training.processes.whole_batch`.
        """
        n_windows, kept = len(self.corpus.windows), KeptEdits(self.corpus, kept_bytes)

        def collate(rows: list[int]) -> dict[str, torch.Tensor]:
            own = [row for row in rows if row < n_windows]
            augmented = [row - n_windows for row in rows if row >= n_windows]
            place = {row: i for i, row in enumerate(own)}
            sources = [place.get(self.edits[i].row, NO_SOURCE) for i in augmented]
            parts = processes.parts_with_sources(sources, len(own), processes.n_processes())
            mine = parts[processes.rank()]
            signals_of = [own[i] for i in mine if i < len(own)]
            batch = windows(own, signals_of)
            if augmented:
                added = self.batch(augmented, dict(zip(signals_of, batch["signal_mv"], strict=True)),
                                   [augmented[i - len(own)] for i in mine if i >= len(own)], kept)
                batch = {**{name: torch.cat([batch[name], part]) for name, part in added.items()},
                         "source_index": torch.tensor([NO_SOURCE] * len(own) + sources)}
            order = {} if len(parts) == 1 else {"order": torch.tensor(list(chain(*parts))).argsort()}
            return batch | order

        return collate


class KeptEdits:
    """Edited channels of band-edited windows that were made once, the first that are asked for.

    An edit changes one region, so it takes about a sixth of the memory of a window.

    Parameters
    ----------
    corpus : Corpus
        Dataset.
    room : int
        Bytes that it may take; 0 keeps nothing.
    """

    def __init__(self, corpus: Corpus, room: int) -> None:
        self.corpus, self.room = corpus, room
        self.regions = region_indices(corpus.windows.ch_names)
        self.kept: dict[Edit, torch.Tensor] = {}

    def inputs(self, edits: Sequence[Edit], equalized: Mapping[int, torch.Tensor]) -> torch.Tensor:
        """As :func:`edited_inputs`, equal bit for bit; edits that are kept need their window in ``equalized``."""
        known = {edit for edit in edits if edit in self.kept and edit.row in equalized}
        new = [edit for edit in dict.fromkeys(edits) if edit not in known]
        made = dict(zip(new, edited_inputs(self.corpus, new, equalized) if new else (), strict=True))
        signals = torch.stack([made[edit] if edit in made else equalized[edit.row] for edit in edits])
        for signal, edit in zip(signals, edits, strict=True):
            if edit not in made:
                signal[self.regions[edit.region]] = self.kept[edit]
        for edit, signal in made.items():
            changed = signal[self.regions[edit.region]]
            if changed.nbytes <= self.room and edit not in self.kept:
                self.kept[edit], self.room = changed, self.room - changed.nbytes
        return signals


def edited_inputs(corpus: Corpus, edits: Sequence[Edit],
                  equalized: Mapping[int, torch.Tensor] | None = None) -> torch.Tensor:
    """Encoder inputs of band-edited windows.

    An edit and the equalizer both filter one channel, so the edited equalized signal is the equalized edited one: a
    window is equalized once for all its edits, and an edit transforms the channels of its region only.

    Parameters
    ----------
    corpus : Corpus
        Dataset.
    edits : sequence of Edit
        What to change.
    equalized : mapping of int to Tensor, optional
        Equalized signals of some windows by row: these are not read again.

    Returns
    -------
    Tensor, shape (n_edits, n_channels, n_samples)
        Millivolts.
    """
    windows, known = corpus.windows, dict(equalized or {})
    if missing := sorted({edit.row for edit in edits} - known.keys()):
        known |= dict(zip(missing, corpus.equalize(windows.data[missing], corpus.norm_groups[missing]), strict=True))
    return torch.from_numpy(np.stack([scale_band(known[edit.row].numpy(), windows.ch_names, windows.sfreq, edit.band,
                                                 edit.region, edit.db) for edit in edits]))


def fit_evidence_probe(encoder: EEGPT, augmented: AugmentedWindows, tokens: np.ndarray,
                       rows: np.ndarray, folder: Path | None = None) -> EvidenceProbe:
    """Fit the evidence probe on training windows, augmented windows, and the change between them.

    Tokens of augmented windows are made block by block, and only their moments are kept. Of many windows one edit each
    is enough: on the default run's 1,078 training windows, probes of 4,304, 2,152 and 1,076 edits erred alike (0.53,
    0.53 and 0.53 standard deviations in test windows, 0.54 in their edits). Encoding edits is most of the work.

    Parameters
    ----------
    encoder : EEGPT
        Frozen.
    augmented : AugmentedWindows
        Of training windows.
    tokens : ndarray, shape (n_rows, n_times, eeg_width)
        The encoder's tokens of ``rows``.
    rows : ndarray of int, shape (n_rows,)
        Windows, training windows among them.
    folder : Path, optional
        Whose disk holds moments that are many; see :func:`e2llm.core.space.working_array`.
    """
    corpus, train = augmented.corpus, np.flatnonzero(np.isin(rows, augmented.corpus.split.train))
    place = {row: i for i, row in enumerate(rows[train])}
    chosen = _spread([edit.row for edit in augmented.edits], max(len(train), ENOUGH_EDITS))
    edits = [augmented.edits[i] for i in chosen]
    pooled = working_array((len(train) + len(edits), 2 * int(np.prod(tokens.shape[2:]))), folder, np.float64)
    for start in range(0, len(train), BLOCK):
        some = train[start : start + BLOCK]
        moments_of(tokens[some], pooled[start : start + len(some)])
    for start in range(0, len(edits), BLOCK):
        found = encode_edited(encoder, corpus, edits[start : start + BLOCK])
        found = found.astype(tokens.dtype)  # rounded alike: a change is not the rounding of one of two
        moments_of(found, pooled[len(train) + start : len(train) + start + len(found)])
    source_index = np.array([*np.full(len(train), NO_SOURCE), *(place[edit.row] for edit in edits)])
    all_z = np.concatenate([corpus.z[rows[train]], augmented.z[chosen]])
    return EvidenceProbe.fit_moments(pooled, all_z, corpus.evidence_names.columns, source_index)


def _spread(rows: Sequence[int], most: int) -> np.ndarray:
    """Places of ``most`` edits, or of all: of each window in turn, the first window's first, the second's second.

    So all windows and all targets have their share. Edits of one window stand together.
    """
    own: dict[int, list[int]] = {}
    for i, row in enumerate(rows):
        own.setdefault(row, []).append(i)
    turned = [places[k % len(places) :] + places[: k % len(places)] for k, places in enumerate(own.values())]
    in_turn = [place for places in zip_longest(*turned) for place in places if place is not None]
    chosen = np.sort(in_turn[:most])
    return chosen[np.argsort(np.asarray(rows)[chosen], kind="stable")]


@torch.no_grad()
def encode_edited(encoder: EEGPT, corpus: Corpus, edits: Sequence[Edit], batch: int = 16) -> np.ndarray:
    """Encoder tokens of band-edited windows.

    Parameters
    ----------
    encoder : EEGPT
        Put into evaluation mode.
    corpus : Corpus
        Dataset.
    edits : sequence of Edit
        What to change.
    batch : int
        Edited windows that the encoder sees at a time; see :func:`e2llm.training.trainer.encode_rows`.

    Returns
    -------
    ndarray, shape (n_edits, n_times, eeg_width)
    """
    encoder.eval()
    device = next(encoder.parameters(), torch.empty(0)).device
    order = np.argsort([edit.row for edit in edits], kind="stable")  # edits of one window stand together
    parts = [order[start : start + batch] for start in range(0, len(order), batch)]
    found = [encoder(edited_inputs(corpus, [edits[i] for i in part]).to(device)).cpu() for part in parts]
    return torch.cat(found).flatten(2).numpy()[np.argsort(order)]
