"""Augmented windows have measured evidence and no label; a probe fitted on them separates correlated features."""

from __future__ import annotations

import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from corpora import CHANNELS, make_corpus
from torch import nn

from e2llm.core import space
from e2llm.core.claims import CITED, MAX_ABS_Z
from e2llm.core.montage import region_indices
from e2llm.data.band_edits import band_edited, draw_clear_edits, measure_edited
from e2llm.data.features import evidence, measure
from e2llm.data.normalization import Equalizer, FeatureStatistics
from e2llm.models.evidence_probe import EvidenceProbe
from e2llm.training import augmentation
from e2llm.training.augmentation import (
    TARGETS_Z,
    AugmentedWindows,
    KeptEdits,
    edited_inputs,
    encode_edited,
    fit_evidence_probe,
)
from e2llm.training.losses import NO_SOURCE, UNLABELLED

TRAIN = np.arange(10, 30)


@pytest.fixture(scope="module")
def corpus():
    made = make_corpus(n_people=3)
    made.windows.data.flags.writeable = False
    made.spectral = np.column_stack([made.z, np.zeros((len(made.z), 7))]).astype(np.float32)
    made.split = SimpleNamespace(**vars(made.split), train=TRAIN)
    made.equalize = lambda signal, subjects: torch.from_numpy(np.array(signal)) * 1e-3
    windows = made.windows
    made.windows = type("W", (), {**vars(windows), "__len__": lambda self: len(windows.data)})()
    return made


@pytest.fixture(scope="module")
def augmented(corpus):
    return AugmentedWindows.draw(corpus, TRAIN, seed=3)


def test_augmented_windows_are_of_the_given_windows_and_have_the_wanted_change(corpus, augmented):
    assert {edit.row for edit in augmented.edits} <= set(TRAIN.tolist())
    assert 0.8 * len(TARGETS_Z) * len(TRAIN) < len(augmented) <= len(TARGETS_Z) * len(TRAIN)
    column = {name: i for i, name in enumerate(corpus.evidence_names.columns)}
    reached = np.array([z[column[edit.feature]] * (1 if edit.wanted == "high" else -1) for edit,
                        z in zip(augmented.edits, augmented.z, strict=True)])
    assert reached.min() >= CITED and np.ptp(reached) > 2  # of several strengths


def test_augmented_windows_depend_on_the_seed_only(corpus, augmented):
    again, other = AugmentedWindows.draw(corpus, TRAIN, seed=3), AugmentedWindows.draw(corpus, TRAIN, seed=4)
    assert again.edits == augmented.edits and np.array_equal(again.z, augmented.z)
    assert other.edits != augmented.edits


def test_drawing_reports_every_edit_and_changes_nothing_by_it(corpus, augmented):
    steps = []
    again = AugmentedWindows.draw(corpus, TRAIN, seed=3, on_step=steps.append)
    assert again.edits == augmented.edits
    assert steps == sorted(set(steps)) and steps[-1] == len(TARGETS_Z) * len(TRAIN) and len(steps) > len(TARGETS_Z)


def test_an_edit_of_the_equalized_signal_is_the_equalized_edited_signal(corpus, augmented):
    """Against the plain way: every edit is made in microvolts, and the whole window is equalized after it."""
    groups = sorted(set(corpus.norm_groups))
    gain = np.exp(np.random.default_rng(0).normal(0, 0.5, (len(groups), len(CHANNELS), 5))).astype(np.float32)
    equalized = SimpleNamespace(**{**vars(corpus), "equalize": Equalizer(gain, groups, 256.0)})
    edits = augmented.edits[:12]
    rows = [edit.row for edit in edits]
    plain = equalized.equalize(band_edited(equalized, edits), equalized.norm_groups[rows])
    own = edited_inputs(equalized, edits)
    assert plain.abs().max() > 0.02, "millivolts"
    torch.testing.assert_close(own, plain, atol=1e-7, rtol=1e-4)
    known = {rows[0]: equalized.equalize(corpus.windows.data[rows[:1]], equalized.norm_groups[rows[:1]])[0]}
    assert torch.equal(edited_inputs(equalized, edits, known), own)


def test_tokens_of_edited_windows_stand_in_the_order_of_the_edits(corpus, augmented):
    edits = augmented.edits[::-7]
    tokens = encode_edited(_Power(), corpus, edits)
    plain = _Power()(corpus.equalize(band_edited(corpus, edits), None)).flatten(2).numpy()
    np.testing.assert_allclose(tokens, plain, atol=1e-4)


def test_a_batch_of_augmented_windows_has_what_was_measured_of_the_edited_signal(corpus, augmented):
    batch = augmented.batch([5, 0])
    signal = band_edited(corpus, [augmented.edits[5], augmented.edits[0]])
    torch.testing.assert_close(batch["signal_mv"], torch.from_numpy(signal) * 1e-3, atol=1e-8, rtol=1e-5)
    assert batch["labels"].tolist() == [UNLABELLED] * 2
    n = len(corpus.evidence_names.columns)
    targets = batch["spectral"].numpy()
    assert np.isnan(targets[:, n:]).all(), "groups of electrodes were not measured"
    assert np.allclose(targets[:, :n], np.clip(augmented.z[[5, 0]], -MAX_ABS_Z, MAX_ABS_Z), atol=1e-6)
    assert np.allclose(measure_edited(corpus, [augmented.edits[5]])[0], augmented.z[5], atol=1e-9)


def test_windows_keep_their_batches_and_their_augmented_windows_follow(corpus, augmented):
    order = np.arange(24) % 20 + 10
    mixed = augmented.append_augmented(order, batch_size=6, n=4, seed=0).reshape(4, 10)
    assert np.array_equal(mixed[:, :6].ravel(), order)
    drawn = mixed[:, 6:] - len(corpus.windows)
    for windows, places in zip(mixed[:, :6], drawn, strict=True):
        rows = [augmented.edits[place].row for place in places]
        assert set(rows) <= set(windows.tolist()) and len(set(rows)) == 4, "four windows, none twice"
    assert np.array_equal(augmented.append_augmented(order, 6, 0, 0), order)
    assert np.array_equal(augmented.append_augmented(order, 6, 4, 0),
                          mixed.ravel()) and not np.array_equal(augmented.append_augmented(order, 6, 4, 1),
                                                                mixed.ravel())


def test_augmented_windows_of_a_window_take_turns(corpus, augmented):
    own = [place for place, edit in enumerate(augmented.edits) if edit.row == 12]
    drawn = augmented.append_augmented(np.full(2 * len(own), 12), 1, 1, 0).reshape(-1, 2)[:, 1] - len(corpus.windows)
    assert sorted(drawn) == sorted(2 * own), "each twice in two rounds"


def test_a_batch_without_augmented_windows_is_refused(augmented):
    with pytest.raises(ValueError, match="No window of a batch of 2 has a clear edit"):
        augmented.append_augmented(np.array([10, 11, 0, 1]), 2, 3, 0)  # 0 and 1 are no training windows


def test_a_mixed_batch_is_windows_then_augmented_windows_with_their_source_index(corpus, augmented):
    def windows(rows, own):
        return {"signal_mv": corpus.equalize(corpus.windows.data[own], None), "labels": torch.tensor(rows),
                "spectral": torch.zeros(len(rows), corpus.spectral.shape[1])}

    collate, n, of = augmented.collate(windows), len(corpus.windows), augmented.edits[4].row
    batch = collate([of + 1, n + 4, of])
    assert batch["labels"].tolist() == [of + 1, of, UNLABELLED]
    assert torch.equal(batch["signal_mv"][2:], augmented.batch([4])["signal_mv"])
    assert batch["source_index"].tolist() == [NO_SOURCE, NO_SOURCE, 1]
    assert collate([of + 1, n + 4])["source_index"].tolist() == [NO_SOURCE, NO_SOURCE], "its window is not there"
    assert set(collate([12])) == {"signal_mv", "labels", "spectral"}


def test_edits_that_are_kept_are_equal_bit_for_bit_and_take_no_more_memory_than_given(corpus, augmented):
    edits = list(augmented.edits[:6])
    rows = sorted({edit.row for edit in edits})
    equalized = dict(zip(rows, corpus.equalize(corpus.windows.data[rows], corpus.norm_groups[rows]), strict=True))
    wanted = edited_inputs(corpus, edits, equalized)
    largest = max(len(region_indices(CHANNELS)[edit.region]) for edit in edits) * wanted[0, 0].nbytes
    for room in (0, largest, 2**30):
        kept = KeptEdits(corpus, room)
        for asked in ([0, 3, 0], [5, 0, 3], [1, 2, 4]):  # an edit twice, known and new ones, new ones only
            found = kept.inputs([edits[i] for i in asked], equalized)
            assert torch.equal(found, wanted[asked])
            found.zero_()  # what a batch holds is its own
        assert sum(signal.nbytes for signal in kept.kept.values()) <= room
        assert len(kept.kept) == {0: 0, 2**30: 6}.get(room, len(kept.kept))
    assert torch.equal(kept.inputs(edits[:1], {}), edited_inputs(corpus, edits[:1])), "its window is not there"


class _Power(nn.Module):
    """An encoder whose tokens are the log band powers of all electrodes: nothing is lost in it."""

    def forward(self, signal_mv):
        power, _ = measure(signal_mv.numpy() * 1e3, 256.0, CHANNELS)
        return torch.from_numpy(np.log(power)).flatten(1)[:, None, None, :].float()


def test_a_probe_fitted_on_augmented_windows_separates_features_that_move_together():
    """All regions share their band's level, so an ear of windows alone hears an edit of one region everywhere."""
    corpus = make_corpus(n_people=3, each=40, spread_db=0.01)
    rng, data = np.random.default_rng(0), corpus.windows.data
    data *= 10 ** (rng.normal(0, 3, size=(len(data), 1, 1)) / 20)  # one gain for all
    power, shape = measure(data, 256.0, CHANNELS)
    corpus.windows.power, corpus.windows.shape = power, shape
    values, names = evidence(power, shape, CHANNELS)
    corpus.statistics = FeatureStatistics.fit(values, corpus.subjects, corpus.split)
    corpus.z, corpus.evidence_names = corpus.statistics.z(values, corpus.subjects), names
    corpus.split = SimpleNamespace(**vars(corpus.split), train=np.arange(80))
    corpus.equalize = lambda signal, subjects: torch.from_numpy(np.array(signal)) * 1e-3
    rows, encoder = np.arange(len(data)), _Power()
    tokens = encoder(corpus.equalize(data, None)).flatten(2).numpy()
    plain = EvidenceProbe.fit(tokens[:80], corpus.z[:80], names.columns)
    taught = fit_evidence_probe(encoder, AugmentedWindows.draw(corpus, np.arange(80), 0), tokens, rows)
    held_out = draw_clear_edits(corpus, np.arange(80, 120), np.random.default_rng(1), 5.0)
    predicted_evidence = encoder(corpus.equalize(band_edited(corpus, held_out.clear), None)).flatten(2).numpy()
    error = {name: np.abs(evidence_probe(predicted_evidence) - held_out.z_after)[:, :25].mean() for name,
             evidence_probe in (("plain", plain), ("taught", taught))}
    assert error["taught"] < 0.65 * error["plain"], error


class _Wide(nn.Module):
    """An encoder of large tokens: band powers of all electrodes in many time patches."""

    PATCHES = 256

    def forward(self, signal_mv):
        tokens = _Power()(signal_mv)
        return tokens.expand(-1, self.PATCHES, -1, -1) * torch.linspace(0.9, 1.1, self.PATCHES)[:, None, None]


def test_tokens_of_windows_and_of_their_edits_are_never_held_at_once(corpus, augmented, tmp_path, monkeypatch):
    """The probe is that of all tokens at once; memory stays below the tokens of the windows without the edited ones."""
    rows, encoder = np.arange(40), _Wide()
    tokens = encoder(corpus.equalize(corpus.windows.data[rows], None)).flatten(2).numpy()
    place = {row: 1 + 2 * i for i, row in enumerate(TRAIN)}  # windows and others by turns, in a file
    held = np.zeros((2 * len(rows), *tokens.shape[1:]), dtype=np.float32)
    used = np.arange(1000, 1000 + len(held))
    for row, i in place.items():
        held[i], used[i] = tokens[row], row
    np.save(tmp_path / "tokens.npy", held)
    all_tokens = np.concatenate([tokens[TRAIN], encode_edited(encoder, corpus, augmented.edits)])
    source_index = np.array([-1] * len(TRAIN) + [int(np.flatnonzero(edit.row == TRAIN)[0]) for edit in augmented.edits])
    names = corpus.evidence_names.columns
    expected = EvidenceProbe.fit(all_tokens, np.concatenate([corpus.z[TRAIN], augmented.z]), names, source_index)

    monkeypatch.setattr(augmentation, "BLOCK", 4)
    monkeypatch.setattr("e2llm.models.evidence_probe.BLOCK", 4)
    monkeypatch.setattr(space, "IN_MEMORY", 1000)
    tracemalloc.start()
    try:
        mapped = np.load(tmp_path / "tokens.npy", mmap_mode="r")
        found = fit_evidence_probe(encoder, augmented, mapped, used, tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    scale = float(expected.weight.abs().max())
    torch.testing.assert_close(found.weight, expected.weight, atol=1e-5 * scale, rtol=0)
    np.testing.assert_allclose(found(tokens), expected(tokens), atol=1e-4)
    assert peak < all_tokens.nbytes / 2, (peak, all_tokens.nbytes)
    assert [path.name for path in tmp_path.iterdir()] == ["tokens.npy"], "no file is left"


def test_the_probe_takes_an_edit_of_every_window_and_targets_by_turns():
    rows = [*range(8), *range(8), *range(7)]  # three targets; the last one has no clear edit of the last window
    for most, each in ((8, [1] * 8), (23, [3] * 7 + [2]), (99, [3] * 7 + [2]), (18, [3, 3, 2, 2, 2, 2, 2, 2])):
        chosen = augmentation._spread(rows, most)
        assert len(set(chosen.tolist())) == len(chosen) == min(most, len(rows))
        taken = np.asarray(rows)[chosen]
        assert np.bincount(taken).tolist() == each and (np.diff(taken) >= 0).all(), "edits of a window stand together"
    targets = augmentation._spread(rows, 8) // 8
    assert np.bincount(targets).tolist() == [3, 3, 2], "no target is left out"
