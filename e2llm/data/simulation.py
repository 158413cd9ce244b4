"""Write a twin of SEED-VII: the same folder, the same files, known effects, known shortcuts.

The twin lets everything run for everyone without the licensed data. What the signal was made from
(latent levels, effects, intensities) goes into a sibling folder ``<root>-truth``, never into the twin itself.
"""

from __future__ import annotations

import io
import re
import shutil
import zipfile
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import mne
import numpy as np
import pandas as pd
import yaml
from joblib import Parallel, delayed
from scipy.io import savemat

from ..core.bands import BANDS
from ..core.labels import SEED_VII
from ..core.montage import SEED_CHANNELS, make_info
from .emotion_effects import SOURCES, Person, Preset, draw_intensity, draw_latents, draw_person, get_preset
from .sources.seed_vii import SEED_SESSION_EMOTIONS, clip_emotion

SFREQ = 200.0
WINDOW_S = 4.0
# Microvolts (root mean square over the cap) of each band of one source at its baseline level.
_BASE_UV = {"delta": 2.6, "theta": 2.2, "alpha": 3.2, "beta": 1.8, "gamma": 1.2}
_BRAIN_SHARE = 0.90  # radius of the brain over that of the head in MNE's four-shell sphere
_SOURCE_SHARE = 0.80  # distance of the rhythm sources from the center, over the head's radius
_N_BACKGROUND = 40
_ALPHA_WIDTH_HZ = 1.0


@dataclass(frozen=True)
class TwinParams:
    """What a twin is made of; kept with its ground truth, so that an equal request finds it finished.

    Parameters
    ----------
    subjects, sessions, clips : int
        How many; a session never has more than 20 clips.
    seconds : tuple of float
        Shortest and longest clip.
    preset : str
        Key of :data:`e2llm.data.emotion_effects.PRESETS`.
    duration_shortcut : bool
        True, as in SEED-VII: a clip has one duration for all subjects, which gives its emotion away.
        False: clips have other durations for each subject.
    drift_shortcut : bool
        Session drift, which makes neighbors in time look alike.
    changes : dict
        Single values of the preset to replace.
    seed : int
        Of everything drawn.
    """

    subjects: int = 20
    sessions: int = 4
    clips: int = 20
    seconds: tuple[float, float] = (8.2, 13.8)
    preset: str = "teaching"
    duration_shortcut: bool = True
    drift_shortcut: bool = True
    changes: dict | None = None
    seed: int = 2026

    def __post_init__(self) -> None:
        if not (self.subjects >= 1 and 1 <= self.sessions <= 4 and 1 <= self.clips <= 20):
            raise ValueError(f"A twin has one or more subjects, 1-4 sessions and 1-20 clips a session, got {self}.")
        if self.seconds[0] < WINDOW_S or self.seconds[1] < self.seconds[0]:
            raise ValueError(f"Clip seconds must rise from at least {WINDOW_S:g}, got {self.seconds}.")

    def effects_preset(self) -> Preset:
        """The preset with its replacements."""
        changes = dict(self.changes or {})
        if not self.drift_shortcut:
            changes["drift"] = 0.0
        return get_preset(self.preset, **changes)


def clip_seconds(params: TwinParams, subject: int) -> np.ndarray:
    """Duration of every clip for one subject.

    Parameters
    ----------
    params : TwinParams
        Range of durations, and whether all subjects share them.
    subject : int
        Number of the subject, from 1.

    Returns
    -------
    ndarray, shape (sessions * 20,)
        Seconds.
    """
    rng = np.random.default_rng([params.seed, 1, 0 if params.duration_shortcut else subject])
    seconds = rng.uniform(*params.seconds, size=params.sessions * 20)
    return np.round(seconds * SFREQ) / SFREQ


@lru_cache(maxsize=1)
def _head() -> tuple[mne.Info, mne.bem.ConductorModel, np.ndarray]:
    """Cap, sphere fitted to it, and electrode positions from its center in units of its radius."""
    info = make_info(list(SEED_CHANNELS), SFREQ)
    sphere = mne.make_sphere_model("auto", "auto", info, verbose="error")
    electrodes = np.array([channel["loc"][:3] for channel in info["chs"]]) - sphere["r0"]
    return info, sphere, electrodes / np.linalg.norm(electrodes, axis=1, keepdims=True)


def leadfield(positions: np.ndarray) -> np.ndarray:
    """Scalp potential of radial dipoles in a four-shell sphere, by MNE.

    Parameters
    ----------
    positions : ndarray, shape (n_sources, 3)
        Of each dipole from the sphere's center (right, front, up), in units of the head's radius.

    Returns
    -------
    ndarray, shape (62, n_sources)
        Average-referenced topographies, each with a root mean square of 1 over the cap.

    Raises
    ------
    ValueError
        If a dipole lies outside the brain.
    """
    info, sphere, _ = _head()
    radius = np.linalg.norm(positions, axis=1, keepdims=True)
    if (radius >= _BRAIN_SHARE).any():  # MNE leaves it out without a warning, and shifts the other columns
        raise ValueError(f"A source lies {radius.max():.2f} head radii from the center, outside the brain "
                         f"({_BRAIN_SHARE}).")
    places = {"rr": positions * sphere.radius + sphere["r0"], "nn": positions / radius}
    dipoles = mne.setup_volume_source_space(pos=places, verbose="error")
    forward = mne.make_forward_solution(info, None, dipoles, sphere, meg=False, eeg=True, verbose="error")
    gain = mne.convert_forward_solution(forward, force_fixed=True, verbose="error")["sol"]["data"]
    gain = gain - gain.mean(axis=0)
    return gain / np.sqrt((gain**2).mean(axis=0))


def _topographies(preset: Preset, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Own anatomy of one person: rhythm sources, background sources, eyes and jaw muscles."""
    _, sphere, electrodes = _head()
    rhythm = electrodes[[SEED_CHANNELS.index(name) for name in SOURCES.values()]]
    rhythm = rhythm + rng.normal(0.0, preset.anatomy_mm * 1e-3 / sphere.radius, rhythm.shape)
    rhythm *= _SOURCE_SHARE / np.linalg.norm(rhythm, axis=1, keepdims=True)
    background = rng.normal(size=(_N_BACKGROUND, 3))
    background[:, 2] = np.abs(background[:, 2]) - 0.2
    background *= rng.uniform(0.3, 0.7, (_N_BACKGROUND, 1)) / np.linalg.norm(background, axis=1, keepdims=True)
    artefacts = np.array([[0.0, 0.85, -0.10], [-0.85, 0.0, -0.15], [0.85, 0.0, -0.15]])
    fields = leadfield(np.concatenate([rhythm, background, artefacts]))
    n = len(SOURCES)
    return {"rhythm": fields[:, :n], "background": fields[:, n : n + _N_BACKGROUND], "eyes": fields[:, -3],
            "jaw": fields[:, -2:]}


def _shaped_noise(shape: np.ndarray, n_times: int, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise of unit variance with the amplitude spectra ``shape`` (..., n_frequencies)."""
    spectrum = rng.normal(size=shape.shape) + 1j * rng.normal(size=shape.shape)
    signal = np.fft.irfft(spectrum * shape, n=n_times, axis=-1)
    return signal / np.maximum(signal.std(axis=-1, keepdims=True), 1e-12)


def _band_shapes(frequencies: np.ndarray, alpha_hz: float) -> np.ndarray:
    """Amplitude spectrum of the rhythm of each band, shape (bands, frequencies): alpha a peak, the others plateaus."""
    shapes = []
    for band, (low, high) in BANDS.items():
        if band == "alpha":
            shapes.append(np.exp(-0.5 * ((frequencies - alpha_hz) / _ALPHA_WIDTH_HZ) ** 2))
        else:
            inside = (frequencies >= low) & (frequencies < high)
            shapes.append(inside / np.maximum(frequencies, 1.0) ** 0.5)
    return np.stack(shapes)


def _smooth_gain(levels_db: np.ndarray, n_times: int) -> np.ndarray:
    """Amplitude over time from one level per window, transitions of 0.25 s; (windows, ...) to (..., n_times)."""
    per_window = int(WINDOW_S * SFREQ)
    steps = np.minimum(np.arange(n_times) // per_window, len(levels_db) - 1)
    gain = np.moveaxis(10.0 ** (levels_db / 20.0), 0, -1)[..., steps]
    return gain if len(levels_db) == 1 else _running_mean(gain, int(0.25 * SFREQ))


def _running_mean(x: np.ndarray, width: int) -> np.ndarray:
    before, after = np.repeat(x[..., :1], width // 2, -1), np.repeat(x[..., -1:], width - width // 2, -1)
    padded = np.concatenate([before, x, after], -1)
    total = np.cumsum(padded, axis=-1)
    return (total[..., width:] - total[..., :-width]) / width


def _rhythms(person: Person, latents: np.ndarray, session: int, position: float, n_times: int, rng) -> np.ndarray:
    """Source signals (sources, n_times) of one clip: noise of every band at its level, alpha at its own frequency."""
    levels = latents[:, :-1].reshape(len(latents), len(SOURCES), len(BANDS))
    levels = levels + person.baseline_db + person.drift_db[session] * (position - 0.5)
    gains = _smooth_gain(levels, n_times)
    frequencies = np.fft.rfftfreq(n_times, 1.0 / SFREQ)
    base = np.array(list(_BASE_UV.values()))
    alpha_column = list(BANDS).index("alpha")
    shapes = np.broadcast_to(_band_shapes(frequencies, person.alpha_hz), (len(SOURCES), len(BANDS), len(frequencies)))
    noise = _shaped_noise(shapes, n_times, rng)
    per_window = int(WINDOW_S * SFREQ)
    for w, shift in enumerate(latents[:, -1]):
        start = w * per_window
        stop = n_times if w == len(latents) - 1 else start + per_window
        local = np.fft.rfftfreq(stop - start, 1.0 / SFREQ)
        alpha = np.exp(-0.5 * ((local - person.alpha_hz - shift) / _ALPHA_WIDTH_HZ) ** 2)
        noise[:, alpha_column, start:stop] = _shaped_noise(np.broadcast_to(alpha, (len(SOURCES), len(local))),
                                                           stop - start, rng)
    return np.einsum("sbt,sbt,b->st", noise, gains, base)


def _artefacts(topographies: dict, preset: Preset, n_times: int, rng: np.random.Generator) -> np.ndarray:
    """Blinks, muscle bursts and line noise of one clip, microvolts (62, n_times)."""
    times = np.arange(n_times) / SFREQ
    minutes = times[-1] / 60.0
    signal = np.zeros((len(SEED_CHANNELS), n_times))
    for _ in range(rng.poisson(preset.blinks_per_minute * minutes)):
        onset, height = rng.uniform(0, times[-1]), rng.uniform(15.0, 35.0)
        signal += np.outer(topographies["eyes"], height * np.exp(-0.5 * ((times - onset) / 0.08) ** 2))
    frequencies = np.fft.rfftfreq(n_times, 1.0 / SFREQ)
    for _ in range(rng.poisson(preset.muscle_per_minute * minutes)):
        onset, width = rng.uniform(0, times[-1]), rng.uniform(0.15, 0.5)
        burst = _shaped_noise(np.clip((frequencies - 15.0) / 20.0, 0.0, 1.0), n_times, rng)
        burst *= rng.uniform(0.5, 1.0) * preset.muscle_uv * np.exp(-0.5 * ((times - onset) / width) ** 2)
        signal += np.outer(topographies["jaw"][:, rng.integers(2)], burst)
    phase = rng.uniform(0, 2 * np.pi, (len(SEED_CHANNELS), 1))
    return signal + preset.line_uv * rng.uniform(0.2, 1.0, phase.shape) * np.sin(2 * np.pi * 50.0 * times + phase)


def _clip_signal(person, topographies, contact_db, latents, session, position, n_times, preset, rng) -> np.ndarray:
    """One clip as the amplifier would have written it, microvolts (62, n_times), float64."""
    frequencies = np.fft.rfftfreq(n_times, 1.0 / SFREQ)
    pink = np.where(frequencies > 0.3, 1.0 / np.maximum(frequencies, 0.5), 0.0)
    background = _shaped_noise(np.broadcast_to(pink, (_N_BACKGROUND, len(frequencies))), n_times, rng)
    signal = topographies["rhythm"] @ _rhythms(person, latents, session, position, n_times, rng)
    signal += topographies["background"] @ background * (preset.background_uv / np.sqrt(_N_BACKGROUND))
    signal += _artefacts(topographies, preset, n_times, rng)
    signal *= 10.0 ** ((person.gain_db + contact_db[:, None]) / 20.0)
    return signal + rng.normal(0.0, preset.sensor_noise_uv, signal.shape)


def _break_channel(signal: np.ndarray, channel: int, rng: np.random.Generator) -> None:
    """Make one channel bad in place: a loose electrode, of large amplitude and unlike its neighbors."""
    signal[channel] = rng.normal(0.0, 12.0 * signal.std(), signal.shape[1])


def _write_subject(root: Path, params: TwinParams, subject: int) -> dict[str, np.ndarray]:
    """Write one subject's files and return the ground truth of every window."""
    preset = params.effects_preset()
    rng = np.random.default_rng([params.seed, 2, subject])
    person = draw_person(preset, rng, params.sessions)
    topographies = _topographies(preset, rng)
    contact_db = rng.normal(0.0, preset.channel_gain, (params.sessions, len(SEED_CHANNELS)))
    bad = [int(rng.integers(62)) if rng.random() < preset.bad_channel_rate else None for _ in range(params.sessions)]
    seconds, signals, traces, truth = clip_seconds(params, subject), {}, {}, []
    for session in range(params.sessions):
        for place in range(params.clips):
            clip = session * 20 + place + 1
            clip_rng = np.random.default_rng([params.seed, 3, subject, clip])
            n_times = round(float(seconds[clip - 1]) * SFREQ)
            n_windows = int(n_times / (WINDOW_S * SFREQ))
            film = np.random.default_rng([params.seed, 4, clip]).uniform(size=n_windows)
            trace = draw_intensity(film, preset, clip_rng)
            emotion = SEED_VII.index(clip_emotion(clip))
            latents = draw_latents(person, emotion, trace, preset, clip_rng)
            signal = _clip_signal(person, topographies, contact_db[session], latents, session, place / 20, n_times,
                                  preset, clip_rng)
            if (channel := bad[session]) is not None:
                _break_channel(signal, channel, clip_rng)
            signals[str(clip)], traces[str(clip)] = signal, trace[None, :]
            truth += [(clip, w, emotion, trace[w], latents[w]) for w in range(n_windows)]
    _save_mat(root / "EEG_preprocessed" / f"{subject}.mat", signals)
    _save_mat(root / "continuous_labels" / f"{subject}.mat", traces)
    _write_save_info(root, params, subject, seconds, traces)
    clips, windows, emotions, intensities, levels = zip(*truth, strict=True)
    return {"subject": np.full(len(clips), subject), "clip": np.array(clips), "window": np.array(windows),
            "emotion": np.array(emotions), "intensity": np.array(intensities), "latents": np.stack(levels),
            "effects": person.effects}


def _write_save_info(root: Path, params: TwinParams, subject: int, seconds: np.ndarray, traces: dict) -> None:
    for session in range(params.sessions):
        stem = root / "save_info" / f"{subject}_2022{10 + session // 3:02d}{10 + subject % 18:02d}_{session + 1}"
        time = pd.Timestamp(2022, 10 + session // 3, 10 + subject % 18, 14, 0, 0)
        movies, triggers = [], []
        for place in range(params.clips):
            clip = session * 20 + place + 1
            movies.append((f"movies/{clip_emotion(clip)}/{clip}.mp4", round(float(traces[str(clip)].mean()), 2)))
            end = time + pd.Timedelta(seconds=float(seconds[clip - 1]))
            triggers += [(1, time), (2, end)]
            time = end + pd.Timedelta(seconds=20)
        pd.DataFrame(movies).to_csv(f"{stem}_save_info.csv", index=False, header=False)
        pd.DataFrame(triggers).to_csv(f"{stem}_trigger_info.csv", index=False, header=False)


def _write_tables(root: Path) -> None:
    """The dataset's own spreadsheets: stimuli order and channel order."""
    rows = []
    for session in range(len(SEED_SESSION_EMOTIONS)):
        clips = range(session * 20 + 1, session * 20 + 21)
        rows.append([f"Session {session + 1} video index", *clips])
        rows.append(["Emotion", *(clip_emotion(clip).capitalize() for clip in clips)])
    _save_sheet(root / "emotion_label_and_stimuli_order.xlsx", pd.DataFrame(rows))
    _save_sheet(root / "Channel Order.xlsx", pd.DataFrame(SEED_CHANNELS))


def _save_mat(path: Path, content: dict[str, np.ndarray]) -> None:
    """A .mat file whose header has no date: the same twin, the same bytes."""
    savemat(path, content)
    with path.open("r+b") as file:
        file.write(b"MATLAB 5.0 MAT-file, simulated twin of SEED-VII".ljust(116))


def _save_sheet(path: Path, table: pd.DataFrame) -> None:
    """A spreadsheet without the time of its making."""
    made = io.BytesIO()
    table.to_excel(made, index=False, header=False)
    with zipfile.ZipFile(made) as dated, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as undated:
        for name in dated.namelist():
            content = dated.read(name)
            if name == "docProps/core.xml":
                content = re.sub(rb"\d{4}-\d\d-\d\dT[\d:]+Z", b"2022-10-01T00:00:00Z", content)
            undated.writestr(zipfile.ZipInfo(name, (2022, 10, 1, 0, 0, 0)), content, zipfile.ZIP_DEFLATED)


def simulate(root: str | Path, params: TwinParams | None = None, n_jobs: int = 2) -> Path:
    """Write a twin of SEED-VII and, in a sibling folder, its ground truth.

    Parameters
    ----------
    root : path
        Folder to make. If an equal twin is there it is left as it is; a different one, or a folder
        that is no twin, is refused.
    params : TwinParams
        What to write.
    n_jobs : int
        Subjects written at a time; the result does not depend on it.

    Returns
    -------
    Path
        ``root``.

    Raises
    ------
    FileExistsError
        If ``root`` holds something else.
    """
    params, root = params or TwinParams(), Path(root)
    truth = truth_folder(root)
    description = yaml.safe_dump({**asdict(params), "effects": asdict(params.effects_preset())}, sort_keys=False)
    if root.exists():
        if not (truth / "twin.yaml").is_file():
            raise FileExistsError(f"{root} exists and is not a finished twin: give another folder, or remove it first.")
        if yaml.safe_load((truth / "twin.yaml").read_text()) != yaml.safe_load(description):
            raise FileExistsError(f"{root} is a twin with other parameters (see {truth / 'twin.yaml'}): give another "
                                  "folder.")
        return root
    partial = root.with_name(root.name + ".part")
    shutil.rmtree(partial, ignore_errors=True)
    for folder in ("EEG_preprocessed", "continuous_labels", "save_info"):
        (partial / folder).mkdir(parents=True)
    _write_tables(partial)
    subjects = range(1, params.subjects + 1)
    parts = Parallel(n_jobs=n_jobs)(delayed(_write_subject)(partial, params, subject) for subject in subjects)
    truth.mkdir(parents=True, exist_ok=True)
    effects = np.stack([part.pop("effects") for part in parts])
    joined: dict[str, Any] = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    np.savez_compressed(truth / "truth.npz", person_effects=effects, **joined)
    (truth / "twin.yaml").write_text(description)
    partial.rename(root)
    return root


def truth_folder(root: str | Path) -> Path:
    """Where the ground truth of the twin at ``root`` lies."""
    root = Path(root)
    return root.with_name(root.name + "-truth")
