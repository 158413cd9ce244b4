"""What any model must beat, and the ceiling on the twin.

A baseline is a recipe: a model and a declared alignment of subjects. Fitted on a corpus under a split it answers for
rows of the corpus and for any other signals, so that it can be put under the same controls as a model. Hyperparameters
are chosen on the validation part.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pandas as pd
import torch
from threadpoolctl import threadpool_limits

from ..core.files import one_line, read_yaml, refuse_bomb
from ..data.dataset import Corpus
from ..data.emotion_effects import Preset, oracle_probabilities
from ..data.features import band_power, differential_entropy
from ..data.normalization import ALIGNMENTS, Aligner, Equalizer, FeatureStatistics
from ..data.preprocessing import Windows
from ..data.protocols import Split
from ..data.simulation import WINDOW_S
from ..models.eegnet import EEGNetParams, decimated
from ..models.eegpt import EEGPT
from ..training.eegnet import answers, train_eegnet
from ..training.trainer import FitParams
from .metrics import plain_balanced_accuracy

if TYPE_CHECKING:
    from sklearn.base import ClassifierMixin

STRENGTHS = (0.001, 0.003, 0.01, 0.03, 0.1, 1.0)  # inverse regularization of logistic regression
MARGINS = (0.1, 0.3, 1.0, 3.0, 10.0)  # C of the support vector machine
EXACT_UP_TO = 4000  # training windows; an exact kernel machine's time grows with the square of their number
LANDMARKS = 500  # training windows, drawn at random, that an approximated kernel is spanned by
EEGNET_SIZE = EEGNetParams(dropout=0.25)  # the paper's value across people
# Chosen on a validation part
EEGNET_FIT = FitParams(steps=400, batch_size=32, lr=1e-2, weight_decay=0.0, save_steps=10**6)


class Fitted(Protocol):
    """A baseline that has been trained."""

    def rows(self, rows: np.ndarray) -> np.ndarray:
        """Class indices of rows of the corpus."""

    def __call__(self, signals: np.ndarray, norm_groups: np.ndarray) -> np.ndarray:
        """Class indices of signals.

        Parameters
        ----------
        signals : ndarray, shape (n, n_channels, n_samples)
            Microvolts.
        norm_groups : ndarray, shape (n,)
            Normalization group of each (:meth:`e2llm.data.protocols.Split.norm_groups`).
        """


# ---------------------------------------------------------------- features


class Entropy:
    """Differential entropy of every channel and band, shape (n, n_channels * n_bands).

    ``z-score`` compares each feature with the person's own; ``euclidean`` aligns the signals and measures then.
    """

    def __init__(self, windows: Windows, split: Split, alignment: str) -> None:
        self.windows, self.norm_groups = windows, split.norm_groups(windows.index)
        self.align = Aligner.fit(windows.data, self.norm_groups, split, alignment) if alignment == "euclidean" else None
        self.statistics = None
        if alignment == "z-score":
            self.statistics = FeatureStatistics.fit(self._flat(np.asarray(windows.power)), self.norm_groups, split)

    @staticmethod
    def _flat(power: np.ndarray) -> np.ndarray:
        return differential_entropy(power).reshape(len(power), -1)

    def _measured(self, power: np.ndarray, norm_groups: np.ndarray) -> np.ndarray:
        flat = self._flat(power)
        return flat if self.statistics is None else self.statistics.z(flat, norm_groups)

    def rows(self, rows: np.ndarray) -> np.ndarray:
        """Features of rows of the corpus; band power that is stored already is not measured again."""
        if self.align is not None:
            return _in_chunks(self, self.windows.data, self.norm_groups, rows)
        return self._measured(np.asarray(self.windows.power)[rows], self.norm_groups[rows])

    def __call__(self, signals: np.ndarray, norm_groups: np.ndarray) -> np.ndarray:
        """Features of any signals.

        Parameters
        ----------
        signals : ndarray, shape (n, n_channels, n_samples)
            Microvolts.
        norm_groups : ndarray of str, shape (n,)
            Normalization group of every window.
        """
        if self.align is not None:
            signals = self.align(signals, norm_groups)
        return self._measured(band_power(signals, self.windows.sfreq), norm_groups)


class FrozenTokens:
    """Mean summary token of a frozen encoder that was trained with no label.

    Parameters
    ----------
    encoder : EEGPT
        The encoder.
    windows : Windows
        Of a corpus.
    split : Split
        Its input is equalized as the split allows.
    known : mapping of int to ndarray, optional
        Features of rows of the corpus that were made before, by the same encoder under the same split.
    """

    def __init__(self, encoder: EEGPT, windows: Windows, split: Split,
                 known: Mapping[int, np.ndarray] | None = None) -> None:
        self.encoder, self.windows, self.norm_groups = encoder.eval(), windows, split.norm_groups(windows.index)
        self.split, self.known = split, known or {}
        self.equalize = Equalizer.fit(np.asarray(windows.power), self.norm_groups, split, windows.sfreq)

    def rows(self, rows: np.ndarray) -> np.ndarray:
        """Features of rows of the corpus; those that are known are not made again."""
        if self.known.keys() >= set(rows.tolist()):
            return np.stack([self.known[row] for row in rows.tolist()])
        return _in_chunks(self, self.windows.data, self.norm_groups, rows)

    @torch.no_grad()
    def __call__(self, signals: np.ndarray, norm_groups: np.ndarray, batch: int = 16) -> np.ndarray:
        """Features of any signals.

        Parameters
        ----------
        signals : ndarray, shape (n, n_channels, n_samples)
            Microvolts.
        norm_groups : ndarray of str, shape (n,)
            Normalization group of every window.
        batch : int
            Windows that the encoder sees at a time.
        """
        device = next(self.encoder.parameters()).device
        equalized = (self.equalize(signals[i : i + batch], norm_groups[i : i + batch])
                     for i in range(0, len(signals), batch))
        return np.concatenate([self.encoder(part.to(device)).mean(1).flatten(1).cpu().numpy() for part in equalized])


def _in_chunks(measure: Callable, data: np.ndarray, norm_groups: np.ndarray, rows: np.ndarray,
               chunk: int = 128) -> np.ndarray:
    """Measure rows of memory-mapped windows without holding all of them."""
    return np.concatenate([measure(np.array(data[some]), norm_groups[some])
                           for some in np.array_split(rows, -(-len(rows) // chunk))])


# ---------------------------------------------------------------- classifiers


def logistic_regressions() -> list[ClassifierMixin]:
    """Candidates, from the strongest regularization to the weakest."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return [make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000, class_weight="balanced"))
            for strength in STRENGTHS]


def support_vector_machines(n_train: int) -> list[ClassifierMixin]:
    """Candidates with a radial kernel, from the widest margin to the narrowest.

    Above :data:`EXACT_UP_TO` training windows the kernel is approximated by Nyström's method, and the machine is a
    linear one on its features, one class against the others: the time then grows with the number of windows.

    Parameters
    ----------
    n_train : int
        Number of training windows.

    References
    ----------
    Williams & Seeger 2001, NIPS 13:682.
    """
    from sklearn.kernel_approximation import Nystroem
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC, LinearSVC

    if n_train <= EXACT_UP_TO:
        return [make_pipeline(StandardScaler(), SVC(C=margin, class_weight="balanced")) for margin in MARGINS]
    return [make_pipeline(StandardScaler(), Nystroem(n_components=LANDMARKS, random_state=0),
                          LinearSVC(C=margin, class_weight="balanced", dual=False, tol=0.1)) for margin in MARGINS]


@dataclass(frozen=True)
class Classical:
    """Features and the scikit-learn classifier that was best on the validation part."""

    features: Entropy | FrozenTokens
    classifier: ClassifierMixin

    @classmethod
    def fit(cls, features: Entropy | FrozenTokens, candidates: list[ClassifierMixin], labels: np.ndarray,
            split: Split) -> Classical:
        """Train every candidate on train and keep the first of those that are best on val.

        Parameters
        ----------
        features : Entropy or FrozenTokens
            Measure windows.
        candidates : list of ClassifierMixin
            Untrained.
        labels : ndarray of int, shape (n_windows,)
            Class indices of all windows.
        split : Split
            Trains on train, chooses on val.
        """
        n_classes = int(labels.max()) + 1
        train, val = features.rows(split.train), features.rows(split.val)
        scores = []
        with threadpool_limits(1):  # small matrices: threads that wait for each other take fifteen times as long
            for candidate in candidates:
                candidate.fit(train, labels[split.train])
                scores.append(plain_balanced_accuracy(labels[split.val], candidate.predict(val), n_classes))
        return cls(features, candidates[int(np.argmax(scores))])

    def rows(self, rows: np.ndarray) -> np.ndarray:
        """Class indices of rows of the corpus."""
        return self.classifier.predict(self.features.rows(rows))

    def __call__(self, signals: np.ndarray, norm_groups: np.ndarray) -> np.ndarray:
        """Class indices of any signals.

        Parameters
        ----------
        signals : ndarray, shape (n, n_channels, n_samples)
            Microvolts.
        norm_groups : ndarray of str, shape (n,)
            Normalization group of every window.
        """
        return self.classifier.predict(self.features(signals, norm_groups))


@dataclass(frozen=True)
class Convolutional:
    """EEGNet on raw, aligned windows."""

    net: torch.nn.Module
    prepare: Callable[[np.ndarray, np.ndarray], np.ndarray]
    windows: Windows
    norm_groups: np.ndarray

    @classmethod
    def fit(cls, corpus: Corpus, split: Split, alignment: str, schedule: FitParams = EEGNET_FIT,
            params: EEGNetParams = EEGNET_SIZE) -> Convolutional:
        """Train for a fixed number of steps on train; the validation part is not needed.

        Parameters
        ----------
        corpus, split : Corpus and Split
            Windows, and which of them train.
        alignment : str
            One of :data:`e2llm.data.normalization.ALIGNMENTS`.
        schedule, params : FitParams and EEGNetParams
            Schedule and size.
        """
        windows, norm_groups = corpus.windows, split.norm_groups(corpus.windows.index)
        align = Aligner.fit(windows.data, norm_groups, split, alignment)

        def prepare(signals: np.ndarray, who: np.ndarray) -> np.ndarray:
            return align(decimated(signals, windows.sfreq, params.rate), who)

        with tempfile.TemporaryDirectory() as folder:  # half a minute's work: not worth resuming
            net = train_eegnet(windows.data, prepare, corpus.labels, norm_groups, split.train, len(corpus.label_set),
                               params, schedule, Path(folder))
        return cls(net, prepare, windows, norm_groups)

    def rows(self, rows: np.ndarray) -> np.ndarray:
        """Class indices of rows of the corpus."""
        return _in_chunks(self, self.windows.data, self.norm_groups, rows)

    def __call__(self, signals: np.ndarray, norm_groups: np.ndarray) -> np.ndarray:
        """Class indices of any signals.

        Parameters
        ----------
        signals : ndarray, shape (n, n_channels, n_samples)
            Microvolts.
        norm_groups : ndarray of str, shape (n,)
            Normalization group of every window.
        """
        return answers(self.net, signals, self.prepare, norm_groups).argmax(axis=1)


# ---------------------------------------------------------------- recipes


@dataclass(frozen=True)
class Recipe:
    """A baseline by name: a model and its alignment.

    Parameters
    ----------
    model : str
        Key of :data:`MODELS`.
    alignment : str
        One of :data:`e2llm.data.normalization.ALIGNMENTS`, fitted on the rows that the split allows. A frozen encoder's
        input is equalized as in stage 1, and knows no other alignment.
    steps : int
        Optimizer steps of EEGNet; the other models have none.
    """

    model: str
    alignment: str = "none"
    steps: int = EEGNET_FIT.steps

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise ValueError(f"Unknown baseline '{self.model}' (known: {', '.join(MODELS)}).")
        if self.alignment not in MODELS[self.model]:
            raise ValueError(f"'{self.model}' takes the alignments {', '.join(MODELS[self.model])}, not "
                             f"'{self.alignment}'.")

    @property
    def name(self) -> str:
        """As tables show it."""
        return self.model + {"none": "", "z-score": ", z-scored", "euclidean": ", Euclidean alignment"}[self.alignment]


    def note(self, split: Split) -> str:
        """What a table must say beside the name: empty, or how the model was approximated."""
        approximated = self.model == SVM and len(split.train) > EXACT_UP_TO
        return f"kernel by Nyström's method, {LANDMARKS} landmarks" if approximated else ""


def distinct(recipes: Sequence[Recipe], split: Split) -> list[Recipe]:
    """Recipes that answer differently under a split, the first of each kind.

    Z-scores with population statistics are one linear map for all subjects; the standardization in front of the classic
    classifiers takes it away again, so that they are the same baseline with and without.

    Parameters
    ----------
    recipes : sequence of Recipe
        Baselines.
    split : Split
        Its normalization decides.
    """
    same = ("none", "z-score") if split.normalization == "population" else ()
    kept: dict[tuple, Recipe] = {}
    for recipe in recipes:
        alike = recipe.model in (LOGISTIC, SVM) and recipe.alignment in same
        kept.setdefault((recipe.model, same if alike else recipe.alignment), recipe)
    return list(kept.values())


LOGISTIC, SVM, EEGNET = "entropy + logistic regression", "entropy + SVM", "EEGNet"
PROBE = "frozen encoder + logistic regression"
MODELS: dict[str, tuple[str, ...]] = {LOGISTIC: ALIGNMENTS, SVM: ALIGNMENTS, PROBE: ("none",), EEGNET: ALIGNMENTS}


def fit_baseline(recipe: Recipe, corpus: Corpus, split: Split,
                 encoder: EEGPT | FrozenTokens | None = None) -> Fitted:
    """Train a baseline on the training part of a split.

    Parameters
    ----------
    recipe : Recipe
        Which.
    corpus : Corpus
        Windows and labels; its own split plays no part.
    split : Split
        Trains on train, chooses on val.
    encoder : EEGPT or FrozenTokens, optional
        Of the linear probe; it must not have been trained with labels of these recordings.

    Raises
    ------
    ValueError
        If the recipe needs an encoder and none is given, or its tokens were made under another split.
    """
    if recipe.model == EEGNET:
        return Convolutional.fit(corpus, split, recipe.alignment, replace(EEGNET_FIT, steps=recipe.steps))
    if recipe.model == PROBE:
        if encoder is None:
            raise ValueError(f"'{PROBE}' needs an encoder: give one that has seen no label "
                             "(e2llm.training.stage1_encoder.new_encoder).")
        features = encoder if isinstance(encoder, FrozenTokens) else FrozenTokens(encoder, corpus.windows, split)
        if features.split is not split:
            raise ValueError("The frozen tokens were made under another split, which equalized the signals by other "
                             "rows: make them under this one.")
    else:
        features = Entropy(corpus.windows, split, recipe.alignment)
    candidates = support_vector_machines(len(split.train)) if recipe.model == SVM else logistic_regressions()
    return Classical.fit(features, candidates, corpus.labels, split)


# ---------------------------------------------------------------- ceiling


def oracle(truth: Path, index: pd.DataFrame, window_s: float = WINDOW_S) -> np.ndarray:
    """Answers of the classifier that knows the generating model, for windows of a twin.

    Parameters
    ----------
    truth : Path
        Ground-truth folder of the twin (:func:`e2llm.data.simulation.truth_folder`).
    index : DataFrame
        ``subject``, ``clip`` and ``start_s`` of the windows.
    window_s : float
        Their length in seconds. What counts is the simulated window of 4 s that holds their middle; the rest of a clip
        belongs to its last one.

    Returns
    -------
    ndarray of int
        Most probable class indices.

    Raises
    ------
    ValueError
        If the folder does not hold the truth of these windows.
    """
    try:
        effects = dict(read_yaml(truth / "twin.yaml")[0]["effects"])
        preset = Preset(**dict(effects, intensity=tuple(effects["intensity"])))
        refuse_bomb(truth / "truth.npz")
        with np.load(truth / "truth.npz") as stored:
            known = {name: stored[name] for name in stored.files}
        place = {key: i for i, key in enumerate(zip(known["subject"], known["clip"], known["window"], strict=True))}
        last = dict(zip(zip(known["subject"], known["clip"], strict=True), known["window"], strict=True))
        trials = list(zip(index["subject"].astype(int), index["clip"], strict=True))
        simulated = ((index["start_s"] + window_s / 2) // WINDOW_S).astype(int)
        rows = [place[(*trial, min(window, last[trial]))] for trial, window in zip(trials, simulated, strict=True)]
    except Exception as error:  # of numpy, zipfile or YAML, or another form
        raise ValueError(f"{truth} does not hold the ground truth of these windows ({type(error).__name__}: "
                         f"{one_line(error)}): simulate the twin again.") from error
    person = known["person_effects"][known["subject"][rows] - 1]
    return oracle_probabilities(known["latents"][rows], person, preset).argmax(axis=1)
