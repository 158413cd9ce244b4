"""Processes that train together divide every batch: nothing is lost, nothing counts twice, and sizes are equal."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2llm.core.chat import IGNORE
from e2llm.training import processes
from e2llm.training.processes import label_share, own_part, parts_with_sources


@pytest.fixture
def as_rank(monkeypatch):
    """``as_rank(i, n)``: pretend to be process i of n."""

    def pretend(i: int, n: int) -> None:
        monkeypatch.setattr(processes, "n_processes", lambda: n)
        monkeypatch.setattr(processes, "rank", lambda: i)

    return pretend


@st.composite
def batches(draw) -> tuple[list[int], int, int]:
    n_parts, n_own, n_edited = draw(st.integers(1, 4)), draw(st.integers(1, 6)), draw(st.integers(0, 6))
    sources = st.integers(-1, n_own * n_parts - 1)
    return draw(st.lists(sources, min_size=n_edited * n_parts, max_size=n_edited * n_parts)), n_own * n_parts, n_parts


@given(batches())
def test_every_place_is_in_one_part_and_all_parts_are_equally_large(batch):
    sources, n_own, n_parts = batch
    parts = parts_with_sources(sources, n_own, n_parts)
    assert sorted(place for part in parts for place in part) == list(range(n_own + len(sources)))
    assert {len(part) for part in parts} == {(n_own + len(sources)) // n_parts}
    size = n_own // n_parts
    assert [place for part in parts for place in part if place < n_own] == list(range(n_own))
    for i, part in enumerate(parts):
        at_home = sum(place >= n_own and 0 <= sources[place - n_own] // size == i for place in part)
        born_here = sum(source // size == i for source in sources if source >= 0)
        assert at_home == min(born_here, len(sources) // n_parts), "a window goes away only where its part is full"


def test_edited_windows_stay_beside_their_source_and_one_part_is_the_batch():
    assert parts_with_sources([3, 0, 2, 1], 4, 2) == [[0, 1, 5, 7], [2, 3, 4, 6]]
    assert parts_with_sources([0, 0, 1, -1], 4, 2) == [[0, 1, 4, 5], [2, 3, 6, 7]], "its part is full, or it has none"
    assert parts_with_sources([3, 0, 2, 1], 4, 1) == [list(range(8))]


@pytest.mark.parametrize(("n_own", "n_edited"), [(3, 2), (4, 3)])
def test_windows_that_cannot_be_divided_are_refused(n_own, n_edited):
    with pytest.raises(ValueError, match=f"A batch of {n_own} windows and {n_edited} augmented ones cannot be divided"):
        parts_with_sources([0] * n_edited, n_own, 2)


def test_parts_of_a_batch_follow_each_other(as_rank):
    assert own_part([1, 2, 3]) == [1, 2, 3]
    parts = []
    for i in range(3):
        as_rank(i, 3)
        parts += own_part(list("abcdef"))
    assert parts == list("abcdef")
    with pytest.raises(ValueError, match="A batch of 4 cannot be divided among 3 processes"):
        own_part([1, 2, 3, 4])


def test_weighted_means_over_labels_have_the_mean_of_the_whole_batch(as_rank):
    losses = [np.array(values) for values in ([1.0, 2.0, 3.0], [4.0], [5.0, 6.0], [7.0])]
    examples = [{"labels": [9, IGNORE, *range(len(values))]} for values in losses]  # nothing predicts the first one
    found = []
    for i in range(2):
        as_rank(i, 2)
        found.append(label_share(examples) * np.concatenate(own_part(losses)).mean())
    assert np.mean(found) == pytest.approx(np.concatenate(losses).mean(), rel=1e-12)
