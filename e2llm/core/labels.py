"""Label sets: which answers a data source knows, and where they lie in valence and arousal.

The seven emotions belong to SEED-VII, not to the code: every stage takes a :class:`LabelSet`, and a
source with two labels (or eleven) runs through the same functions. Valence and arousal are optional;
tasks that need them say so when a source has none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .label_names import check_labels


@dataclass(frozen=True)
class LabelSet:
    """The closed set of answers of one data source.

    Parameters
    ----------
    name : str
        Name of the set, written into every manifest.
    labels : tuple of str
        The answers, in the order of their class index.
    valence, arousal : dict of str to float, optional
        Coordinates in [-1, 1] per label. Empty when the source has none.
    noun : str
        What a label is called in a question ("emotion", "state").
    """

    name: str
    labels: tuple[str, ...]
    valence: dict[str, float] = field(default_factory=dict)
    arousal: dict[str, float] = field(default_factory=dict)
    noun: str = "emotion"

    def __post_init__(self) -> None:
        if len(set(self.labels)) != len(self.labels):
            raise ValueError(f"Label set '{self.name}' names a label twice ({', '.join(self.labels)}): name each once.")
        if len(self.labels) < 2:
            raise ValueError(f"Label set '{self.name}' has {'only the label ' if self.labels else 'no label'}"
                             f"{', '.join(map(repr, self.labels))}: there must be two or more to tell apart.")
        check_labels(self.labels)
        for axis in ("valence", "arousal"):
            known = getattr(self, axis)
            if known and set(known) != set(self.labels):
                raise ValueError(f"Label set '{self.name}': {axis} must be given for all labels or for none.")

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> LabelSet:
        """A label set from its fields, as JSON holds them."""
        return cls(**{**stored, "labels": tuple(stored["labels"])})

    def only(self, present: Iterable[str]) -> LabelSet:
        """The set without labels that are not present, in the same order; ValueError if fewer than two are left."""
        there = set(present)
        kept = tuple(label for label in self.labels if label in there)
        if kept == self.labels:
            return self
        if len(kept) < 2:
            raise ValueError(f"Windows of '{self.name}' have {len(kept)} of the labels {', '.join(self.labels)}: two "
                             "or more are needed; see quality.csv for what was left out.")
        valence, arousal = ({label: known[label] for label in kept} if known else {}
                            for known in (self.valence, self.arousal))
        return LabelSet(self.name, kept, valence, arousal, self.noun)

    def __len__(self) -> int:
        return len(self.labels)

    def index(self, label: str) -> int:
        """Class index of a label; an unknown label raises ValueError naming the known ones."""
        if label not in self.labels:
            raise ValueError(f"'{label}' is not a label of '{self.name}' (known: {', '.join(self.labels)}).")
        return self.labels.index(label)

    @property
    def has_affect(self) -> bool:
        """Whether valence and arousal are known, and with them comparison and ranking tasks."""
        return bool(self.valence) and bool(self.arousal)

    @property
    def chance(self) -> float:
        """Balanced accuracy of a guess."""
        return 1.0 / len(self.labels)


# Russell, J. A. & Mehrabian, A. (1977). Evidence for a three-factor theory of emotions. Journal of
# Research in Personality 11, 273-294: mean pleasure and arousal ratings of joyful, surprised, disgusted,
# fearful (terrified), sad and angry; neutral is the origin by definition.
SEED_VII = LabelSet(
    name="seed-vii",
    labels=("happy", "surprise", "neutral", "disgust", "fear", "sad", "anger"),
    valence={"happy": 0.76, "surprise": 0.40, "neutral": 0.0, "disgust": -0.60, "fear": -0.64, "sad": -0.63,
             "anger": -0.51},
    arousal={"happy": 0.48, "surprise": 0.67, "neutral": 0.0, "disgust": 0.35, "fear": 0.60, "sad": -0.27,
             "anger": 0.59},
)
# The labels of EmoEEG-MC (Xu et al. 2025, Sci. Data; OpenNeuro ds005540, CC0). Coordinates are mean self-reports of
# valence and arousal, 0-7 there, laid on [-1, 1] here, of its subjects 02, 03 and 55 (120 trials; rows of their beh
# tables, which are in the order of time): three people of sixty, so an ordering of the labels and no norm. They call
# neutral pleasant to a slight degree.
EMOEEG_MC = LabelSet(
    name="emoeeg-mc",
    labels=("joy", "inspiration", "tenderness", "fear", "disgust", "sadness", "neutral"),
    valence={"joy": 0.33, "inspiration": 0.40, "tenderness": 0.47, "fear": -0.58, "disgust": -0.72, "sadness": -0.36,
             "neutral": 0.11},
    arousal={"joy": 0.03, "inspiration": -0.11, "tenderness": 0.12, "fear": 0.54, "disgust": 0.41, "sadness": 0.19,
             "neutral": -0.34},
)
# The labels of FACED (Chen et al. 2023, Sci. Data 10:740). No source for coordinates of all nine is at hand, so there
# are none: tasks that need valence or arousal are left out for it.
FACED = LabelSet(
    name="faced",
    labels=("anger", "disgust", "fear", "sadness", "neutral", "amusement", "inspiration", "joy", "tenderness"),
)


def emotions_spelled_otherwise(labels: Iterable[str]) -> dict[str, str]:
    """Labels that seem to be an emotion of SEED-VII, for which there are scenarios in words, in another spelling.

    Parameters
    ----------
    labels : iterable of str
        Such as "angry", "Happiness" or "fearful".

    Returns
    -------
    dict of str to str
        Label to emotion: "angry" to "anger".
    """
    stems = {emotion[: max(3, math.ceil(0.6 * len(emotion)))]: emotion for emotion in SEED_VII.labels}
    return {label: emotion for label in labels for stem, emotion in stems.items()
            if label not in SEED_VII.labels and label.isalpha() and label.casefold().startswith(stem)}


def plain_labels(name: str, labels: list[str], noun: str = "state") -> LabelSet:
    """A label set without affective coordinates, for sources such as rest against arithmetic.

    Parameters
    ----------
    name : str
        Name of the data source.
    labels : list of str
        Label names; sorted, so that the class index does not depend on file order.
    noun : str
        What a label is called in a question.
    """
    return LabelSet(name=name, labels=tuple(sorted(set(labels))), noun=noun)
