"""Sizes that a plan counts with: how much is recorded, and how many tokens an item has."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from ..data.protocols import PROTOCOLS
from ..data.sources.seed_vii import clip_emotion
from .parameters import Parameters


class PlanError(ValueError):
    """A plan cannot be made; the message says what is missing."""


# ---------------------------------------------------------------- recordings


class Size(NamedTuple):
    """How much is recorded.

    Parameters
    ----------
    people, clips : int
        People, and clips of each.
    seconds : float
        Of all clips of one person.
    windows : int
        Of one person.
    raw_bytes : float
        Of all files; 0 where it is not known.
    """

    people: int
    clips: int
    seconds: float
    windows: int
    raw_bytes: float = 0.0


MANY = 5000  # people at most whose shares are counted one by one
SEED_SECONDS, SEED_WINDOWS = 14_097.86, 3524  # of a person of SEED-VII: all clips, and whole windows of 4 s
# People, clips, seconds of a clip that are used, as the data sets describe themselves.
OTHERS = {"emoeeg-mc": (60, 42, 30.0), "faced": (123, 28, 30.0)}
CHANNELS = {"faced": 30}  # of a source that the encoder was trained on; others may have all 58 of SEED-VII


def size_of(values: Parameters, people: int | None = None, clips: int | None = None,
            seconds: float | None = None) -> Size:
    """Size of the recordings that parameters ask for, unless they are given.

    Parameters
    ----------
    values : Parameters
        ``source``, ``twin_preset`` and so on.
    people, clips : int, optional
        People, and clips of each.
    seconds : float, optional
        Mean length of a clip.

    Raises
    ------
    PlanError
        If the source says nothing of its size.
    """
    window = values.window_s
    if values.source in ("seed-vii", "seed-vii-raw") and not (values.twin_preset and seconds is None):
        n = _people(values, people, 20)
        if clips is None and seconds is None:
            windows = SEED_WINDOWS if window == 4 else int(SEED_SECONDS / window - 80 * 0.5)
            return Size(n, 80, SEED_SECONDS, windows, n * SEED_SECONDS * 62 * 200 * 8)
    elif values.source in ("seed-vii", "seed-vii-raw"):
        from ..data.simulation import TwinParams, clip_seconds

        if clips is not None:
            raise PlanError("The simulated twin has 80 clips: leave --clips out, or give twin_preset= and --seconds.")
        n = _people(values, people, values.twin_subjects)
        each = clip_seconds(TwinParams(subjects=n, preset=values.twin_preset, seed=values.twin_seed), 1)
        return Size(n, 80, float(each.sum()), int((each // window).sum()), n * float(each.sum()) * 62 * 200 * 4)
    known = OTHERS.get(values.source)
    if known is None and values.source not in ("seed-vii", "seed-vii-raw") and None in (people, clips, seconds):
        raise PlanError(f"A folder of the kind {values.source!r} does not say its size before it is read: give "
                        "--people, --clips and --seconds.")
    known = known or (values.twin_subjects if values.twin_preset else 20, 80, SEED_SECONDS / 80)
    n, n_clips, length = _people(values, people, known[0]), clips or known[1], seconds or known[2]
    return Size(n, n_clips, n_clips * length, int(n_clips * (length // window)))


def _people(values: Parameters, there: int | None, known: int) -> int:
    """Of those that are there, a run takes the first ``subjects``."""
    there = there or known
    return min(there, values.subjects or there)


def split_shares(values: Parameters, size: Size) -> dict[str, float]:
    """Shares of all windows that train, validate and test, by the protocol itself on clips of equal length.

    Parameters
    ----------
    values : Parameters
        With protocol, fold and groups.
    size : Size
        People, clips and seconds.

    Raises
    ------
    ValueError
        If the protocol cannot be served.
    """
    seed = size.clips == 80
    emotions = [clip_emotion(clip) for clip in range(1, 81)] if seed else [f"label {i % 7}" for i in range(size.clips)]
    # Groups of people are of equal size, so more people change nothing; one left out is a smaller share of more.
    few = 0 < values.n_groups <= 200 and values.protocol != "within_subject"
    people = min(size.people, 200 if few else MANY)
    index = pd.DataFrame({"subject": np.repeat([str(i + 1) for i in range(people)], size.clips),
                          "clip": np.tile(np.arange(1, size.clips + 1), people), "label": emotions * people})
    index["session"] = (index["clip"] - 1) // 20 + 1
    index["context"] = np.where(index["clip"] % 14 < 7, "a", "b")
    masks = PROTOCOLS[values.protocol].masks(index, fold=values.fold, n_groups=values.n_groups)
    return {name: float(masks[name].mean()) for name in ("train", "val", "test")}


# ---------------------------------------------------------------- items


class ItemSize(NamedTuple):
    """Mean size of an item of a kind: its segments, and tokens of its text. A word takes 1.2 tokens.

    Vocabularies differ by a token or two in these texts; in their chat templates (:class:`Marks`) they differ more.
    """

    segments: float
    question: float
    thought: float
    answer: float


ITEMS: dict[str, ItemSize] = {
    "predict": ItemSize(1, 9, 32, 2), "describe": ItemSize(1, 6.5, 25, 32), "select": ItemSize(1, 18, 18, 1),
    "compare": ItemSize(2, 14.5, 15, 1), "rank": ItemSize(3.2, 21, 25, 5.5), "match": ItemSize(3, 36, 18, 1),
    "choose": ItemSize(1, 67, 18, 1), "scenario": ItemSize(0, 29, 5.5, 2),
}  # fmt: skip
GRADED_ITEMS = {**ITEMS, "predict": ItemSize(1, 9, 86, 2), "describe": ItemSize(1, 6.5, 76, 47)}
LEVEL_TABLE = ItemSize(0, 60, 0, 2)  # a question of the second pass
IN_WORDS = {"low_high": 27.0, "graded": 65.0}  # tokens of a segment that stands in words with its evidence
BRIEF_WORDS = 4.0  # without it


class Marks(NamedTuple):
    """Tokens that a chat template and a thought add to an item."""

    thinking: float  # the turns around a question that a thought follows
    plain: float  # the same with an empty thought
    thought: float  # around the words of a thought
    end: float = 1.0  # of the answer


# SmolLM2 has a system message of its own, and cuts <think> into pieces. Others are planned as Qwen3, which do neither.
MARKS = {"smollm2": Marks(30, 39, 9), "e2llm-tiny": Marks(10, 14, 5), "scratch": Marks(10, 14, 5)}
MARKS_OF_OTHERS = Marks(8, 12, 5)
