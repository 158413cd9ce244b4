"""Baselines find what is there, nothing where nothing is, and look at no test label."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

from e2llm.data.features import band_power
from e2llm.data.normalization import ALIGNMENTS
from e2llm.data.protocols import Split
from e2llm.evaluation import baselines
from e2llm.evaluation.baselines import (
    EEGNET,
    LOGISTIC,
    MARGINS,
    MODELS,
    PROBE,
    STRENGTHS,
    SVM,
    Recipe,
    distinct,
    fit_baseline,
    support_vector_machines,
)
from e2llm.evaluation.tiers import readable, with_notes
from e2llm.models.eegpt import EEGPT, EEGPT_SIZES
from e2llm.models.eegpt_weights import physiological_init
from e2llm.training.trainer import FitParams

N_CLASSES, N_CHANNELS, N_BANDS = 3, 4, 5


def make_split(n: int, normalization: str = "calibration", seed: int = 0) -> Split:
    order = np.random.default_rng(seed).permutation(n)
    cuts = n // 2, 3 * n // 4
    train, val, test = (np.sort(part) for part in np.split(order, cuts))
    return Split("clips", train, val, test, train, normalization)


def make_corpus(effect: float, n: int = 360, subject_spread: float = 0.0, seed: int = 1) -> SimpleNamespace:
    """Band power in which class ``c`` raises band ``c`` of channel 1 by ``effect``, in units of its spread."""
    rng = np.random.default_rng(seed)
    labels, who = rng.integers(N_CLASSES, size=n), rng.integers(3, size=n)
    log_power = rng.normal(size=(n, N_CHANNELS, N_BANDS)) + subject_spread * rng.normal(size=(3, N_CHANNELS,
                                                                                            N_BANDS))[who]
    log_power[np.arange(n), 1, labels] += effect
    return as_corpus(np.exp(log_power), labels, np.array(["1", "2", "3"], dtype=object)[who])


def as_corpus(power, labels, subjects, data=None, sfreq=256.0) -> SimpleNamespace:
    windows = SimpleNamespace(index=pd.DataFrame({"subject": subjects, "session": 1}), power=power, data=data,
                              sfreq=sfreq)
    return SimpleNamespace(windows=windows, labels=labels, subjects=subjects, label_set=range(N_CLASSES))


def answers(corpus, split, alignment="none", model=LOGISTIC, encoder=None) -> np.ndarray:
    return fit_baseline(Recipe(model, alignment), corpus, split, encoder).rows(split.test)


def scored(corpus, split, alignment="none", model=LOGISTIC, encoder=None) -> float:
    return balanced_accuracy_score(corpus.labels[split.test], answers(corpus, split, alignment, model, encoder))


@pytest.mark.parametrize("model", [LOGISTIC, SVM])
def test_a_planted_effect_is_found(model):
    corpus = make_corpus(effect=3.0)
    assert scored(corpus, make_split(len(corpus.labels)), model=model) > 0.85


@pytest.mark.parametrize("model", [LOGISTIC, SVM])
def test_noise_is_answered_at_chance(model):
    scores = []
    for seed in range(8):
        corpus = make_corpus(effect=0.0, seed=seed)
        scores.append(scored(corpus, make_split(len(corpus.labels), seed=seed), model=model))
    assert abs(np.mean(scores) - 1 / N_CLASSES) < 0.05  # 8 x 90 answers: standard error 0.018


def test_calibration_removes_what_is_the_persons_own():
    corpus = make_corpus(effect=2.0, subject_spread=6.0)
    split = make_split(len(corpus.labels))
    new = corpus.subjects == "3"
    split = Split("clips", split.train[~new[split.train]], split.val[~new[split.val]], split.test[new[split.test]],
                  np.sort(np.concatenate([split.train, split.val])), "calibration")
    assert scored(corpus, split, "z-score") > 0.7
    assert scored(corpus, split) < 0.5


@pytest.mark.parametrize(("model", "alignment"), [(LOGISTIC, "none"), (LOGISTIC, "z-score"), (SVM, "z-score")])
def test_test_labels_are_never_read(model, alignment):
    corpus = make_corpus(effect=0.7)
    split = make_split(len(corpus.labels))
    expected = answers(corpus, split, alignment, model)
    corpus.labels = corpus.labels.copy()
    corpus.labels[split.test] = np.random.default_rng(5).permutation(corpus.labels[split.test])
    assert np.array_equal(answers(corpus, split, alignment, model), expected)


def by_hand(corpus, split, candidates) -> list[tuple[float, np.ndarray]]:
    """Validation score and test answers of every candidate."""
    features = 0.5 * np.log(2 * np.pi * np.e * corpus.windows.power).reshape(len(corpus.labels), -1)
    scale = StandardScaler().fit(features[split.train])
    out = []
    for candidate in candidates:
        model = candidate.fit(scale.transform(features[split.train]), corpus.labels[split.train])
        val, test = (model.predict(scale.transform(features[rows])) for rows in (split.val, split.test))
        out.append((balanced_accuracy_score(corpus.labels[split.val], val), test))
    return out


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("model", [LOGISTIC, SVM])
def test_the_strength_is_the_best_on_validation(seed, model):
    corpus = make_corpus(effect=0.6, n=200, seed=seed)
    split = make_split(len(corpus.labels), seed=seed)
    candidates = {LOGISTIC: [LogisticRegression(C=c, max_iter=2000, class_weight="balanced") for c in STRENGTHS],
                  SVM: [SVC(C=c, class_weight="balanced") for c in MARGINS]}[model]
    table = by_hand(corpus, split, candidates)
    best = max(score for score, _ in table)
    strongest = next(test for score, test in table if score == best)
    assert np.array_equal(answers(corpus, split, model=model), strongest)
    assert any(not np.array_equal(strongest, test) for _, test in table)  # the choice matters


@pytest.fixture
def approximated(monkeypatch) -> None:
    """As if the training part of :func:`make_corpus` were too large for an exact kernel."""
    monkeypatch.setattr(baselines, "EXACT_UP_TO", 100)
    monkeypatch.setattr(baselines, "LANDMARKS", 60)


def test_a_large_kernel_machine_is_approximated_and_its_row_says_so(monkeypatch):
    split = make_split(360)
    monkeypatch.setattr(baselines, "EXACT_UP_TO", len(split.train))
    assert Recipe(SVM).note(split) == "" and {type(made[-1]) for made in support_vector_machines(180)} == {SVC}
    monkeypatch.setattr(baselines, "EXACT_UP_TO", len(split.train) - 1)
    assert Recipe(SVM).note(split) == "kernel by Nyström's method, 500 landmarks" and Recipe(LOGISTIC).note(split) == ""
    assert {type(made[-1]) for made in support_vector_machines(180)} == {LinearSVC}
    table = pd.DataFrame({"name": [Recipe(SVM).name, "LLM"], "score": 0.5, "low": 0.4, "high": 0.6, "chance": 0.1,
                          "n": 9})
    said = with_notes(table, [Recipe(SVM), Recipe(LOGISTIC)], split)
    assert readable(said)["note"].tolist() == [Recipe(SVM).note(split), ""]
    assert with_notes(table, [Recipe(LOGISTIC)], split) is table


def test_as_many_landmarks_as_windows_give_the_kernel_itself():
    features = np.random.default_rng(0).normal(size=(120, 5))
    scale, landmarks, _ = support_vector_machines(baselines.EXACT_UP_TO + 1)[0]
    spanned = landmarks.set_params(n_components=120).fit_transform(scaled := scale.fit_transform(features))
    assert np.allclose(spanned @ spanned.T, rbf_kernel(scaled, gamma=1 / 5), atol=1e-8)  # that of SVC, gamma="scale"


@pytest.mark.parametrize("seed", range(3))
def test_an_approximated_kernel_machine_finds_what_the_exact_one_finds(seed, request):
    corpus = make_corpus(effect=1.5, n=900, seed=seed)
    split = make_split(len(corpus.labels), seed=seed)
    exact = scored(corpus, split, model=SVM)
    request.getfixturevalue("approximated")
    assert exact > 0.6 and abs(scored(corpus, split, model=SVM) - exact) < 0.06


def test_dead_channels_do_no_harm():
    corpus = make_corpus(effect=3.0)
    corpus.windows.power[:, 3] = 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        assert scored(corpus, make_split(len(corpus.labels)), "z-score") > 0.85


def signal_corpus(n: int = 240, seed: int = 0) -> SimpleNamespace:
    """Real windows of 4 s: class ``c`` has an alpha rhythm in channel ``c``; every person's electrodes are mixed and
    scaled by their own."""
    rng = np.random.default_rng(seed)
    labels, who = np.arange(n) % N_CLASSES, np.arange(n) // N_CLASSES % 3
    data = rng.normal(size=(n, N_CHANNELS, 1024)).astype(np.float32)
    rhythm = np.sin(2 * np.pi * 10 * np.arange(1024) / 256 + rng.uniform(0, 6.28, (n, 1)))
    data[np.arange(n), labels] += 0.8 * rhythm
    mixing = np.eye(N_CHANNELS) + 0.5 * rng.normal(size=(3, N_CHANNELS, N_CHANNELS))
    data = (mixing[who] @ data * 10.0).astype(np.float32)
    subjects = np.array(["1", "2", "3"], dtype=object)[who]
    return as_corpus(band_power(data, 256.0), labels, subjects, data)


def unseen_person(corpus) -> Split:
    """Person 3 is tested, on the last half; the first half gives the levels."""
    rows, new = np.arange(len(corpus.labels)), corpus.subjects == "3"
    late = rows >= len(rows) // 2
    others = rows[~new]
    return Split("subjects", others[:100], others[100:], rows[new & late], rows[~(new & late)], "calibration")


def test_euclidean_alignment_undoes_a_persons_mixing_of_channels():
    corpus = signal_corpus()
    split = unseen_person(corpus)
    aligned, plain = scored(corpus, split, "euclidean"), scored(corpus, split, "none")
    assert aligned > plain + 0.1
    assert aligned > 0.6


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_eegnet_reads_raw_windows_under_every_alignment(alignment, monkeypatch):
    monkeypatch.setattr(baselines, "EEGNET_FIT", FitParams(steps=60, batch_size=24, lr=5e-3, save_steps=10**6))
    corpus = signal_corpus()
    split = unseen_person(corpus)
    fitted = baselines.Convolutional.fit(corpus, split, alignment, schedule=baselines.EEGNET_FIT)
    assert balanced_accuracy_score(corpus.labels[split.train], fitted.rows(split.train)) > 0.6


def test_a_frozen_encoder_is_probed_and_not_trained():
    corpus = signal_corpus()
    corpus.windows.data = np.repeat(corpus.windows.data, 2, axis=1)
    corpus.windows.power = np.repeat(corpus.windows.power, 2, axis=1)
    names = ["FZ", "CZ", "PZ", "OZ", "F3", "C3", "P3", "O1"]
    torch.manual_seed(0)
    encoder = EEGPT(EEGPT_SIZES["tiny1"], names)
    physiological_init(encoder)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    split = make_split(len(corpus.labels))
    assert scored(corpus, split, model=PROBE, encoder=encoder) > 1 / N_CLASSES
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())
    with pytest.raises(ValueError, match="needs an encoder"):
        fit_baseline(Recipe(PROBE), corpus, split)


def test_tokens_that_are_known_are_not_made_again_and_must_be_of_the_same_split():
    corpus = signal_corpus()
    torch.manual_seed(0)
    encoder = EEGPT(EEGPT_SIZES["tiny1"], ["FZ", "CZ", "PZ", "OZ"])
    split = make_split(len(corpus.labels))
    made = baselines.FrozenTokens(encoder, corpus.windows, split)
    rows = np.arange(len(corpus.labels))
    known = dict(zip(rows.tolist(), made.rows(rows), strict=True))

    class Never(torch.nn.Linear):
        def forward(self, signal_mv):
            raise AssertionError("encoded again")

    given = baselines.FrozenTokens(Never(1, 1), corpus.windows, split, known)
    assert np.array_equal(given.rows(rows[[5, 2]]), np.stack([known[5], known[2]]))
    own, other = (fit_baseline(Recipe(PROBE), corpus, split, tokens).rows(split.test) for tokens in (given, encoder))
    assert np.array_equal(own, other)
    with pytest.raises(AssertionError, match="encoded again"):
        baselines.FrozenTokens(Never(1, 1), corpus.windows, split, {0: known[0]}).rows(rows[:2])
    with pytest.raises(ValueError, match="another split"):
        fit_baseline(Recipe(PROBE), corpus, unseen_person(corpus), given)


@pytest.mark.parametrize(("model", "alignment"), [(LOGISTIC, "none"), (LOGISTIC, "z-score"), (SVM, "euclidean")])
def test_stored_windows_and_the_same_signals_get_the_same_answers(model, alignment):
    corpus = signal_corpus()
    split = unseen_person(corpus)
    fitted = fit_baseline(Recipe(model, alignment), corpus, split)
    predicted_evidence = fitted(corpus.windows.data[split.test], split.norm_groups(corpus.windows.index)[split.test])
    assert np.array_equal(predicted_evidence, fitted.rows(split.test))


def test_every_recipe_has_a_name_of_its_own_and_unknown_ones_are_refused():
    names = [Recipe(model, alignment).name for model, alignments in MODELS.items() for alignment in alignments]
    assert len(set(names)) == len(names) == 10
    with pytest.raises(ValueError, match="Unknown baseline 'forest'"):
        Recipe("forest")
    with pytest.raises(ValueError, match="takes the alignments none, not 'euclidean'"):
        Recipe(PROBE, "euclidean")
    assert Recipe(EEGNET, "z-score").name == "EEGNet, z-scored"


def test_the_oracle_reads_the_windows_it_is_asked_about(tmp_path, monkeypatch):
    latents = np.arange(6)[:, None] * np.ones((6, 2))
    np.savez(tmp_path / "truth.npz", subject=np.array([1, 1, 1, 2, 2, 2]), clip=np.array([1, 1, 2, 1, 1, 2]),
             window=np.array([0, 1, 0, 0, 1, 0]), latents=latents, person_effects=np.array([[10.0], [20.0]]))
    (tmp_path / "twin.yaml").write_text("effects: {intensity: [0.1, 0.9]}\n")
    asked = {}

    def remember(latents, person, preset):
        asked.update(latents=latents[:, 0].tolist(), person=person[:, 0].tolist(), intensity=preset.intensity)
        return np.eye(7)[latents[:, 0].astype(int)]

    monkeypatch.setattr(baselines, "oracle_probabilities", remember)
    def index(*rows: tuple) -> pd.DataFrame:
        return pd.DataFrame(rows, columns=["subject", "clip", "start_s"])

    given = baselines.oracle(tmp_path, index(("2", 1, 4.0), ("1", 2, 0.0), ("2", 2, 0.0)))
    assert asked == {"latents": [4.0, 2.0, 5.0], "person": [20.0, 10.0, 20.0], "intensity": (0.1, 0.9)}
    assert given.tolist() == [4, 2, 5]
    with pytest.raises(ValueError, match="does not hold the ground truth of these windows"):
        baselines.oracle(tmp_path, index(("2", 9, 0.0)))
    # Shorter windows have the levels of the 4 s that their middle lies in; what is left of a clip, those of the last.
    shorter = index(("1", 1, 2.0), ("1", 1, 4.0), ("1", 1, 8.0), ("2", 1, 3.0))
    assert baselines.oracle(tmp_path, shorter, 2.0).tolist() == [0, 1, 1, 4]


@pytest.mark.parametrize("model", [LOGISTIC, SVM])
def test_z_scores_against_population_levels_are_no_baseline_of_their_own(model):
    recipes = [Recipe(model), Recipe(model, "z-score"), Recipe(EEGNET), Recipe(EEGNET, "z-score")]
    corpus = make_corpus(effect=0.7, subject_spread=2.0)
    for normalization, same in (("population", True), ("calibration", False)):
        split = make_split(len(corpus.labels), normalization)
        assert np.array_equal(answers(corpus, split, "none", model), answers(corpus, split, "z-score", model)) == same
        assert distinct(recipes, split) == [recipe for recipe in recipes
                                            if not (same and recipe == Recipe(model, "z-score"))]
    alone = [Recipe(model, "z-score"), Recipe(PROBE)]
    assert distinct(alone, make_split(len(corpus.labels), "population")) == alone
