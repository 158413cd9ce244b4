"""Which channels, moments and bands an answer depends on, by gradients through projector and encoder.

Attributions show what a model uses, which need not be what an emotion causes. Taking cells away shows whether they are
right about the model; the table that the twin was made from shows whether the model is right about the twin.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from torch import Tensor

from ..core.bands import BANDS
from ..core.chat import Item
from ..data.dataset import Corpus
from ..data.emotion_effects import EFFECTS
from ..data.features import scalp_groups
from ..models.eegpt import EEGPT, PATCH, SFREQ
from ..models.modeling import E2LLMForConditionalGeneration
from ..models.processing import E2LLMProcessor
from ..training.losses import EmotionEncoder
from .metrics import mean_over_subjects

# Differentiable: signal (batch, channels, samples) in millivolts -> log-probabilities (batch, n_labels)
Scorer = Callable[[Tensor], Tensor]
Bands = Mapping[str, tuple[float, float]]  # Hz, lower edge included


class IncompleteAttribution(UserWarning):
    """Attributions do not add up to the difference of the scores that they share out."""


def head_score(model: EmotionEncoder) -> Scorer:
    """Log-probabilities of the stage-1 head; ValueError for a model in training mode."""
    _refuse_training(model)
    return lambda signal_mv: model(signal_mv.to(model.classifier.weight.device))["logits"].log_softmax(dim=-1)


def language_score(model: E2LLMForConditionalGeneration, processor: E2LLMProcessor, encoder: EEGPT, question: Item,
                   closed: bool = False) -> Scorer:
    """Log-probability of each option of a question about one segment, from the signal; shape (batch, n_options).

    The numbers of :func:`e2llm.models.inference.score_options` without a thought, end of turn included, with their
    gradient through language model, projector and encoder. The evidence tokens of the prompt carry nothing: which
    features are above the evidence threshold changes in steps as the signal changes, and a step has no gradient. So the
    part of the answer that depends on the state tokens is explained.

    Parameters
    ----------
    model, processor
        The language model with its projector, and its processor.
    encoder : EEGPT
        Whose tokens that projector knows.
    question : Item
        Its words and options count, not the window that it names.
    closed : bool
        Normalize over the options, to compare with the head; else what makes the model answer with any option at all
        counts too.

    Raises
    ------
    ValueError
        For several EEG parts or none, and for models in training mode.
    """
    _refuse_training(model, encoder)
    model = model.without_evidence_tokens()
    if len(found := processor.windows(question.messages)) != 1:
        raise ValueError(f"The question holds {len(found)} EEG segments: ask about one, as "
                         "e2llm.tasks.items.predict does.")
    device, n_options = model.device, len(question.options)
    prompt = torch.tensor([processor.ids(processor.prompt(question.messages, thinking=False))], device=device)
    options = [[*processor.ids(option), processor.tokenizer.eos_token_id] for option in question.options]
    ids, mask = (padded.to(device) for padded in processor.pad(options, "right"))
    places = (prompt.shape[1] + torch.arange(ids.shape[1], device=device))[None]

    def score(signal_mv: Tensor) -> Tensor:
        n = len(signal_mv)
        features = encoder(signal_mv.to(next(encoder.parameters()).device)).flatten(2).to(device)
        # The prompt is read once for all options; the gradient comes back through the cache.
        first = model(input_ids=prompt.expand(n, -1), eeg_features=features, use_cache=True)
        cache = first.past_key_values
        cache.batch_repeat_interleave(n_options)
        repeated, real = ids.repeat(n, 1), mask.repeat(n, 1)
        full = torch.cat([real.new_ones(len(real), prompt.shape[1]), real], dim=1)
        second = model(input_ids=repeated, attention_mask=full, past_key_values=cache,
                       position_ids=places.expand(len(repeated), -1), use_cache=True)
        # The token at place t is predicted by the logits at t - 1; those of the first token come from the prompt.
        before = first.logits[:, -1:].repeat_interleave(n_options, dim=0)
        logits = torch.cat([before, second.logits[:, :-1]], dim=1).float()
        chosen = logits.log_softmax(-1).gather(-1, repeated.unsqueeze(-1)).squeeze(-1) * real
        scores = chosen.sum(dim=1).view(n, n_options)
        return scores.log_softmax(dim=-1) if closed else scores

    return score


def _refuse_training(*models: torch.nn.Module) -> None:
    if training := [type(model).__name__ for model in models if model.training]:
        raise ValueError(f"{training[0]} is in training mode, where dropout makes every gradient another one: "
                         "call eval() first.")


class Explanation(NamedTuple):
    """Integrated gradients of some windows in nats, the unit of the log-probability that they share out."""

    samples: np.ndarray  # (batch, channels, samples)
    bands: np.ndarray  # (batch, channels, n_bands + 1), the last what lies in no band
    gap: np.ndarray  # (batch,) completeness: the sum of the attributions minus the difference of the scores


def explain(score: Scorer, signal: Tensor, target: Sequence[int], baseline: Tensor | None = None, steps: int = 32,
            bands: Bands = BANDS, sfreq: float = SFREQ, tolerance: float = 0.05, batch: int = 16,
            halvings: int = 0) -> Explanation:
    """Integrated gradients by sample and by band, from one pass along the path.

    The gradient, averaged on the straight line from baseline to signal by Gauss-Legendre quadrature, times their
    difference. That is linear in the difference, so its parts in the bands need no path of their own, and add up to the
    whole. The path is cut into pieces. What each piece must give is known, for the scores at its ends are: so only
    pieces that miss it get more points.

    Parameters
    ----------
    score, target
        Log-probabilities from signals, no window depending on another of its batch; and which of them is explained, one
        for each window.
    signal, baseline : Tensor, shape (batch, channels, samples)
        Millivolts for the scorers made here. By default the baseline is zero, where no rhythm has power.
    steps : int
        Points on the path; a few more, if they cannot be shared out equally among pieces.
    bands : mapping
        Name to lower and upper edge, Hz.
    sfreq : float
        Samples a second.
    tolerance : float
        Largest gap, as a share of the difference of the scores (of 1 nat where that is smaller), that passes without an
        :class:`IncompleteAttribution` warning.
    batch : int
        Windows at a time.
    halvings : int
        How often, in windows with a larger gap, pieces of the path with a large gap are halved and computed anew.

    Raises
    ------
    ValueError
        For shapes, targets, steps or bands that do not fit.

    References
    ----------
    Sundararajan, Taly & Yan 2017, ICML.
    """
    baseline, chosen = torch.zeros_like(signal) if baseline is None else baseline, torch.as_tensor(np.asarray(target))
    if signal.ndim != 3 or not len(signal) or baseline.shape != signal.shape or chosen.shape != signal.shape[:1]:
        raise ValueError(f"Signal {tuple(signal.shape)}, baseline {tuple(baseline.shape)} and target "
                         f"{tuple(chosen.shape)} do not fit: give "
                         "(batch, channels, samples) twice, and one label a window.")
    if steps < 1 or not (torch.isfinite(signal).all() and torch.isfinite(baseline).all()):
        raise ValueError(f"steps must be 1 or more, got {steps}, and signal and baseline finite: leave "
                         "broken windows out.")
    difference = signal - baseline
    samples, in_bands = (np.empty(shape, dtype=difference.numpy().dtype)
                         for shape in (signal.shape, (*signal.shape[:2], len(bands) + 1)))
    moved = _values_of(score, signal, chosen, batch) - _values_of(score, baseline, chosen, batch)
    allowed, most = tolerance * np.maximum(np.abs(moved), 1.0), 0
    for some in (slice(i, i + batch) for i in range(0, len(signal), batch)):
        path = _Path(score, baseline[some], difference[some], chosen[some], allowed[some], batch)
        gradient, points = path.mean_gradient(steps, halvings)
        samples[some], most = (difference[some] * gradient).numpy(), max(most, points)
        in_bands[some] = torch.einsum("bcks,bcs->bck", decompose(difference[some], bands, sfreq), gradient).numpy()
    gap = samples.sum(axis=(1, 2), dtype=np.float64) - moved
    if not (np.abs(gap) <= allowed).all():  # NaN included
        share = (np.abs(gap) / np.maximum(np.abs(moved), 1.0)).max()
        warnings.warn(f"Attributions miss the difference of the scores by up to {share:.1%} after {most} steps "
                      f"(tolerance {tolerance:.1%}): raise steps.", IncompleteAttribution, stacklevel=2)
    return Explanation(samples, in_bands, gap)


_IN_PIECE = 4  # points: with fewer a smooth piece needs halving, with more a rough one costs much before it is halved


@dataclass(frozen=True)
class _Path:
    """Straight paths of some windows, along which the gradient of their targets' scores is averaged."""

    score: Scorer
    baseline: Tensor
    difference: Tensor
    target: Tensor
    allowed: np.ndarray  # (n_windows,) largest gap
    batch: int

    def mean_gradient(self, steps: int, halvings: int) -> tuple[Tensor, int]:
        """Mean over the path, and the largest number of points that a window needed (without those computed anew)."""
        n, pieces = len(self.target), max(1, steps // _IN_PIECE)
        points = -(-steps // pieces)
        window, edges = np.repeat(np.arange(n), pieces), np.tile(np.linspace(0, 1, pieces + 1), (n, 1))
        values = self._values(np.repeat(np.arange(n), pieces + 1), edges.ravel()).reshape(edges.shape)
        (low, high), (below, above) = ((of[:, :-1].ravel(), of[:, 1:].ravel()) for of in (edges, values))
        mean, gap, taken = torch.zeros_like(self.difference), np.zeros(n), np.zeros(n, dtype=int)
        for left in reversed(range(halvings + 1)):
            found = self._integrals(window, low, high, points)
            given = (found * self.difference[window]).sum(dim=(1, 2), dtype=torch.float64).numpy()
            missed = given - (above - below)
            is_complete = np.abs(gap + np.bincount(window, missed, n)) <= self.allowed
            small = np.abs(missed) <= self.allowed[window] * (high - low)
            kept = np.full(len(window), True) if not left else is_complete[window] | small
            mean.index_add_(0, torch.from_numpy(window[kept]), found[torch.from_numpy(kept)])
            gap += np.bincount(window[kept], missed[kept], n)
            taken += np.bincount(window[kept], minlength=n)
            if kept.all():
                break
            window, low, high, below, above = (of[~kept] for of in (window, low, high, below, above))
            middle = (low + high) / 2
            between = self._values(window, middle)
            window = np.concatenate([window, window])
            (low, high), (below, above) = ((np.concatenate([of, half]), np.concatenate([half, to]))
                                           for of, half, to in ((low, middle, high), (below, between, above)))
        return mean, points * int(taken.max())

    def _points(self, window: np.ndarray, place: np.ndarray) -> Tensor:
        place = torch.from_numpy(place).to(self.difference.dtype)[:, None, None]
        return self.baseline[window] + place * self.difference[window]

    def _values(self, window: np.ndarray, place: np.ndarray) -> np.ndarray:
        """Scores at places on the paths of windows."""
        chunks = (slice(i, i + self.batch) for i in range(0, len(window), self.batch))
        return np.concatenate([_values_of(self.score, self._points(window[some], place[some]),
                                          self.target[window[some]], self.batch) for some in chunks])

    def _integrals(self, window: np.ndarray, low: np.ndarray, high: np.ndarray, points: int) -> Tensor:
        """Integral of the gradient over each piece."""
        integrals = []
        for some in (slice(i, i + self.batch) for i in range(0, len(window), self.batch)):
            own, begin, length = window[some], low[some], high[some] - low[some]
            integral = torch.zeros_like(self.difference[own])
            for node, weight in zip(*np.polynomial.legendre.leggauss(points), strict=True):
                point = self._points(own, begin + 0.5 * (1.0 + node) * length).detach().requires_grad_(True)
                gradient = torch.autograd.grad(_of_target(self.score, point, self.target[own]).sum(), point)[0]
                integral += torch.from_numpy(0.5 * weight * length).to(gradient)[:, None, None] * gradient
            integrals.append(integral)
        return torch.cat(integrals)


def _of_target(score: Scorer, signal: Tensor, target: Tensor) -> Tensor:
    """Score of each window's target, shape (batch,), on the CPU."""
    scores = score(signal).cpu()
    if target.is_floating_point() or int(target.min()) < 0 or int(target.max()) >= scores.shape[1]:
        raise ValueError(f"Targets must be whole numbers from 0 to {scores.shape[1] - 1}, the labels of this score.")
    return scores.gather(1, target.long()[:, None])[:, 0]


@torch.no_grad()
def _values_of(score: Scorer, signal: Tensor, target: Tensor, batch: int) -> np.ndarray:
    parts = [_of_target(score, signal[i : i + batch], target[i : i + batch]) for i in range(0, len(signal), batch)]
    return torch.cat(parts).double().numpy()


def to_patches(attribution: np.ndarray, patch: int = PATCH) -> np.ndarray:
    """Sums over the samples of each time patch.

    Parameters
    ----------
    attribution : ndarray, shape (batch, channels, samples)
        Of samples.
    patch : int
        Samples in a patch.

    Returns
    -------
    ndarray, shape (batch, channels, samples / patch)
    """
    if attribution.shape[-1] % patch:
        raise ValueError(f"{attribution.shape[-1]} samples are not a whole number of patches of {patch}: choose "
                         "a patch that divides them.")
    return attribution.reshape(*attribution.shape[:-1], -1, patch).sum(axis=-1)


def decompose(signal: Tensor, bands: Bands, sfreq: float) -> Tensor:
    """Parts of a signal in each band and in none, by Fourier transform; they add up to it.

    Parameters
    ----------
    signal : Tensor, shape (..., samples)
        Any unit.
    bands : mapping
        Name to lower and upper edge, Hz; they must not overlap.
    sfreq : float
        Samples a second.

    Returns
    -------
    Tensor, shape (..., n_bands + 1, samples)
    """
    edges = [edge for band in sorted(bands.values()) for edge in band]
    if not edges or edges != sorted(edges) or edges[0] < 0 or edges[-1] > sfreq / 2:
        raise ValueError(f"The bands {dict(bands)} overlap or leave 0 to {sfreq / 2:g} Hz: give bands that do not "
                         "overlap inside it.")
    spectrum, frequencies = torch.fft.rfft(signal), torch.fft.rfftfreq(signal.shape[-1], 1.0 / sfreq)
    parts = [torch.fft.irfft(spectrum * ((frequencies >= low) & (frequencies < high)), n=signal.shape[-1])
             for low, high in bands.values()]
    return torch.stack([*parts, signal - sum(parts)], dim=-2)


def deletion_insertion(score: Scorer, signal: Tensor, target: Sequence[int], attribution: np.ndarray,
                       shares: Sequence[float], rng: np.random.Generator, filler: Tensor | None = None, taper: int = 8,
                       batch: int = 64) -> pd.DataFrame:
    """Take cells away, or put them in, the most attributed first and in random order.

    Parameters
    ----------
    score, signal, target
        As in :func:`explain`.
    attribution : ndarray, shape (batch, channels, n_patches)
        Of cells, from :func:`to_patches`; the largest come first, negative ones last, equal ones in random order.
    shares : sequence of float
        Of the cells taken away or put in: two or more, rising, from 0 to 1.
    rng : Generator
        Draws the random order of every window.
    filler : Tensor, optional
        Replaces missing cells; shape of ``signal``, zeros by default.
    taper : int
        In how many samples, an even number, a missing cell fades at a kept one: inside it, so that kept cells stay
        whole.
    batch : int
        Windows at a time.

    Returns
    -------
    DataFrame
        A row for each window, kind ("deletion", "insertion") and share; "attributed" and "random" are the target's
        log-probability.

    Raises
    ------
    ValueError
        For what does not fit.

    References
    ----------
    Petsiuk, Das & Saenko 2018, BMVC.
    """
    (n, channels, samples), patches = signal.shape, attribution.shape[-1]
    wide, chosen = np.asarray(shares, dtype=float), torch.as_tensor(np.asarray(target))
    fits = attribution.ndim == 3 and attribution.shape[:2] == (n, channels)
    if not fits or samples % patches or patches == samples:
        raise ValueError(f"Attribution {attribution.shape} is not of cells of signal {tuple(signal.shape)}: sum it "
                         "over patches with to_patches.")
    if len(wide) < 2 or (np.diff(wide) <= 0).any() or wide[0] < 0 or wide[-1] > 1:
        raise ValueError(f"shares must be two or more rising numbers from 0 to 1, got {list(shares)}.")
    if taper < 0 or taper % 2 or 2 * taper > samples // patches:
        raise ValueError(f"taper must be even and at most half a cell of {samples // patches} samples, got {taper}.")
    filler, cells = torch.zeros_like(signal) if filler is None else filler, attribution.reshape(n, -1)
    random = rng.permuted(np.tile(np.arange(cells.shape[1]), (n, 1)), axis=1)
    # Equal attributions fall in random order, else the first channels would go first.
    rank, tables = {"attributed": np.lexsort((random, -cells), axis=-1).argsort(axis=1), "random": random}, []
    for kind, share in [(kind, share) for kind in ("deletion", "insertion") for share in wide]:
        values = {}
        for name, place in rank.items():
            first = (place < round(share * cells.shape[1])).reshape(attribution.shape)
            keep = _weights(first if kind == "insertion" else ~first, samples, taper)
            values[name] = _values_of(score, filler + keep * (signal - filler), chosen, batch)
        tables.append(pd.DataFrame({"window": range(n), "kind": kind, "share": share, **values}))
    return pd.concat(tables, ignore_index=True)


def _weights(keep: np.ndarray, samples: int, taper: int) -> Tensor:
    """Weight of each sample: 1 in kept cells, 0 in missing ones but for ramps towards kept ones."""
    box = torch.from_numpy(keep).float().repeat_interleave(samples // keep.shape[-1], dim=-1)
    widened = F.pad(F.max_pool1d(box, taper + 1, 1, padding=taper // 2), (taper // 2, taper // 2), mode="replicate")
    return F.avg_pool1d(widened, taper + 1, stride=1)


def areas(curves: pd.DataFrame, subjects: np.ndarray) -> pd.DataFrame:
    """Area under the curves of :func:`deletion_insertion` (nats, mean over their range of shares), a row a kind.

    "score" is attributed minus random, with its interval over people: below 0 for deletion and above it for insertion
    where attributions are right about the model.

    Parameters
    ----------
    curves : DataFrame
        From :func:`deletion_insertion`.
    subjects : ndarray, shape (n_windows,)
        Subject of every window.
    """
    rows = []
    for kind, table in curves.groupby("kind"):
        wide = {order: table.pivot(index="window", columns="share", values=order) for order in ("attributed", "random")}
        area = {order: np.trapezoid(curve, curve.columns, axis=1) / np.ptp(curve.columns)
                for order, curve in wide.items()}
        mean = {order: np.array([values[own].mean() for own in _people(subjects, len(values))])
                for order, values in area.items()}
        difference = mean_over_subjects(mean["attributed"] - mean["random"], 0.0, len(subjects),
                                        one_subject=(np.nan, np.nan))
        rows.append(difference.row(kind, **{order: values.mean() for order, values in mean.items()}))
    return pd.DataFrame(rows)


def _people(subjects: np.ndarray, n: int) -> list[np.ndarray]:
    """Rows of each person."""
    subjects = np.asarray(subjects)
    if subjects.shape != (n,):
        raise ValueError(f"An interval over people needs the subject of each of the {n} windows: got subjects of shape "
                         f"{subjects.shape}.")
    return [subjects == name for name in np.unique(subjects)]


def generator_cells(ch_names: Sequence[str]) -> dict[str, np.ndarray]:
    """Which (channel, band) each emotion changes in the twin: channels above the changed sources.

    Returns
    -------
    dict
        Emotion to ndarray of bool, shape (n_channels, n_bands).
    """
    cells, bands = {effect.emotion: np.zeros((len(ch_names), len(BANDS)), dtype=bool)
                    for effect in EFFECTS}, list(BANDS)
    for group, rows in scalp_groups(list(ch_names)).items():
        source = group.replace(" ", "_")  # "frontal_middle" begins with "frontal_mid"
        for effect in (effect for effect in EFFECTS if source.startswith(effect.region)):
            cells[effect.emotion][rows, bands.index(effect.band)] = True
    return cells


def _in_bands(band_attribution: np.ndarray, ch_names: Sequence[str], about: Sequence) -> np.ndarray:
    shape, n_bands = band_attribution.shape, len(BANDS)
    if len(shape) != 3 or shape[:2] != (len(about), len(ch_names)) or shape[2] not in (n_bands, n_bands + 1):
        raise ValueError(f"Attribution {shape} is not ({len(about)} windows, {len(ch_names)} channels, {n_bands} "
                         "bands, with or without the rest): "
                         "take the bands of explain with its default bands, of all windows.")
    return band_attribution[:, :, :n_bands]


def region_agreement(band_attribution: np.ndarray, labels: Sequence[str], subjects: np.ndarray, ch_names: Sequence[str],
                     signed: bool = True) -> pd.DataFrame:
    """Whether attributions find the cells that the twin's generator changes: area under the ROC curve, chance 0.5.

    Parameters
    ----------
    band_attribution : ndarray, shape (n, channels, n_bands or n_bands + 1)
        For each window's own emotion; the rest of the spectrum last.
    labels : sequence of str, length n
        Emotion of each window.
    subjects : ndarray, shape (n,)
        Subject of each window.
    ch_names : sequence of str
        Channels.
    signed : bool
        A person's map of an emotion is the mean over the person's windows of the values, else of their size. Sizes
        follow the power in the signal, whatever the model: with shuffled weights they agreed with the twin at 0.59 to
        0.65, values at 0.51 to 0.52.

    Returns
    -------
    DataFrame
        A row an emotion, and one for "all", with intervals over people. "other emotions" is the area of the same map
        for the cells of the other emotions, "difference" the agreement beyond it, chance 0.

    References
    ----------
    Adebayo et al. 2018, NeurIPS.
    """
    values, labels, cells = _in_bands(band_attribution, ch_names, labels), np.asarray(labels), generator_cells(ch_names)
    if strange := sorted(set(labels.tolist()) - set(cells)):
        raise ValueError(f"The generator knows nothing of {strange}: only windows of the twin can be compared with it.")
    if bare := [name for name, cell in cells.items() if not cell.any()]:
        raise ValueError(f"No channel lies above what {bare} change: give more channels of the cap.")
    maps, found = values if signed else np.abs(values), []
    for person, own in enumerate(_people(subjects, len(values))):
        for emotion in np.unique(labels[own]):
            chosen = own & (labels == emotion)
            area = {name: roc_auc_score(cell.ravel(), maps[chosen].mean(axis=0).ravel())
                    for name, cell in cells.items()}
            found.append((person, emotion, chosen.sum(), area.pop(emotion), np.mean(list(area.values()))))
    table, rows = pd.DataFrame(found, columns=["person", "emotion", "n", "own", "other emotions"]), []
    for name in [*(emotion for emotion in cells if emotion in labels), "all"]:
        some = table if name == "all" else table[table["emotion"] == name]
        people = some.groupby("person")[["own", "other emotions"]].mean()
        own, others = people.to_numpy().T
        beyond = mean_over_subjects(own - others, 0.0, len(own), one_subject=(-1.0, 1.0))
        # One person gives no information about others
        low, high = (beyond.low, beyond.high) if len(own) > 1 else (-1.0, 1.0)
        rows.append(mean_over_subjects(own, 0.5, int(some["n"].sum())).row(name) | {
            "other emotions": others.mean(), "difference": beyond.value, "difference low": low, "difference high": high,
            "subjects": len(own)})
    return pd.DataFrame(rows)


def topography(band_attribution: np.ndarray, labels: Sequence[str], order: Sequence[str] | None = None) -> np.ndarray:
    """Mean of each label, for :func:`e2llm.viz.plots.emotion_topographies`.

    Parameters
    ----------
    band_attribution : ndarray, shape (n, channels, n_bands + 1)
        From :func:`explain`.
    labels : sequence of str, length n
        Label of each window.
    order : sequence of str, optional
        Labels of the result; default sorted.

    Returns
    -------
    ndarray, shape (n_labels, n_bands, channels)
    """
    labels, order = np.asarray(labels), sorted(set(labels)) if order is None else list(order)
    if lacking := [name for name in order if name not in labels]:
        raise ValueError(f"No window is labelled {lacking}: leave these labels out of order.")
    return np.stack([band_attribution[labels == name, :, : len(BANDS)].mean(axis=0).T for name in order])


class AttributionTables(NamedTuple):
    """Attributions of some test windows to their own label."""

    agreement: pd.DataFrame  # with the generator's cells, by model and emotion; empty if the source is no twin
    areas: pd.DataFrame  # deletion and insertion against random order, by model
    curves: pd.DataFrame
    maps: np.ndarray  # (n_labels, n_bands, n_channels) of the language model, nats
    labels: list[str]


SHARES = (0, 0.05, 0.1, 0.2, 0.4, 0.7, 1)  # of the cells taken away or put in


def attribution_tables(corpus: Corpus, scores: Mapping[str, Scorer], is_twin: bool, windows_a_label: int,
                       seed: int) -> AttributionTables:
    """Integrated gradients of models on test windows, checked by deletion and by the twin's own table.

    Parameters
    ----------
    corpus : Corpus
        Windows and split.
    scores : mapping
        Model to its scorer over the labels, in the label set's order; maps are those of the last one.
    is_twin : bool
        Whether the generator's table is known.
    windows_a_label : int
        Test windows of each label.
    seed : int
        Of the windows and the random order of cells.
    """
    rng, test = np.random.default_rng(seed), corpus.split.test
    rows = np.sort(np.concatenate([rng.permutation(test[corpus.labels[test] == label])[:windows_a_label]
                                   for label in np.unique(corpus.labels[test])]))
    signal = corpus.equalize(corpus.windows.data[rows], corpus.norm_groups[rows])
    target, subjects = corpus.labels[rows], corpus.subjects[rows]
    labels = [corpus.label_set.labels[i] for i in target]
    shown = [label for label in corpus.label_set.labels if label in labels]
    agreed, area, curves, maps = [], [], [], None
    for name, score in scores.items():
        found = explain(score, signal, target, steps=24, halvings=5)
        curve = deletion_insertion(score, signal, target, to_patches(found.samples), SHARES, rng)
        curves.append(curve.assign(model=name))
        area.append(areas(curve, subjects).assign(group=name))
        if is_twin:
            agreed.append(region_agreement(found.bands, labels, subjects, corpus.windows.ch_names).assign(group=name))
        maps = topography(found.bands, labels, shown)
    return AttributionTables(pd.concat(agreed, ignore_index=True) if agreed else pd.DataFrame(),
                             pd.concat(area, ignore_index=True), pd.concat(curves, ignore_index=True), maps, shown)
