"""A SEED-VII folder against itself: layout, clips, lengths, order of channels, and which labels are missing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from scipy.io import whosmat

from ...core.files import one_line
from ...core.montage import SEED_CHANNELS, canonical
from .base import Flaw, RecordingError
from .seed_vii import CLIP_SLACK_S, CLIPS_A_SESSION, SeedVII, is_number, read_clock
from .tables import read_excel

_PARTS = ("EEG_preprocessed", "EEG_raw", "EEG_features", "continuous_labels", "save_info")


def describe(source: SeedVII) -> list[str]:
    """Sentences about what the folder holds."""
    there = [name for name in _PARTS if (source.root / name).is_dir()]
    lines = [f"folders: {', '.join(there)}; not there: {', '.join(sorted(set(_PARTS) - set(there))) or 'none'}",
             f"the stimuli order lists {len(source.emotions)} clips"]
    counts = {recording.name: len(_lengths(recording.path)) for recording in source.recordings}
    usual = sorted(set(counts.values()))
    return [*lines, f"clips a file: {', '.join(map(str, usual))}"]


def _lengths(path: Path) -> dict[int, int]:
    """Samples of every clip of a file; none if it is unreadable, which the source itself reports."""
    try:
        return {int(key): shape[1] for key, shape, _ in whosmat(path) if is_number(key) and len(shape) == 2}
    except Exception:
        return {}


def seed_flaws(source: SeedVII) -> Iterator[tuple[str, Flaw]]:
    """What does not fit together: name of the recording, or of the table, and what is wrong.

    Parameters
    ----------
    source : SeedVII
        Opened.
    """
    yield from _channel_order(source.root)
    for recording in source.recordings:
        lengths = _lengths(recording.path)
        if not (source.root / "continuous_labels" / f"{recording.subject}.mat").is_file():
            yield recording.name, Flaw("warn", "no intensities", f"continuous_labels has no {recording.subject}.mat",
                                       "copy it if intensities are wanted; labels do not need it")
        tables = sorted((source.root / "save_info").glob(f"{recording.subject}_*_trigger_info.csv"))
        if not tables:
            yield recording.name, Flaw("warn", "no log", f"save_info has no table of subject {recording.subject}",
                                       "copy save_info: it shows whether labels and lengths are right")
        for path in tables:
            yield from ((recording.name, flaw) for flaw in _against_clock(path, lengths, source.sfreq))
    sessions = {(clip - 1) // CLIPS_A_SESSION for clip in source.emotions}
    if len(source.emotions) % CLIPS_A_SESSION or sessions != set(range(len(sessions))):
        yield "emotion_label_and_stimuli_order.xlsx", Flaw("warn", "stimuli order", f"it lists {len(source.emotions)} "
                                                           "clips, not 20 a session", "copy the original file")


def _against_clock(path: Path, lengths: dict[int, int], sfreq: float) -> Iterator[Flaw]:
    """Lengths of clips against the times of the triggers."""
    named = path.name.split("_")[2]
    if not is_number(named):
        yield Flaw("warn", "log", f"{path.name} names no session", "give it the name of the original again")
        return
    try:
        clock, session = read_clock(path) or [], int(named)
    except RecordingError as error:
        yield Flaw("warn", "log", str(error), "copy the table again")
        return
    for place, (start, stop) in enumerate(clock, start=1):
        clip = (session - 1) * CLIPS_A_SESSION + place
        seconds, known = lengths.get(clip, 0) / sfreq, (stop - start).total_seconds()
        if clip in lengths and abs(seconds - known) > CLIP_SLACK_S:
            yield Flaw("refuse", "clip length", f"clip {clip} lasts {seconds:.1f} s, but {known:.1f} s by {path.name}",
                       "one of the two is of another recording: copy both again")


def _channel_order(root: Path) -> Iterator[tuple[str, Flaw]]:
    path = root / "Channel Order.xlsx"
    if not path.is_file():
        yield path.name, Flaw("warn", "channel order", "the table of channels is missing", "copy it: it shows whether "
                              "the order is the published one")
        return
    try:
        names = [canonical(str(cell)) for cell in read_excel(path, dtype=str).iloc[:, 0]]
    except Exception as error:
        yield path.name, Flaw("warn", "channel order", f"it is unreadable ({one_line(error)})", "copy it again")
        return
    if tuple(name for name in names if name in SEED_CHANNELS) != SEED_CHANNELS:
        yield path.name, Flaw("refuse", "channel order", f"it begins with {', '.join(names[:6])}, which is not the "
                              "published order", "these files are of another version; channels are never guessed")
