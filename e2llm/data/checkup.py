"""The doctor for data: a folder of any source is opened, and every recording passes the gate, without a run.

What a run would leave out is found here in the same way, by the same functions, and nothing is written.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mne
import pandas as pd
from joblib import Parallel, delayed
from threadpoolctl import threadpool_limits

from ..core.files import checksum, visible_files
from ..core.montage import SEED_CHANNELS, eegpt_channels
from .checks import RecordingFacts, as_flaw, quality_tables
from .common_channels import agreed_channels, usable_recordings
from .gate import admitted_trials, compare
from .preprocess_params import PreprocessParams
from .sources import open_source
from .sources.base import Flaw, Recording, RecordingError, Source, SourceError
from .sources.folder import LabelledFolder
from .sources.samples import holds_samples
from .sources.seed_checks import describe, seed_flaws
from .sources.seed_vii import SeedVII
from .sources.tables import saved_as
from .supplied_features import features_beside_ours

# What lies in the folder of a kind of source, the more special first.
_MARKS = (("labels.csv", "folder"), ("EEG_preprocessed", "seed-vii"), ("EEG_raw", "seed-vii-raw"),
          ("Processed_data", "faced"), ("dataset_description.json", "bids"))
_SIGNALS = {".edf", ".bdf", ".gdf", ".vhdr", ".set", ".fif", ".cnt", ".cdt", ".mff"}


@dataclass(frozen=True)
class Checkup:
    """Result of :func:`check_folder`.

    Parameters
    ----------
    root : Path
        The folder.
    kind : str
        Kind of source.
    well : list of str
        Facts that are as they should be.
    findings : DataFrame
        As :func:`e2llm.data.checks.quality_tables` makes it.
    recordings : DataFrame
        One row a recording.
    """

    root: Path
    kind: str
    well: list[str]
    findings: pd.DataFrame
    recordings: pd.DataFrame

    @property
    def ok(self) -> bool:
        """Whether a run would use every recording and every window."""
        return not self.findings["severity"].isin(["refuse", "drop"]).any()

    def __str__(self) -> str:
        lines = [f"{self.root} as '{self.kind}'", *(f"  well: {fact}" for fact in self.well)]
        for row in self.findings.itertuples():
            lines.append(f"  {row.severity}: {row.recording}: {row.rule}: {row.fact}: {row.remedy}")
        counts = self.findings["severity"].value_counts()
        said = ", ".join(f"{counts[name]} {name}" for name in ("refuse", "drop", "warn") if name in counts)
        return "\n".join([*lines, f"  findings: {said or 'none'}"])


def kind_of(root: Path) -> str:
    """Kind of source that a folder seems to be.

    Parameters
    ----------
    root : Path
        The folder.

    Raises
    ------
    SourceError
        If it is no folder, or holds none of the files that tell.
    """
    if not root.is_dir():
        raise SourceError(f"{root} is not a folder: give the folder of the recordings.")
    readme = root / "README.md"
    if readme.is_file() and "vid-" in readme.read_text("utf-8", "replace") and any(root.glob("sub-*/eeg")):
        return "emoeeg-mc"
    for name, kind in _MARKS:
        if (root / name).exists():
            return kind
    if any(root.glob("sub-*/eeg")) or any(root.glob("sub-*/ses-*/eeg")):
        return "bids"
    raise SourceError(f"{root} holds none of {', '.join(name for name, _ in _MARKS)}: name the kind by --source, or "
                      "write a labels.csv.")


def check_folder(root: str | Path, kind: str = "", params: PreprocessParams | None = None, n_jobs: int = 2,
                 **options) -> Checkup:
    """Open a folder, pass every recording through the gate, and say what is well and what is not.

    Parameters
    ----------
    root : path
        The folder.
    kind : str
        Kind of source, a key of :data:`e2llm.data.sources.SOURCES`; empty: by what the folder holds.
    params : PreprocessParams, optional
        Of the windows that a run would cut.
    n_jobs : int
        Recordings read at a time.
    **options
        Of the source.

    Returns
    -------
    Checkup
        A folder that cannot be opened as this kind has one finding, with the reason.

    Raises
    ------
    SourceError
        If the kind is not given and cannot be seen.
    """
    root, params = Path(root).expanduser(), params or PreprocessParams()
    kind = kind or kind_of(root)
    try:
        source = open_source(kind, root, **options)
        noted, skipped = _examine(source, params, n_jobs)
    except (SourceError, ValueError) as error:
        findings, recordings = quality_tables([], {}, {})
        findings.loc[0] = [root.name, "", *vars(as_flaw("source", str(error))).values()]
        return Checkup(root, kind, [], findings, recordings)
    extra: dict[str, list[Flaw]] = defaultdict(list)
    for name, flaw in _about_source(source):
        extra[name].append(flaw)
    beside: list[str] = []
    if isinstance(source, SeedVII):
        signals = {one.subject: one.path for one in source.recordings if one.name not in skipped}
        beside, flaws_of_features = features_beside_ours(root, signals, source.sfreq, SEED_CHANNELS)
        for name, flaw in flaws_of_features:
            extra[name].append(flaw)
    for name, flaws in extra.items():
        noted.setdefault(name, RecordingFacts(name)).add(flaws)
    names = [recording.name for recording in source.recordings]
    others = [name for name in extra if name not in names]
    findings, recordings = quality_tables([*others, *names], noted, skipped)
    return Checkup(root, kind, [*_well(source, recordings.iloc[len(others) :]), *beside], findings,
                   recordings.iloc[len(others) :].reset_index(drop=True))


def _examine(source: Source, params: PreprocessParams,
             n_jobs: int) -> tuple[dict[str, RecordingFacts], dict[str, str]]:
    """Facts of the recordings whose signal could be read, and reasons of those that a run would leave out."""
    channels, skipped = usable_recordings(source, params.wanted)
    usable, _ = agreed_channels(channels, params.wanted, params.missing)
    ch_names = eegpt_channels(usable, params.trained_only)
    todo = [recording for recording in source.recordings if recording.name not in skipped]

    def examine(recording: Recording) -> tuple[RecordingFacts, str]:
        facts = RecordingFacts(recording.name, recording.subject)
        try:
            for _ in admitted_trials(source, recording, ch_names, params, facts):
                pass
        except RecordingError as error:
            return facts, str(error)
        return facts, ""

    with threadpool_limits(1):
        found = Parallel(n_jobs=n_jobs, backend="threading")(delayed(examine)(recording) for recording in todo)
    noted = {facts.name: facts for facts, _ in found}
    skipped |= {facts.name: reason for facts, reason in found if reason}
    compare(noted, skipped, params)
    return noted, skipped


def _about_source(source: Source) -> Iterator[tuple[str, Flaw]]:
    """Findings about the files of a source, beside those about signals."""
    yield from source.remarks()
    if isinstance(source, SeedVII):
        yield from seed_flaws(source)
    if isinstance(source, LabelledFolder):
        yield from _about_table(source)
    contents: dict[str, str] = {}
    for recording in source.recordings:
        if not recording.path.is_file():
            continue
        if (other := contents.setdefault(checksum(recording.path), recording.name)) != recording.name:
            yield recording.name, Flaw("refuse", "same file", f"it holds the same bytes as {other}", "copy the right "
                                       "file, or keep one of the two")
        for text in _said_by_mne(recording.path):
            yield recording.name, Flaw("warn", "MNE says", text, "see whether it concerns the labels")


def _about_table(source: LabelledFolder) -> Iterator[tuple[str, Flaw]]:
    name = source.table_path.name
    listed = {recording.path.resolve() for recording in source.recordings}  # or folders that are recordings
    there = [file for file, path in visible_files(source.root)
             if path.suffix.lower() in _SIGNALS or (path != source.table_path and holds_samples(path))]
    if left := [file for file in there if not listed & {(path := (source.root / file).resolve()), *path.parents}]:
        yield name, Flaw("warn", "not in the table", f"{len(left)} recordings have no line: {', '.join(left[:5])}",
                         "add a line for each, or leave them out on purpose")


def _said_by_mne(path: Path) -> list[str]:
    """What MNE warns of when it opens a file; nothing if it cannot, which the source reports."""
    if path.suffix.lower() not in _SIGNALS:
        return []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            mne.io.read_raw(path, preload=False, verbose="warning")
        except Exception:
            return []
    return list(dict.fromkeys(" ".join(str(one.message).split()) for one in caught
                              if issubclass(one.category, RuntimeWarning)))


def _well(source: Source, recordings: pd.DataFrame) -> list[str]:
    """What is as it should be, in sentences."""
    used = recordings[recordings["used"]]
    lines = [f"{len(used)} of {len(recordings)} recordings of {recordings['subject'].nunique()} people can be used",
             f"labels: {', '.join(source.label_set.labels)}"]
    if len(used):
        rates = ", ".join(f"{rate:g}" for rate in sorted(used["sfreq"].unique()))
        lines += [f"{used['windows'].sum()} windows, {used['dropped'].sum()} left out",
                  f"rates: {rates} Hz; channels: {used['channels'].min():g} to {used['channels'].max():g}",
                  f"EEG of {used['amplitude_uv'].min():.3g} to {used['amplitude_uv'].max():.3g} µV"]
    if isinstance(source, SeedVII):
        lines += describe(source)
    if isinstance(source, LabelledFolder):
        lines.append(f"{source.table_path.name} is read as {saved_as(source.table_path)}")
    if not getattr(source, "names_clips", True):
        lines.append("no column says what was shown (clip): every trial is a clip of its own")
    return lines
