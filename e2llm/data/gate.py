"""The gate: a recording becomes windows only through :func:`admit`, in a run, for ``ask`` and for ``check``.

What is looked at, and what it means, stands in :mod:`e2llm.data.checks`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..core.montage import eegpt_channels
from .checks import (
    RecordingFacts,
    SignalWatch,
    add_trial,
    judge_before,
    judge_recording,
    judge_together,
    judge_trial,
    lowest_rate,
    settle,
)
from .cleaning import windows_of
from .features import measure
from .preprocess_params import PreprocessParams
from .sources.base import Recording, RecordingError, Source, SourceError, Trial


class Admitted(NamedTuple):
    """Windows of a trial that may be used: signal, features, their places in the trial, and repaired channels."""

    windows: np.ndarray
    power: np.ndarray
    shape: np.ndarray
    places: np.ndarray
    bad: list[str]


def admit(trial: Trial, ch_names: Sequence[str], params: PreprocessParams, facts: RecordingFacts,
          folder: Path | None = None) -> Admitted | None:
    """Windows of a trial that pass the gate: the only way from a recording to windows, in a run and for ``ask``.

    Parameters
    ----------
    trial : Trial
        Signal in microvolts.
    ch_names : sequence of str
        Channels of the windows.
    params : PreprocessParams
        Filter edges, rate and window.
    facts : RecordingFacts
        Of the recording; what is found is noted there.
    folder : Path, optional
        Whose disk holds the windows of a long trial until they are let go; by default they are in memory.

    Returns
    -------
    Admitted or None
        None if the trial is left out as a whole.

    Raises
    ------
    RecordingError
        If the recording cannot be used; see :func:`clean`.
    """
    before = judge_before(trial, params.window_s, lowest_rate(params.h_freq, params.h_trans))
    facts.add(before)
    for flaw in before:
        if flaw.severity == "refuse":
            raise RecordingError(f"{facts.name}: {flaw}")
        return None
    watch = SignalWatch(trial.signal, trial.sfreq, params.window_s)
    windows, bad = windows_of(replace(trial, signal=watch), ch_names, params, folder)
    power, shape = measure(windows, params.sfreq, list(ch_names))
    kept, flaws = judge_trial(trial, watch, power, shape, params.window_s)
    facts.add(flaws)
    places = np.flatnonzero(kept)
    if len(places) < len(windows):
        for i, place in enumerate(places):  # in place: the windows of a long trial are there once
            windows[i] = windows[place]
        windows, power, shape = windows[: len(places)], power[places], shape[places]
    add_trial(facts, trial, watch, windows, power, ch_names, len(kept) - len(places))
    return Admitted(windows, power, shape, places, bad) if len(places) else None


def settle_recording(facts: RecordingFacts, params: PreprocessParams) -> None:
    """Judge a recording whose trials have been admitted; RecordingError if none was, or if it has a grave fault.

    Parameters
    ----------
    facts : RecordingFacts
        What was noted of it.
    params : PreprocessParams
        With the quality that is asked for.
    """
    found = settle(judge_recording(facts), params.quality)
    facts.add(found)
    if grave := [flaw for flaw in found if flaw.severity == "refuse"]:
        raise RecordingError(f"{facts.name}: {grave[0]}")
    if not facts.windows:
        reason = f"; the first reason: {facts.flaws[0]['fact']}" if facts.flaws else ""
        raise RecordingError(f"{facts.name} has no window that can be used{reason}: see the findings.")


def admitted_trials(source: Source, recording: Recording, ch_names: Sequence[str], params: PreprocessParams,
                    facts: RecordingFacts, folder: Path | None = None) -> Iterator[tuple[Trial, Admitted]]:
    """Trials of a recording with their windows that pass the gate; RecordingError, also at the end, if it is refused.

    Parameters
    ----------
    source : Source
        Opened.
    recording : Recording
        Of the source.
    ch_names, params, facts, folder
        As in :func:`admit`.
    """
    for trial in source.trials(recording):
        if (admitted := admit(trial, ch_names, params, facts, folder)) is not None:
            yield trial, admitted
    settle_recording(facts, params)


def first_trial(source: Source, params: PreprocessParams) -> tuple[Trial, dict[str, str]]:
    """The first trial that passes the gate, to look at.

    Parameters
    ----------
    source : Source
        Opened.
    params : PreprocessParams
        As for :func:`write_windows`.

    Returns
    -------
    trial : Trial
        Of the first recording that could be used by itself.
    passed_over : dict of str to str
        Recordings before it, and why not they.

    Raises
    ------
    SourceError
        If there is none.
    """
    passed_over: dict[str, str] = {}
    for recording in source.recordings:
        facts = RecordingFacts(recording.name, recording.subject)
        try:
            for trial in source.trials(recording):
                if admit(trial, eegpt_channels(list(trial.ch_names), params.trained_only), params, facts) is not None:
                    break
            settle_recording(facts, params)
        except (RecordingError, ValueError) as error:
            passed_over[recording.name] = str(error)
        else:
            return trial, passed_over
    reason = next(iter(passed_over.values()), "the source has none")
    raise SourceError(f"No recording of {source.root} could be used; the first reason: {reason}")


def compare(noted: dict[str, RecordingFacts], skipped: dict[str, str], params: PreprocessParams) -> None:
    """Judge recordings beside each other.

    Parameters
    ----------
    noted : dict of str to RecordingFacts
        Recording to its facts; what is found is noted there.
    skipped : dict of str to str
        Recordings that are left out, and the reason; more are added.
    params : PreprocessParams
        Whose ``quality`` counts.
    """
    for name, flaws in judge_together({name: facts for name, facts in noted.items() if name not in skipped}).items():
        found = settle(flaws, params.quality)
        noted[name].add(found)
        if grave := [flaw for flaw in found if flaw.severity == "refuse"]:
            skipped[name] = f"{name}: {grave[0]}"
