"""Small data sets in the layouts of other people, written by hand: Neuroscan CNT, GDF, raw SEED-VII, EmoEEG-MC."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Sequence
from pathlib import Path

import mne
import mne_bids
import numpy as np
import pandas as pd
from edfio import Edf, EdfAnnotation, EdfSignal
from scipy.io import loadmat
from scipy.signal import resample_poly

from e2llm.core.labels import SEED_VII
from e2llm.core.montage import SEED_CHANNELS, canonical, make_info
from e2llm.data.emotion_effects import PRESETS, draw_intensity, draw_latents, draw_person
from e2llm.data.simulation import SFREQ, _clip_signal, _topographies
from e2llm.data.sources.emoeeg_mc import EMOTION_OF, RATED, STIMULI

EXTRA = ("M1", "M2", "ECG", "HEO", "VEO")  # further channels of SEED-VII

# The 64 names of EmoEEG-MC, in its order and spelling.
EMOEEG_CHANNELS = re.findall(
    r"\w+",
    """
Fp1 Fpz Fp2 AF7 AF3 AF4 AF8 F7 F5 F3 F1 Fz F2 F4 F6 F8 FT7 FC5 FC3 FC1 FCz FC2 FC4 FC6 FT8 T7 C5 C3 C1 Cz C2 C4 C6 T8
TP7 CP5 CP3 CP1 CPz CP2 CP4 CP6 TP8 P7 P5 P3 P1 Pz P2 P4 P6 P8 PO7 PO3 POz PO4 PO8 O1 Oz O2 F9 F10 TP9 TP10
""",
)


def write_cnt(
    path: Path,
    names: list[str],
    microvolts: np.ndarray,
    sfreq: int,
    triggers: list[tuple[int, int]],
    bits: int = 32,
    microvolts_a_step: float = 0.01,
) -> None:
    """A continuous Neuroscan file: 900 bytes of header, 75 a channel, samples of all channels in turn.

    A table of events of type 1.

    ``triggers`` are (sample, code). Layout: the fields that ``mne.io.read_raw_cnt`` reads, after
    paulbourke.net/dataformats/eeg.
    """
    n_channels, n_samples = microvolts.shape
    header = bytearray(900)
    header[225:237] = b"10/01/22\0\0\0\0"
    header[235:247] = b"14:00:00\0\0\0\0"
    start = 900 + 75 * n_channels
    n_bytes = bits // 8
    struct.pack_into("<H", header, 370, n_channels)
    struct.pack_into("<H", header, 376, sfreq)
    struct.pack_into("<i", header, 864, n_samples)
    struct.pack_into("<i", header, 886, start + n_samples * n_channels * n_bytes)
    electrodes = bytearray(75 * n_channels)
    for i, name in enumerate(names):
        at = 75 * i
        electrodes[at : at + len(name)] = name.encode()
        struct.pack_into("<ff", electrodes, at + 19, np.cos(i), np.sin(i))
        struct.pack_into("<h", electrodes, at + 47, 0)
        struct.pack_into("<f", electrodes, at + 59, 204.8 * microvolts_a_step)
        struct.pack_into("<f", electrodes, at + 71, 1.0)
    samples = np.round(microvolts.T / microvolts_a_step).astype(f"<i{n_bytes}")
    events = b"".join(struct.pack("<HBcl", code, 0, b"\0", start + (sample + 1) * n_channels * n_bytes)
                      for sample, code in triggers)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(header) + bytes(electrodes) + samples.tobytes() + struct.pack("<Bll", 1, len(events), 0)
                     + events)


def write_persyst(path: Path, names: Sequence[str], microvolts: np.ndarray, sfreq: int) -> Path:
    """A Persyst recording: a text ``.lay`` and a ``.dat`` of 32-bit integers, sample by sample."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.round(microvolts.T / 0.01).astype("<i4").tofile(path.with_suffix(".dat"))
    facts = {"File": f"{path.stem}.dat", "FileType": "Interleaved", "SamplingRate": sfreq, "HeaderLength": 0,
             "Calibration": 0.01, "WaveformCount": len(names), "DataType": 7}
    patient = {"First": "", "MI": "", "Last": "", "Sex": "", "Hand": "",
               "BirthDate": "01/02/1990", "TestDate": "10/01/2022",
               "TestTime": "14:00:00", "ID": "1"}
    places = {f"{name}-Ref": number for number, name in enumerate(names, start=1)}
    sections = {"FileInfo": facts, "Patient": patient, "SampleTimes": {0: 0.0}, "ChannelMap": places}
    lines = [line for title, section in sections.items()
             for line in (f"[{title}]", *(f"{key}={value}" for key, value in section.items()))]
    path.write_text("\n".join([*lines, "[Comments]", ""]), encoding="utf-8")
    return path


def write_seed_raw(twin: Path, bits: int = 32, sfreq: int = 1000) -> dict[str, list[tuple[float, float]]]:
    """Add ``EEG_raw`` to a twin of SEED-VII from its own clips.

    Returns start and end seconds of the clips of every recording.
    """
    times = {}
    for table in sorted((twin / "save_info").glob("*_trigger_info.csv")):
        stem = table.name.removesuffix("_trigger_info.csv")
        subject, _, session = stem.split("_")
        clips = loadmat(twin / "EEG_preprocessed" / f"{subject}.mat")
        rows = pd.read_csv(table, header=None)
        clock = (pd.to_datetime(rows[1]) - pd.Timestamp(rows[1][0])).dt.total_seconds().to_numpy() + 3.0
        starts, stops = clock[::2], clock[1::2]
        signal = np.random.default_rng(0).normal(0, 5, (62 + len(EXTRA), round((stops[-1] + 2.0) * sfreq)))
        for place, start in enumerate(starts):
            own = resample_poly(clips[str((int(session) - 1) * 20 + place + 1)], sfreq, 200, axis=1)
            signal[:62, round(start * sfreq) : round(start * sfreq) + own.shape[1]] = own
        triggers = [(round(time * sfreq), code) for pair in zip(starts, stops, strict=True)
                    for time, code in zip(pair, (1, 2), strict=True)]
        # the amplifier wrote the other channels among the 62
        order = [*range(10), 62, 63, *range(10, 40), 64, *range(40, 62), 65, 66]
        names = [*SEED_CHANNELS, *EXTRA]
        write_cnt(twin / "EEG_raw" / f"{stem}.cnt", [names[i] for i in order], signal[order], sfreq, triggers, bits)
        times[stem] = list(zip(starts, stops, strict=True))
    return times


def _extended(signal: np.ndarray) -> np.ndarray:
    """From the 62 channels of SEED-VII to the 64 of EmoEEG-MC, microvolts.

    Those that the first cap lacks by MNE's splines.
    """
    wanted = [canonical(name) for name in EMOEEG_CHANNELS]
    lacking = [name for name in wanted if name not in SEED_CHANNELS]
    raw = mne.io.RawArray(signal * 1e-6, make_info(list(SEED_CHANNELS), SFREQ), verbose="error")
    raw.add_channels([mne.io.RawArray(np.zeros((len(lacking), raw.n_times)), make_info(lacking, SFREQ),
                                      verbose="error")], force_update_info=True)
    raw.info["bads"] = lacking
    raw.interpolate_bads(reset_bads=True, verbose="error")
    return raw.get_data(picks=wanted, units="uV")


# Which emotion of the SEED-VII twin lends its effects to a label of EmoEEG-MC: the sizes are what matters, not the
# names.
LENDER = {
    "joy": "happy",
    "inspiration": "surprise",
    "tenderness": "anger",
    "fear": "fear",
    "disgust": "disgust",
    "sadness": "sad",
    "neutral": "neutral",
}
CODES = {"video": 33, "imagery": 32, "rating": 31, "fade": 30}


def write_emoeeg(root: Path, subjects: int = 4, seconds: float = 9.2, runs: dict[str, int] | None = None, seed: int = 0,
                 per_label: int = 3) -> dict[str, list[tuple]]:
    """A twin of EmoEEG-MC: README, participants, EDF files with annotations, ratings.

    Effects of each label as in the twin of SEED-VII.

    Every second imagery ends with presses of the button, 2 s before its rating. ``runs`` are EDF files of a subject, 1
    by default.
    Returns, for every subject, the trials in the order of time: (context, stimulus, end of the trial in its file, run).
    """
    stimuli = [name for name in STIMULI if int(name[-1]) in (4, 5, 8)[:per_label]]
    root.mkdir(parents=True)
    people = [f"{number:02d}" for number in range(1, subjects + 1)]
    rng = np.random.default_rng(seed)
    orders = {who: [stimuli[i] for i in rng.permutation(len(stimuli))] for who in people}
    listed = "\n".join(f"{int(who)}. `{orders[who]}`" for who in people)
    spelled = f"vid-{CODES['video']}  ima-{CODES['imagery']}, fade-{CODES['fade']} rating-{CODES['rating']}"
    codes = "\n".join(f"     sub-{who}: {spelled}" for who in people)
    (root / "README.md").write_text(f"# A twin\n\n`reorder = {list(STIMULI)}`\n\n{listed}\n\n{codes}\n",
                                    encoding="utf-8")
    (root / "dataset_description.json").write_text(json.dumps({"Name": "twin of EmoEEG-MC", "BIDSVersion": "1.6.0",
                                                               "DatasetType": "raw"}))
    participants = pd.DataFrame({"participant_id": [f"sub-{who}" for who in people], "age": 22, "gender": "F"})
    participants.to_csv(root / "participants.tsv", sep="\t", index=False)
    return {who: _write_emoeeg_person(root, who, orders[who], seconds, (runs or {}).get(who, 1), seed)
            for who in people}


def _write_emoeeg_person(root: Path, who: str, order: list[str], seconds: float, n_runs: int, seed: int) -> list[tuple]:
    preset, rng = PRESETS["teaching"], np.random.default_rng([seed, int(who)])
    person, topographies = draw_person(preset, rng, 1), _topographies(preset, rng)
    contact = rng.normal(0, preset.channel_gain, len(SEED_CHANNELS))
    blocks = [(context, order[i : i + 3]) for i in range(0, len(order), 3) for context in ("video", "imagery")]
    shown = [(context, stimulus) for context, block in blocks for stimulus in block]
    runs = np.array_split(np.arange(len(shown)), n_runs)
    folder, explanations, ratings = root / f"sub-{who}" / "eeg", [], []
    folder.mkdir(parents=True)
    gap = round(1.0 * SFREQ)
    for run, members in enumerate(runs, start=1):
        pieces, notes, at = [rng.normal(0, 5, (62, gap))], [EdfAnnotation(0.0, 0.0, "TypeID: 29")], gap
        for place in members:
            context, stimulus = shown[place]
            n_times = round(seconds * SFREQ)
            trace = draw_intensity(rng.uniform(size=max(1, int(seconds // 4))), preset, rng)
            label = SEED_VII.index(LENDER[EMOTION_OF[stimulus[:-1]]])
            latents = draw_latents(person, label, trace, preset, rng)
            pieces += [_clip_signal(person, topographies, contact, latents, 0, place / len(shown), n_times, preset,
                                    rng)]
            start, stop = at / SFREQ, (at + n_times) / SFREQ
            notes.append(EdfAnnotation(start, 0.0, f"TypeID: {CODES[context]}"))
            presses = context == "imagery" and place % 2 == 0
            notes += [EdfAnnotation(stop + late, 0.0, f"TypeID: {CODES['fade']}") for late in (0.0, 0.5) if presses]
            rated = stop + (2.0 if presses else 0.0)
            notes.append(EdfAnnotation(rated, 0.0, f"TypeID: {CODES['rating']}"))
            explanations.append((context, stimulus, stop, run))
            ratings.append([7 * float(trace.mean()) if item == EMOTION_OF[stimulus[:-1]] else 0.0 for item in RATED]
                           + [3.5] * 4)
            pieces.append(rng.normal(0, 5, (62, gap + round((rated - stop) * SFREQ))))
            at += n_times + pieces[-1].shape[1]
        signal = _extended(np.concatenate(pieces, axis=1))
        signal = np.pad(signal, ((0, 0), (0, -signal.shape[1] % int(SFREQ))))
        edf = [EdfSignal(x, SFREQ, label=name, physical_dimension="uV")
               for name, x in zip(EMOEEG_CHANNELS, signal, strict=True)]
        edf.append(EdfSignal(np.zeros(signal.shape[1]), SFREQ, label="Trigger1", physical_range=(-1, 1)))
        suffix = f"_run-{run:02d}" if n_runs > 1 else ""
        Edf(edf, annotations=notes).write(folder / f"sub-{who}_task-emotion{suffix}_eeg.edf")
    sidecar = {"TaskName": "emotion", "PowerLineFrequency": 50, "SamplingFrequency": SFREQ, "EEGChannelCount": 64,
               "RecordingType": "continuous"}
    (folder / f"sub-{who}_task-emotion_eeg.json").write_text(json.dumps(sidecar))
    beh = root / f"sub-{who}" / "beh" / f"sub-{who}_task-emotion_beh.tsv"
    beh.parent.mkdir()
    columns = ["trial_number", "video_name", *(f"score_{i}" for i in range(1, 11))]
    table = pd.DataFrame([[i, 35, *row] for i, row in enumerate(ratings, start=1)], columns=columns)
    table.to_csv(beh, sep="\t", index=False)
    return explanations


def write_gdf(path: Path, names: list[str], microvolts: np.ndarray, sfreq: int) -> None:
    """A GDF 1.25 file (Schloegl 2006, arXiv cs/0608052): fixed and channel headers, records of one second in float32.

    One event.
    """
    n_channels, n_records = len(names), microvolts.shape[1] // sfreq
    fixed = b"GDF 1.25" + b"X X".ljust(80) + b"twin".ljust(80) + b"2022100114000000"
    fixed += struct.pack("<q", 256 * (n_channels + 1)) + bytes(24) + bytes(20) + struct.pack("<qIII", n_records, 1, 1,
                                                                                             n_channels)
    limits = ((-1e6, "d"), (1e6, "d"), (-1_000_000, "q"), (1_000_000, "q"))
    each = [b"".join(name.encode().ljust(16) for name in names), b" " * 80 * n_channels, b"uV".ljust(8) * n_channels]
    each += [struct.pack(f"<{n_channels}{kind}", *[value] * n_channels) for value, kind in limits]
    each += [
        b" " * 80 * n_channels,
        struct.pack(f"<{n_channels}i", *[sfreq] * n_channels),
        struct.pack(f"<{n_channels}i", *[16] * n_channels),
        bytes(32 * n_channels),
    ]
    records = microvolts[:, : n_records * sfreq].reshape(n_channels, n_records, sfreq).transpose(1, 0, 2).astype("<f4")
    events = struct.pack("<BBBBIIH", 1, *sfreq.to_bytes(3, "little"), 1, 1, 769)
    path.write_bytes(fixed + b"".join(each) + records.tobytes() + events)


BIDS_NAMES = ["Fp1", "Fp2", "F3", "F4", "C3", "C4", "P3", "P4", "O1", "O2", "VEOG"]
BIDS_SFREQ, BIDS_FORMATS = 128, {"EDF": ".edf", "BrainVision": ".vhdr"}
BIDS_LABELS = ("calm", "tense")


def write_bids(root: Path, subject: str, session: str | None = None, task: str = "films", run: str | None = None,
          form: str = "BrainVision", seconds: float = 9.0, n: int = 6) -> tuple[mne_bids.BIDSPath, np.ndarray]:
    """One recording of six trials with labels in turn, and the microvolts that were written."""
    rng = np.random.default_rng([int(subject), int(run or 0), int(session or 0)])
    total = round((n * (seconds + 1) + 1) * BIDS_SFREQ)
    shared = rng.normal(0, 10, total)
    data = np.cumsum(rng.normal(0, 2, (len(BIDS_NAMES), total)), axis=1) * 0.2 + shared
    raw = mne.io.RawArray(data * 1e-6, mne.create_info(BIDS_NAMES, BIDS_SFREQ, ["eeg"] * 10 + ["eog"]), verbose="error")
    raw.info["line_freq"] = 50
    onsets = 1 + np.arange(n) * (seconds + 1)
    raw.set_annotations(mne.Annotations(onsets, seconds, [BIDS_LABELS[i % 2] for i in range(n)]))
    path = mne_bids.BIDSPath(subject=subject, session=session, task=task, run=run, datatype="eeg", root=root)
    mne_bids.write_raw_bids(raw, path, format=form, allow_preload=True, overwrite=True, verbose="error")
    return path.update(suffix="eeg", extension=BIDS_FORMATS[form]), data
