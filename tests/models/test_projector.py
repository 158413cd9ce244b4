"""The probe predicts evidence from tokens; the largest becomes words, which neither noise nor training changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from e2llm.core.bands import BANDS
from e2llm.core.chat import EEG_TOKEN, IGNORE
from e2llm.core.claims import EVIDENCE_THRESHOLD, GRADED, MAX_ABS_Z, EvidenceNames
from e2llm.core.montage import REGIONS
from e2llm.models import evidence_probe as evidence_probe_module
from e2llm.models.eegpt import N_PATCHES
from e2llm.models.evidence_probe import CHANGE_WEIGHT, PENALTIES, EvidenceProbe, moments_of
from e2llm.models.language import ScratchParams, load_language_model, make_tokenizer, new_language_model
from e2llm.models.modeling import E2LLMConfig, E2LLMForConditionalGeneration
from e2llm.models.processing import E2LLMProcessor
from e2llm.models.projector import EvidenceTokens, Projector, top_evidence

NAMES = EvidenceNames(tuple((band, region) for region in REGIONS for band in BANDS)).columns
WIDTH, TEXT_WIDTH, EEG_TOKENS, SLOTS = 40, 64, 2, 3
SIZE = EEG_TOKENS + 3 * SLOTS  # tokens of a segment
CLEAR, FAINT = EVIDENCE_THRESHOLD + 0.2, EVIDENCE_THRESHOLD - 0.2


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def random_probe(seed: int = 0) -> EvidenceProbe:
    rng = np.random.default_rng(seed)
    weight, bias = (rng.normal(size=size).astype(np.float32) for size in ((len(NAMES), WIDTH), len(NAMES)))
    weight = np.hstack([weight / np.float32(np.sqrt(WIDTH)), np.zeros_like(weight)])  # means only
    return EvidenceProbe(NAMES, torch.from_numpy(weight), torch.from_numpy(bias / 10))


PROBE = random_probe()


def sounding(z: np.ndarray, evidence_probe: EvidenceProbe = PROBE, seed: int = 1) -> torch.Tensor:
    """Tokens (n, 16, WIDTH) for which the probe predicts these z-scores (n, n_names), by their mean over patches."""
    mean = (z - evidence_probe.bias.double().numpy()) @ np.linalg.pinv(evidence_probe.weight[:,
                                                                                             :WIDTH].double().numpy()).T
    jitter = np.random.default_rng(seed).normal(size=(len(z), N_PATCHES, WIDTH))
    return torch.from_numpy((mean[:, None] + jitter - jitter.mean(axis=1, keepdims=True)).astype(np.float32))


def planted(**levels: float) -> np.ndarray:
    """Z-scores of one window, silent but for some features."""
    z = np.zeros((1, len(NAMES)))
    for name, value in levels.items():
        z[0, NAMES.index(name.replace("_", " "))] = value
    return z


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer([*NAMES, "Which segment is more pleasant? A: B:",
                           "[ fear strong, occipital alpha low ] sad neutral high"], 320)


@pytest.fixture(scope="module")
def language_folder(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("language")
    model = new_language_model(tokenizer, ScratchParams(320, hidden_size=TEXT_WIDTH, layers=2, heads=4,
                                                        max_positions=512), seed=0)
    torch.manual_seed(1)
    with torch.no_grad():  # what it says depends on all of its prompt
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2:
                parameter.add_(0.2 * torch.randn_like(parameter) * (0.3 if "embed" in name else 1.0))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def join(tokenizer, language_folder):
    def make(slots: int = SLOTS, evidence_probe: EvidenceProbe | None = PROBE, seed: int = 0):
        language, _ = load_language_model(str(language_folder))
        return E2LLMForConditionalGeneration.join(language, tokenizer, str(language_folder), None, WIDTH, EEG_TOKENS,
                                                  seed, evidence_probe, slots).eval()

    return make


@pytest.fixture
def processor(tokenizer):
    return E2LLMProcessor(tokenizer, EEG_TOKENS, SLOTS)


def asking(*parts: str | int) -> list[dict]:
    content = [{"type": "eeg", "window": p} if isinstance(p, int) else {"type": "text", "text": p} for p in parts]
    return [{"role": "user", "content": content}]


QUESTIONS = [asking(5, " Which segment?"), asking("A: ", 9, " B: ", 2, " more pleasant?"), asking("neutral sad?")]


def features_of_questions(seed: int = 3) -> torch.Tensor:
    """Tokens of the three windows of the questions, in which some features are loud."""
    return sounding(1.5 * np.random.default_rng(seed).normal(size=(3, len(NAMES))))


def padded(processor, questions=QUESTIONS):
    return processor.pad([processor.ids(processor.prompt(messages, True)) for messages in questions], "left")


# --- the ear


def windows_of(weight: np.ndarray, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens whose units differ in scale and place, and z-scores that are linear in their mean."""
    rng = np.random.default_rng(seed)
    scale, place = np.geomspace(0.2, 5, weight.shape[1]), np.linspace(-3, 3, weight.shape[1])
    mean = rng.normal(size=(n, 1, weight.shape[1]))
    tokens = (place + scale * (mean + 0.3 * rng.normal(size=(n, 16, weight.shape[1])))).astype(np.float32)
    z = ((tokens.astype(float).mean(axis=1) - place) / scale) @ weight.T + 0.3
    return tokens, z


def test_an_ear_recovers_a_linear_map_and_hears_it_in_new_windows():
    weight = np.random.default_rng(0).normal(size=(4, 12)) / np.sqrt(12)
    tokens, z = windows_of(weight, 400, 1)
    evidence_probe = EvidenceProbe.fit(tokens, z, NAMES[:4])
    assert evidence_probe.names == NAMES[:4]
    assert evidence_probe.weight.dtype == evidence_probe.bias.dtype == torch.float32
    new, z_new = windows_of(weight, 200, 2)
    np.testing.assert_allclose(evidence_probe(new), z_new, atol=0.01)
    np.testing.assert_allclose(evidence_probe.weight.numpy()[:, :12] * np.geomspace(0.2, 5, 12), weight, atol=0.03)
    again = EvidenceProbe.fit(tokens, z, NAMES[:4])
    assert torch.equal(evidence_probe.weight, again.weight) and torch.equal(evidence_probe.bias, again.bias)


def test_noisy_evidence_is_not_predicted_larger_than_it_is():
    """What is not in the tokens is not heard: a linear map of a part of the evidence, and no part of the rest."""
    rng = np.random.default_rng(3)
    weight = rng.normal(size=(2, 12)) / np.sqrt(12)
    tokens, z = windows_of(weight, 500, 4)
    noisy = np.column_stack([z[:, 0] + rng.normal(size=500), rng.normal(size=500)])
    evidence_probe = EvidenceProbe.fit(tokens, noisy, NAMES[:2])
    new, z_new = windows_of(weight, 500, 5)
    assert np.corrcoef(evidence_probe(new)[:, 0], z_new[:, 0])[0, 1] > 0.97
    assert evidence_probe(new)[:, 1].std() < 0.3


def test_an_ear_learns_nothing_from_how_far_off_the_scale_a_window_is():
    tokens, z = windows_of(np.random.default_rng(6).normal(size=(3, 12)), 200, 7)
    z[:20] += 100 * np.sign(z[:20])
    evidence_probe, limited = (EvidenceProbe.fit(tokens, values, NAMES[:3])
                               for values in (z, np.clip(z, -MAX_ABS_Z, MAX_ABS_Z)))
    assert torch.equal(evidence_probe.weight, limited.weight) and torch.equal(evidence_probe.bias, limited.bias)


def test_a_probe_predicts_from_the_spread_of_the_patches():
    """The power of what is slower than a patch: a rhythm of random phase, whose mean over the window says nothing."""
    rng = np.random.default_rng(11)
    z = rng.normal(size=(400, 2))
    phase, t = rng.uniform(0, 2 * np.pi, size=(400, 1, 2)), np.arange(N_PATCHES)[None, :, None] / N_PATCHES
    tokens = (np.exp(0.2 * z)[:, None] * np.sin(2 * np.pi * np.array([4, 6]) * t + phase)).astype(np.float32)
    evidence_probe = EvidenceProbe.fit(tokens[:300], z[:300], NAMES[:2])
    assert np.abs(tokens.mean(axis=1)).max() < 1e-3
    for i in range(2):
        assert np.corrcoef(evidence_probe(tokens[300:])[:, i], z[300:, i])[0, 1] > 0.95
    pooled = np.hstack([tokens.mean(axis=1), (tokens**2).mean(axis=1)])
    by_hand = pooled @ evidence_probe.weight.numpy().T + evidence_probe.bias.numpy()
    np.testing.assert_allclose(evidence_probe(tokens), by_hand, atol=1e-4)
    inside = EvidenceTokens(2, TEXT_WIDTH, 2, 1)
    inside.set_from_probe(evidence_probe, lambda text: torch.zeros(TEXT_WIDTH))
    np.testing.assert_allclose(inside.predicted_evidence(torch.from_numpy(tokens)).numpy(), by_hand, atol=1e-4)


def test_a_probe_is_the_ridge_of_levels_and_of_weighted_changes():
    """Against the normal equations, written out, for a penalty of the grid."""
    rng = np.random.default_rng(8)
    tokens, z = windows_of(rng.normal(size=(3, 12)), 60, 9)
    z = np.clip(z + rng.normal(size=z.shape), -MAX_ABS_Z, MAX_ABS_Z)
    source_index = np.array([-1] * 40 + list(rng.integers(0, 40, 20)))
    evidence_probe = EvidenceProbe.fit(tokens, z, NAMES[:3], source_index)
    mean = np.hstack([tokens.astype(float).mean(axis=1), (tokens.astype(float) ** 2).mean(axis=1)])
    x, y = (mean - mean.mean(0)) / mean.std(0), z - z.mean(0)
    dx, dy = x[40:] - x[source_index[40:]], y[40:] - y[source_index[40:]]
    solutions = [np.linalg.solve(x.T @ x + CHANGE_WEIGHT * dx.T @ dx + alpha * np.eye(24),
                                 x.T @ y + CHANGE_WEIGHT * dx.T @ dy).T / mean.std(0)
                 for alpha in np.logspace(-2, 4, 13)]
    assert min(np.abs(evidence_probe.weight.numpy() - solution).max() for solution in solutions) < 1e-5
    np.testing.assert_allclose(evidence_probe(tokens).mean(axis=0), z.mean(axis=0), atol=1e-5)
    plain, none = EvidenceProbe.fit(tokens, z, NAMES[:3]), EvidenceProbe.fit(tokens, z, NAMES[:3], np.full(60, -1))
    assert torch.equal(plain.weight, none.weight) and not torch.allclose(plain.weight, evidence_probe.weight, atol=1e-3)


@pytest.mark.parametrize("n", [12, 60, 700])  # fewer windows than moments, more, and more than a block
def test_sums_over_windows_give_the_ridge_of_scikit_learn_and_its_penalty(n, monkeypatch):
    """Against a regression that holds all rows: leave-one-out by scikit-learn, and the ridge at that penalty."""
    from sklearn.linear_model import Ridge, RidgeCV

    rng = np.random.default_rng(n)
    tokens, z = windows_of(rng.normal(size=(3, 12)), n, 9)
    z = np.clip(z + rng.normal(size=z.shape), -MAX_ABS_Z, MAX_ABS_Z)
    edited = n // 3
    source_index = np.array([-1] * (n - edited) + list(rng.integers(0, n - edited, edited)))
    pooled = np.hstack([tokens.astype(float).mean(axis=1), (tokens.astype(float) ** 2).mean(axis=1)])
    np.testing.assert_allclose(moments_of(tokens), pooled, rtol=1e-12)
    x, y = (pooled - pooled.mean(0)) / pooled.std(0), z - z.mean(0)
    dx, dy = (of[n - edited :] - of[source_index[n - edited :]] for of in (x, y))
    x, y = np.vstack([x, CHANGE_WEIGHT**0.5 * dx]), np.vstack([y, CHANGE_WEIGHT**0.5 * dy])
    chosen = RidgeCV(PENALTIES, fit_intercept=False).fit(x, y)
    expected = Ridge(chosen.alpha_, fit_intercept=False, solver="svd").fit(x, y).coef_ / pooled.std(0)
    evidence_probe = EvidenceProbe.fit(tokens, z, NAMES[:3], source_index)
    largest = np.abs(expected).max()
    assert np.abs(evidence_probe.weight.numpy() - expected).max() < 1e-6 * largest  # single precision of the result
    other = Ridge(10 * chosen.alpha_, fit_intercept=False, solver="svd").fit(x, y).coef_ / pooled.std(0)
    assert np.abs(evidence_probe.weight.numpy() - other).max() > 1e-4 * largest, "the penalty matters here"
    monkeypatch.setattr(evidence_probe_module, "BLOCK", 7)
    small = EvidenceProbe.fit(tokens, z, NAMES[:3], source_index)
    assert np.abs(small.weight.numpy() - evidence_probe.weight.numpy()).max() < 1e-6 * largest
    np.testing.assert_allclose(small(tokens), evidence_probe(tokens), atol=1e-5)


def test_a_probe_of_changes_ignores_what_is_only_correlated_between_windows():
    """Units 0 and 1 carry a feature under noise that a window and its edit share; unit 2 does not follow edits."""
    rng = np.random.default_rng(10)
    z, edits = rng.normal(size=(300, 1)) * 2, rng.choice([-1.5, 1.5], size=(300, 1))
    moved = np.concatenate([z, z + edits])
    own = np.concatenate([z, z + edits]) + np.tile(rng.normal(size=(300, 2)) * 1.5, (2, 1))
    append_augmented = np.tile(z + 0.5 * rng.normal(size=(300, 1)), (2, 1))
    tokens = np.repeat(np.column_stack([own, append_augmented])[:, None], 16, axis=1)
    source_index = np.concatenate([np.full(300, -1), np.arange(300)])
    predicted_evidence = [evidence_probe(tokens) for evidence_probe in (EvidenceProbe.fit(tokens, moved, NAMES[:1]),
                                                                        EvidenceProbe.fit(tokens, moved, NAMES[:1],
                                                                                          source_index))]
    levels, changes = (float(np.abs((value[300:] - value[:300]) - edits).mean()) for value in predicted_evidence)
    assert changes < 0.7 * levels, (levels, changes)


def tuned(evidence_probe: EvidenceProbe = PROBE, slots: int = SLOTS, seed: int = 0) -> EvidenceTokens:
    torch.manual_seed(seed)
    tokens = EvidenceTokens(WIDTH, TEXT_WIDTH, len(evidence_probe.names), slots)
    tokens.set_from_probe(evidence_probe, lambda text: torch.full((TEXT_WIDTH,), float(len(text))))
    return tokens


def test_the_probe_in_the_projector_predicts_what_the_probe_predicts(tmp_path):
    z = 2 * np.random.default_rng(8).normal(size=(30, len(NAMES)))
    features = sounding(z)
    np.testing.assert_allclose(PROBE(features.numpy()), z, atol=1e-4)
    np.testing.assert_allclose(tuned().predicted_evidence(features).numpy(), PROBE(features.numpy()), atol=1e-5)
    np.save(tmp_path / "tokens.npy", features.numpy().reshape(30, 16, 4,
                                                              WIDTH // 4))  # as an encoder's tokens lie on disk
    np.testing.assert_allclose(PROBE(np.load(tmp_path / "tokens.npy", mmap_mode="r")), PROBE(features.numpy()),
                               atol=1e-6)


# --- what is said of what is heard


def top_evidence_by_numpy(z: np.ndarray, slots: int) -> list[int]:
    """Columns that are said, one after the other."""
    taken = []
    for _ in range(slots):
        rest = [i for i in range(len(z)) if i not in taken and abs(z[i]) >= EVIDENCE_THRESHOLD]
        taken += [max(rest, key=lambda i: abs(z[i]))] if rest else []
    return sorted(taken)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("slots", [1, 3, 6, len(NAMES)])
def test_top_evidence_is_in_the_order_of_the_table(slots, dtype):
    z = torch.from_numpy(1.5 * np.random.default_rng(9).normal(size=(200, len(NAMES)))).to(dtype)
    z[:5] *= 0.1
    which, is_said = top_evidence(z, slots)
    assert [*which.shape] == [*is_said.shape] == [200, slots] and is_said.dtype is torch.bool
    for row, columns, said in zip(z.numpy(), which, is_said, strict=True):
        assert columns[said].tolist() == top_evidence_by_numpy(row, slots)
        assert said.tolist() == sorted(said.tolist(), reverse=True)  # what is not said comes last
        assert len(set(columns.tolist())) == slots and columns.min() >= 0 and columns.max() < len(NAMES)
    assert not is_said[:5].any() and is_said.any(dim=1)[5:].float().mean() > 0.9


def test_of_equally_large_features_any_may_be_used():
    z = EVIDENCE_THRESHOLD + 0.25 * torch.from_numpy(np.random.default_rng(10).integers(-2, 3, size=(200, 12))).double()
    z *= torch.where(torch.arange(12) % 3 == 0, -1, 1)
    which, is_said = top_evidence(z, 4)
    for row, columns, said in zip(z.abs(), which, is_said, strict=True):
        assert columns[said].tolist() == sorted(set(columns[said].tolist()))
        expected = [value for value in sorted(row.tolist(), reverse=True)[:4] if value >= EVIDENCE_THRESHOLD]
        assert sorted(row[columns[said]].tolist(), reverse=True) == expected
    assert torch.equal(top_evidence(z, 4)[0], which)


def test_what_is_exactly_at_the_threshold_is_used():
    which, is_said = top_evidence(torch.tensor([[0.0, -EVIDENCE_THRESHOLD, 0.0, EVIDENCE_THRESHOLD - 1e-3,
                                                 EVIDENCE_THRESHOLD]], dtype=torch.float64), 3)
    assert which[0, is_said[0]].tolist() == [1, 4]
    assert not top_evidence(torch.zeros(2, 5), 3)[1].any()


def words_of(model, tokenizer, tokens: torch.Tensor) -> list[str]:
    """The words whose embeddings stand nearest, and that they are met exactly."""
    words = sorted({word for name in NAMES for word in name.split()} | {"low", "high", "]"})
    table = model.get_input_embeddings().weight
    embedded = torch.stack([table[tokenizer(f" {word}", add_special_tokens=False)["input_ids"]].mean(dim=0)
                            for word in words])
    apart = (embedded[:, None] - embedded).norm(dim=2).fill_diagonal_(1)
    distance, nearest = (tokens[:, None] - embedded).norm(dim=2).min(dim=1)
    assert distance.max() < 1e-5 and apart.min() > 1e-2
    return [words[i] for i in nearest]


@torch.no_grad()
@pytest.mark.parametrize(("levels", "said"), [
    ({"occipital_alpha": CLEAR}, "occipital alpha high ] ] ] ] ] ]"),
    ({"occipital_alpha": -CLEAR, "frontal_theta": CLEAR}, "frontal theta high occipital alpha low ] ] ]"),
    ({"occipital_alpha": FAINT, "frontal_theta": -FAINT}, "] ] ] ] ] ] ] ] ]"),
    ({}, "] ] ] ] ] ] ] ] ]"),
    ({"alpha_frequency": -3.0, "frontal_asymmetry": 2.5, "artefact_level": 4.0},
     "frontal asymmetry high alpha frequency low artefact level high"),
    ({"spectral_slope": -5.0, "frontal_theta": 2.0, "temporal_gamma": 3.0, "central_beta": -2.5},
     "central beta low temporal gamma high spectral slope low")])
def test_predicted_evidence_becomes_words_and_the_rest_no_evidence(join, tokenizer, levels, said):
    model = join()
    tokens = model.projector(sounding(planted(**levels)))
    assert tokens.shape == (1, SIZE, TEXT_WIDTH)
    assert " ".join(words_of(model, tokenizer, tokens[0, EEG_TOKENS:])) == said


@torch.no_grad()
def test_graded_evidence_becomes_the_words_of_its_level():
    words = sorted({word for text in (*NAMES, *GRADED.words, "]") for word in text.split()})

    def embed(text: str) -> torch.Tensor:
        return torch.stack([torch.eye(len(words))[words.index(word)] for word in text.split()]).mean(dim=0)

    evidence = EvidenceTokens(WIDTH, len(words), len(NAMES), 6, GRADED)
    evidence.set_from_probe(PROBE, embed)
    z = planted(frontal_delta=0.65, frontal_beta=0.75, frontal_gamma=-0.75, temporal_gamma=1.6, occipital_theta=-1.6,
                occipital_alpha=-2.6, spectral_slope=2.6)
    said = [words[int(token.argmax())] for token in evidence(sounding(z))[0]]
    assert all(token.max() == 1 for token in evidence(sounding(z))[0])  # whole words, four tokens a feature
    wanted = {"frontal beta": "rather high", "frontal gamma": "rather low", "temporal gamma": "clearly high",
              "occipital theta": "clearly low", "occipital alpha": "very low", "spectral slope": "very high"}
    assert {" ".join(said[i : i + 2]): " ".join(said[i + 2 : i + 4]) for i in range(0, 24, 4)} == wanted
    assert list(evidence(sounding(planted()))[0].argmax(dim=1)) == [words.index("]")] * 24


def test_every_feature_of_a_batch_is_said_at_its_own_place(join, tokenizer):
    model, z = join(), 1.3 * np.random.default_rng(11).normal(size=(40, len(NAMES)))
    spoken = model.projector(sounding(z))[:, EEG_TOKENS:]
    for row, tokens in zip(z, spoken, strict=True):
        expected = [f"{NAMES[i]} {'high' if row[i] > 0 else 'low'}" for i in top_evidence_by_numpy(row, SLOTS)]
        assert " ".join(words_of(model, tokenizer, tokens)) == " ".join([*expected,
                                                                         *["] ] ]"] * (SLOTS - len(expected))])


BRIEF = [asking(5, " Which segment?"), [{"role": "user", "content": [
    {"type": "eeg", "window": 9, "evidence": False}, {"type": "text", "text": " B: "}, {"type": "eeg", "window": 2},
    {"type": "eeg", "window": 4, "evidence": False}]}]]


@torch.no_grad()
def test_a_brief_segment_enters_with_its_state_tokens_alone(join, processor):
    model = join()
    features = sounding(1.5 * np.random.default_rng(3).normal(size=(4, len(NAMES))))
    brief = [one for messages in BRIEF for one in processor.brief(messages)]
    assert brief == [False, True, False, True]
    assert processor.windows(BRIEF[1]) == [9, 2, 4]
    ids, _ = padded(processor, BRIEF)
    found = model.put_eeg_at_placeholders(ids, features, eeg_brief=torch.tensor(brief))
    tokens = model.projector(features)
    wanted = torch.cat([tokens[i, : EEG_TOKENS if one else SIZE] for i, one in enumerate(brief)])
    at = ids == model.config.eeg_token_id
    assert torch.equal(found[at], wanted)
    assert torch.equal(found[~at], model.get_input_embeddings()(ids)[~at])
    with pytest.raises(ValueError, match=f"has {2 * SIZE + 2 * EEG_TOKENS} EEG placeholders, 4 segments need"):
        model.put_eeg_at_placeholders(ids, features)


@torch.no_grad()
def test_several_answers_about_brief_segments_have_the_same_segments(join, processor, tokenizer):
    model, questions = join(), [BRIEF[1], BRIEF[0], asking("neutral sad?")]
    features = sounding(1.5 * np.random.default_rng(3).normal(size=(4, len(NAMES))))
    brief = torch.tensor([one for messages in questions for one in processor.brief(messages)])
    ids, mask = padded(processor, questions)
    given = {"input_ids": ids, "attention_mask": mask, "eeg_features": features, "eeg_brief": brief,
             "max_new_tokens": 6, "pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    once = model.generate(**given, do_sample=False)
    twice = model.generate(**given, do_sample=True, top_k=1, num_return_sequences=2)
    assert torch.equal(twice, once.repeat_interleave(2, dim=0))
    assert len({tuple(row) for row in once[:, ids.shape[1]:].tolist()}) > 1


@torch.no_grad()
def test_noise_reaches_the_state_tokens_only(join):
    projector, features = join().projector, features_of_questions()
    noise = 3 * torch.randn(features.shape, generator=torch.Generator().manual_seed(0))
    clear, noisy = projector(features), projector(features, noise)
    assert torch.equal(noisy[:, EEG_TOKENS:], clear[:, EEG_TOKENS:])
    torch.testing.assert_close(noisy[:, :EEG_TOKENS], projector.state_tokens(features + noise))
    assert (noisy - clear)[:, :EEG_TOKENS].abs().amax(dim=2).min() > 1e-3
    assert torch.equal(projector(features, torch.zeros_like(noise)), clear)


@torch.no_grad()
def test_noise_reaches_the_prompt_as_the_state_tokens_alone(join, processor):
    model, features = join(), features_of_questions()
    ids, mask = padded(processor)
    noise = torch.randn(features.shape, generator=torch.Generator().manual_seed(1))
    clear, noisy = (model.put_eeg_at_placeholders(ids, features, extra) for extra in (None, noise))
    changed = (clear != noisy).any(dim=2)
    runs = torch.zeros(3, SIZE, dtype=torch.bool)
    runs[:, :EEG_TOKENS] = True
    assert torch.equal(changed[ids == model.config.eeg_token_id],
                       runs.flatten()) and int(changed.sum()) == 3 * EEG_TOKENS
    given = {"input_ids": ids, "attention_mask": mask, "eeg_features": features}
    assert (model(**given, eeg_noise=noise).logits - model(**given).logits).abs().max() > 1e-3


@torch.no_grad()
def test_without_slots_the_projector_is_a_layer_norm_and_two_layers(join, tokenizer):
    features, model = features_of_questions(), join(slots=0)
    projector = model.projector
    assert projector.evidence is None and model.config.tokens_per_segment == EEG_TOKENS
    last = torch.nn.Linear(TEXT_WIDTH, TEXT_WIDTH)
    plain = torch.nn.Sequential(torch.nn.LayerNorm(WIDTH), torch.nn.Linear(WIDTH, TEXT_WIDTH), torch.nn.GELU(), last)
    for layer, own in zip((plain[0], plain[1], plain[3]), (projector.norm, projector.fc1, projector.fc2), strict=True):
        layer.load_state_dict(own.state_dict())
    expected = plain(torch.stack([features[:, :8].mean(dim=1), features[:, 8:].mean(dim=1)], dim=1))
    torch.testing.assert_close(projector(features), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(join(evidence_probe=None, slots=0).projector(features), expected, atol=1e-5, rtol=1e-5)
    assert E2LLMProcessor(tokenizer, EEG_TOKENS).segment == EEG_TOKEN * EEG_TOKENS


@torch.no_grad()
def test_evidence_changes_nothing_of_the_state_tokens(join):
    features, silent, with_evidence = features_of_questions(), join(slots=0).projector, join().projector
    with_evidence.load_state_dict(silent.state_dict(), strict=False)
    torch.testing.assert_close(with_evidence(features)[:, :EEG_TOKENS], silent(features))


@torch.no_grad()
def test_a_model_without_evidence_tokens_shares_its_weights(join, tokenizer, processor):
    model, features = join(), features_of_questions()
    before = model.projector(features)
    changed = model.without_evidence_tokens()
    tokens = changed.projector(features)
    assert torch.equal(tokens[:, :EEG_TOKENS], before[:, :EEG_TOKENS]) and tokens.shape == before.shape
    assert set(words_of(model, tokenizer, tokens[:, EEG_TOKENS:].flatten(0, 1))) == {"]"}
    assert torch.equal(model.projector(features), before) and not torch.equal(tokens, before)
    assert changed.projector.fc1.weight is model.projector.fc1.weight and changed.language_model is model.language_model
    ids, mask = padded(processor)
    given = {"input_ids": ids, "attention_mask": mask, "eeg_features": features}
    assert not torch.equal(changed(**given).logits, model(**given).logits)
    plain = join(slots=0)
    assert torch.equal(plain.without_evidence_tokens().projector(features), plain.projector(features))


# --- training and keeping


EVIDENCE_KEYS = {f"evidence.{name}" for name in ("weight", "bias", "first", "second", "levels", "no_evidence")}


def test_probe_and_words_are_no_parameters_and_get_no_gradient(join):
    projector = join().projector
    assert {name for name, _ in projector.named_buffers()} == EVIDENCE_KEYS
    assert {name.split(".")[0] for name, _ in projector.named_parameters()} == {"norm", "fc1", "fc2"}
    features = sounding(planted(occipital_alpha=CLEAR)).requires_grad_()
    tokens = projector(features)
    (gradient,) = torch.autograd.grad(tokens[:, EEG_TOKENS:].square().sum() + 0 * tokens.sum(), features,
                                      retain_graph=True)
    assert not gradient.any()  # words are chosen, not weighed
    assert torch.autograd.grad(tokens[:, :EEG_TOKENS].square().sum(), features)[0].any()


def test_training_an_adapter_changes_the_state_tokens_and_leaves_probe_and_words(join, processor, tmp_path):
    examples = [processor.training_example(messages, answer, False) for messages,
                answer in zip(QUESTIONS[:2], ("sad", "A"), strict=True)]
    ids, mask = processor.pad([example["input_ids"] for example in examples], "right")
    labels, _ = processor.pad([example["labels"] for example in examples], "right", IGNORE)
    features = features_of_questions()
    batch = {"input_ids": ids, "attention_mask": mask, "labels": labels, "eeg_features": features,
             "eeg_noise": 0.1 * torch.randn(features.shape)}
    before = {name: value.clone() for name, value in join().projector.state_dict().items()}
    peft = get_peft_model(join(), LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["projector"]))
    assert not any("evidence" in name for name, _ in peft.named_parameters())
    optimizer = torch.optim.AdamW([p for p in peft.parameters() if p.requires_grad], lr=0.01, weight_decay=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        peft(**batch).loss.backward()
        optimizer.step()
    peft.eval().save_pretrained(tmp_path)
    given = {name: value for name, value in batch.items() if name not in ("labels", "eeg_noise")}
    with torch.no_grad():
        expected = peft(**given).logits
        loaded = PeftModel.from_pretrained(join(evidence_probe=random_probe(5), seed=1),
                                           str(tmp_path)).eval()  # another probe, until it is loaded
        torch.testing.assert_close(loaded(**given).logits, expected, atol=1e-5, rtol=1e-5)
        merged = loaded.merge_and_unload()
        torch.testing.assert_close(merged(**given).logits, expected, atol=1e-3, rtol=1e-3)
    for state in (peft.base_model.model.projector.modules_to_save["default"].state_dict(),
                  merged.projector.state_dict()):
        assert set(state) == set(before)
        changed = {name for name, value in state.items() if not torch.equal(value, before[name])}
        assert changed == set(before) - EVIDENCE_KEYS


@torch.no_grad()
def test_a_saved_model_with_evidence_says_the_same(join, processor, tmp_path):
    model, features = join(seed=4), features_of_questions()
    ids, mask = padded(processor)
    given = {"input_ids": ids, "attention_mask": mask, "eeg_features": features}
    model.save_pretrained(tmp_path)
    loaded = E2LLMForConditionalGeneration.from_pretrained(tmp_path)
    assert (loaded.config.evidence, loaded.config.evidence_slots) == (NAMES, SLOTS)
    assert loaded.config.tokens_per_segment == SIZE
    assert torch.equal(loaded(**given).logits, model(**given).logits)
    assert torch.equal(loaded.projector.evidence.predicted_evidence(features),
                       model.projector.evidence.predicted_evidence(features))


def volume(weight: torch.Tensor) -> float:
    return float(weight.double().std())


@torch.no_grad()
def test_a_reinitialized_probe_predicts_nothing_that_is_there(join):
    model, other = join(), join()
    z = np.random.default_rng(12).normal(size=(300, len(NAMES)))
    features = sounding(z)
    other.projector.reinitialize(7)
    assert np.corrcoef(model.projector.evidence.predicted_evidence(features).numpy().ravel(), z.ravel())[0, 1] > 0.999
    own, strange = (projector.evidence.weight.double().numpy() for projector in (model.projector, other.projector))
    assert abs(np.corrcoef(own.ravel(), strange.ravel())[0, 1]) < 0.1
    predicted_evidence = other.projector.evidence.predicted_evidence(features).double().numpy()
    by_feature = [np.corrcoef(predicted_evidence[:, i], z[:, i])[0, 1] for i in range(len(NAMES))]
    assert abs(np.mean(by_feature)) < 0.1 and np.median(np.abs(by_feature)) < 0.3
    for layer in ("fc1", "fc2"):
        assert volume(getattr(other.projector, layer).weight) == pytest.approx(volume(getattr(model.projector,
                                                                                              layer).weight), rel=1e-3)
    assert volume(other.projector.evidence.weight) == pytest.approx(volume(model.projector.evidence.weight), rel=0.1)
    again, third = join(), join()
    again.projector.reinitialize(7)
    third.projector.reinitialize(8)
    assert torch.equal(again.projector(features), other.projector(features))
    assert not torch.equal(third.projector(features), other.projector(features))
    plain = Projector(WIDTH, TEXT_WIDTH, TEXT_WIDTH, EEG_TOKENS)
    plain.reinitialize(7)
    assert plain(features).shape == (300, EEG_TOKENS, TEXT_WIDTH)


# --- placeholders


def test_a_segment_is_laid_out_like_one_in_words(processor, tokenizer):
    eeg = EEG_TOKEN
    assert processor.segment == f"[{eeg * 2},{eeg * 3},{eeg * 3},{eeg * 3} ]"
    place = tokenizer.convert_tokens_to_ids(eeg)
    comma, begin, end = (processor.ids(text) for text in (",", "[", " ]"))
    assert processor.ids(processor.segment) == [*begin, *[place] * 2, *([*comma, *[place] * 3] * 3), *end]
    words = processor.ids("[ fear strong, occipital alpha low ]")
    assert words[: len(begin)] == begin and words[-len(end) :] == end and words.count(comma[0]) == 1
    text = processor.prompt(asking("A: ", 3, " B: ", 4), thinking=False)
    assert f"A: {processor.segment} B: {processor.segment}<" in text and text.count(eeg) == 2 * SIZE


@torch.no_grad()
def test_tokens_of_several_segments_stand_in_order_at_their_placeholders(join, processor):
    model, features = join(), features_of_questions()
    ids, mask = padded(processor)
    at = ids == model.config.eeg_token_id
    assert at.sum(dim=1).tolist() == [SIZE, 2 * SIZE, 0] and model.config.tokens_per_segment == SIZE
    placed = model.put_eeg_at_placeholders(ids, features)
    torch.testing.assert_close(placed[at], torch.cat([model.projector(features[i : i + 1])[0] for i in range(3)]))
    torch.testing.assert_close(placed[~at], model.get_input_embeddings().weight[ids[~at]])
    for n in (2, 4):
        with pytest.raises(ValueError, match=rf"text has {3 * SIZE} EEG placeholders, {n} segments need {n * SIZE}"):
            model(input_ids=ids, attention_mask=mask, eeg_features=features[[0, 1, 2, 0][:n]])


@torch.no_grad()
def test_several_answers_have_all_segments_of_their_prompt(join, processor, tokenizer):
    model, features = join(), features_of_questions()
    ids, mask = padded(processor)
    many, rest = model._expand_inputs_for_generation(2, input_ids=ids, attention_mask=mask, eeg_features=features)
    assert torch.equal(many, ids[[0, 0, 1, 1, 2, 2]]) and torch.equal(rest["attention_mask"], mask[[0, 0, 1, 1, 2, 2]])
    assert torch.equal(rest["eeg_features"], features[[0, 0, 1, 2, 1, 2]])
    options = {"max_new_tokens": 5, "pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    once, twice = (model.generate(input_ids=ids, attention_mask=mask, eeg_features=features, **options, **more)
                   for more in ({"do_sample": False}, {"do_sample": True, "top_k": 1, "num_return_sequences": 2}))
    assert torch.equal(twice, once.repeat_interleave(2, dim=0))


@torch.no_grad()
def test_predicted_evidence_changes_the_text(join, processor):
    model = join()
    ids, mask = padded(processor, QUESTIONS[:1])
    loud, other = (sounding(planted(occipital_alpha=level)) for level in (CLEAR, -CLEAR))
    features = loud - loud.mean(dim=1, keepdim=True) + torch.stack([x.mean(dim=1)
                                                                    for x in (loud, other)])  # both of the same jitter
    one, two = (model(input_ids=ids, attention_mask=mask, eeg_features=x[None]).logits[0, -1] for x in features)
    assert (one - two).abs().max() > 1e-3


def test_evidence_that_cannot_be_is_refused(join):
    with pytest.raises(ValueError, match="needs an evidence probe"):
        join(evidence_probe=None)
    few = EvidenceProbe(NAMES[:2], PROBE.weight[:2], PROBE.bias[:2])
    with pytest.raises(ValueError, match="at most the 2 features that are predicted, got 3"):
        join(evidence_probe=few)
    assert join(evidence_probe=few, slots=2).config.tokens_per_segment == EEG_TOKENS + 6
    with pytest.raises(ValueError, match="at most the 0 features"):
        E2LLMConfig(evidence_slots=1)
    for slots, wanted in ((0, 4), (1, 7), (6, 22)):
        assert E2LLMConfig(eeg_tokens=4, evidence=NAMES, evidence_slots=slots).tokens_per_segment == wanted
