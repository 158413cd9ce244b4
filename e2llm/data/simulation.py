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
import scipy  # its parts load when they are used
import yaml
from filelock import FileLock
from joblib import Parallel, delayed
from scipy import fft
from scipy.io import savemat

from ..core.arguments import check_number
from ..core.bands import BANDS
from ..core.files import read_yaml
from ..core.labels import SEED_VII
from ..core.montage import SEED_CHANNELS, make_info
from .emotion_effects import SOURCES, Person, Preset, draw_intensity, draw_latents, draw_person, get_preset
from .sources.seed_vii import SEED_SESSION_EMOTIONS, clip_emotion

SFREQ = 200.0
WINDOW_S = 4.0
_VERSION = 2  # of the signal that equal parameters make; raise it with every change
# The spectrum of one source at level 0: a 1/f background, and rhythms as peaks above it.
_OFFSET_DB = 0.8  # of the background at 1 Hz, dB re 1 µV²/Hz (root mean square over the cap); the knee takes 3 dB off
_KNEE_HZ = 1.0  # below it the background becomes flat
_PEAKS: dict[str, tuple[float | None, float, dict[str, float]]] = {
    # Centre (None: each person's own) and width (standard deviation) in Hz, decibels above the background by region.
    "theta": (6.0, 1.0, {"frontal": 2.5, "": 1.5}),
    "alpha": (None, 0.7, {"occipital": 18.0, "parietal": 14.5, "frontal": 13.0, "": 8.5}),
    "beta": (18.0, 4.0, {"": 7.0}),
    "gamma": (33.0, 3.5, {"": 2.5}),
}
_STRENGTH_DB = {"occipital": 1.0, "central": -1.0, "temporal": -2.0, "": 0.0}  # of a source on the scalp
_BURST_DB, _BURST_HZ = 3.0, 0.25  # by how much (standard deviation) and how fast rhythms swell and fade
_EDGE_OCTAVES = 0.25  # half the width of the soft edge between two bands
_CORRECTIONS, _MAX_CORRECTION_DB = 6, 8.0
_BRAIN_SHARE = 0.90  # radius of the brain over that of the head in MNE's four-shell sphere
_SOURCE_SHARE = 0.70  # distance of the rhythm sources from the center, over the head's radius
_N_BACKGROUND = 40


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
        for name, low, high in (("subjects", -1, 9999), ("sessions", -1, 99), ("clips", -1, 99), ("seed", 0, 2**63)):
            check_number(name, getattr(self, name), low, high, whole=True)
        if not (self.subjects >= 1 and 1 <= self.sessions <= 4 and 1 <= self.clips <= 20):
            raise ValueError(f"A twin has one or more subjects, 1-4 sessions and 1-20 clips a session, got {self}.")
        if not isinstance(self.seconds, (tuple, list)) or len(self.seconds) != 2:
            raise ValueError(f"seconds = {self.seconds!r:.60}: give the shortest and the longest clip.")
        for value in self.seconds:
            check_number("seconds", value, 0, 3600)
        if not isinstance(self.changes or {}, dict) or not all(isinstance(name, str) for name in self.changes or {}):
            raise ValueError(f"changes = {self.changes!r:.60}: give a mapping of values of the preset.")
        for name, value in (self.changes or {}).items():
            if isinstance(value, float):
                check_number(f"changes['{name}']", value, -1e6, 1e6)
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


def _topographies(preset: Preset, rng: np.random.Generator) -> np.ndarray:
    """Own anatomy of one person, shape (62, n): rhythm sources, background sources, eyes, left and right jaw muscle."""
    _, sphere, electrodes = _head()
    rhythm = electrodes[[SEED_CHANNELS.index(name) for name in SOURCES.values()]]
    rhythm = rhythm + rng.normal(0.0, preset.anatomy_mm * 1e-3 / sphere.radius, rhythm.shape)
    rhythm *= _SOURCE_SHARE / np.linalg.norm(rhythm, axis=1, keepdims=True)
    background = rng.normal(size=(_N_BACKGROUND, 3))
    background[:, 2] = np.abs(background[:, 2]) + 1.0  # around the vertex, where no rhythm source lies
    background *= rng.uniform(0.5, 0.7, (_N_BACKGROUND, 1)) / np.linalg.norm(background, axis=1, keepdims=True)
    artefacts = np.array([[0.0, 0.85, -0.10], [-0.85, 0.0, -0.15], [0.85, 0.0, -0.15]])
    fields = leadfield(np.concatenate([rhythm, background, artefacts]))
    fields[:, : len(SOURCES)] *= 10 ** (_by_region(_STRENGTH_DB) / 20)
    return fields


def _complex_noise(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Complex Gaussian noise of unit mean square."""
    return rng.standard_normal((*shape, 2), np.float32).view(np.complex64)[..., 0] * np.float32(np.sqrt(0.5))


def _shaped_noise(density: np.ndarray, n_rows: int, n_times: int, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise (n_rows, n_times) of a one-sided power ``density`` (n_frequencies,), square units per Hz."""
    amplitude = np.sqrt(density * n_times * SFREQ / 2).astype(np.float32)
    return fft.irfft(_complex_noise((n_rows, len(density)), rng) * amplitude, n_times)


def _narrow_band(widths: np.ndarray, n_times: int, rng: np.random.Generator) -> np.ndarray:
    """Complex noise about 0 Hz of unit mean square and a Gaussian spectrum, shape (sources, widths, n_times).

    ``widths`` are standard deviations of the power spectrum in Hz.
    """
    offsets = fft.fftfreq(n_times, 1.0 / SFREQ)
    spectrum = np.zeros((len(SOURCES), len(widths), n_times), np.complex64)
    for k, width in enumerate(widths):
        near = np.abs(offsets) < 3.5 * width
        shape = np.exp(-0.25 * (offsets[near] / width) ** 2)
        spectrum[:, k, near] = _complex_noise((len(SOURCES), near.sum()), rng) * (shape / np.linalg.norm(shape))
    return fft.ifft(spectrum, norm="forward", overwrite_x=True)


def _aperiodic(frequencies: np.ndarray, exponent: float) -> np.ndarray:
    """Density of the 1/f background of one source, µV²/Hz; nothing below the amplifier's 0.3 Hz."""
    return 10 ** (_OFFSET_DB / 10) * (frequencies >= 0.3) / (_KNEE_HZ**exponent + frequencies**exponent)


def _by_region(values: dict[str, float]) -> np.ndarray:
    """The value of every source, shape (sources,), from values by region; "" is every region that is not named."""
    return np.array([next(value for region, value in values.items() if source.startswith(region))
                     for source in SOURCES])


def _peaks(person: Person) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centre and width (rhythms,) in Hz, and density at the centre (sources, rhythms) in µV²/Hz, of each rhythm."""
    centres, widths, heights = zip(*_PEAKS.values(), strict=True)
    hz = np.array([person.alpha_hz if centre is None else centre for centre in centres])
    above_db = np.stack([_by_region(height) for height in heights], axis=1)
    return hz, np.array(widths), (10 ** (above_db / 10) - 1) * _aperiodic(hz, person.exponent)


def _spectrum(person: Person, frequencies: np.ndarray) -> np.ndarray:
    """Power density of every source at level 0, µV²/Hz (sources, frequencies)."""
    centres, widths, densities = _peaks(person)
    shapes = np.exp(-0.5 * ((frequencies - centres[:, None]) / widths[:, None]) ** 2)
    return _aperiodic(frequencies, person.exponent) + densities @ shapes


def _bursts(person: Person, shift: np.ndarray, n_times: int, rng: np.random.Generator) -> np.ndarray:
    """Rhythms of every source, microvolts (sources, n_times): narrow-band noise that swells and fades."""
    centres, widths, densities = _peaks(person)
    hz = np.repeat(centres[:, None], n_times, axis=1)
    hz[list(_PEAKS).index("alpha")] += shift
    carriers = np.exp(2j * np.pi * np.cumsum(hz, axis=1) / SFREQ).astype(np.complex64)
    swell = np.log(10) / 20 * _BURST_DB  # standard deviation of the logarithm of the amplitude
    slow = _narrow_band(np.full(len(widths), _BURST_HZ), n_times, rng).real
    envelopes = np.exp(np.float32(swell * np.sqrt(2)) * slow - np.float32(swell**2))
    rms = np.sqrt(2 * densities * widths * np.sqrt(2 * np.pi)).astype(np.float32)  # complex: twice the power
    return np.einsum("skt,skt,sk->st", (_narrow_band(widths, n_times, rng) * carriers).real, envelopes, rms)


def _band_filters(frequencies: np.ndarray) -> np.ndarray:
    """Amplitude response of each band, shape (bands, frequencies): soft edges, and a sum of 1 at every frequency."""
    edges = np.array([low for low, _ in BANDS.values()][1:])
    octaves = np.log2(np.maximum(frequencies, 1e-3) / edges[:, None])
    above = np.sin(np.pi / 2 * np.clip(octaves / (2 * _EDGE_OCTAVES) + 0.5, 0.0, 1.0)) ** 2
    return -np.diff(np.concatenate([np.ones_like(octaves[:1]), above, np.zeros_like(octaves[:1])]), axis=0)


def _gains(person: Person, levels_db: np.ndarray, signal: np.ndarray) -> np.ndarray:
    """Amplitude gain of each band filter that gives every window its planned band power.

    A band's power depends a little on its neighbours' gains, because edges are soft. So the gains are found by
    repeated correction. It is limited: where a band is planned far below both neighbours, their edges fill it, and a
    stronger correction would cut a hole into the spectrum.

    Parameters
    ----------
    person : Person
        Whose spectrum has level 0.
    levels_db : ndarray, shape (n_windows, n_sources, n_bands)
        Planned band powers, decibels above that spectrum.
    signal : ndarray, shape (n_sources, n_times)
        Microvolts before the gains.

    Returns
    -------
    ndarray, shape (n_windows, n_sources, n_bands)
    """
    n_windows, n = len(levels_db), int(WINDOW_S * SFREQ)
    cut = signal[:, : n_windows * n].reshape(len(signal), n_windows, n).swapaxes(0, 1)
    hz, measured = scipy.signal.welch(cut, SFREQ, nperseg=n // 2, detrend=False)  # as the features measure it
    inside = np.stack([(hz >= low) & (hz < high) for low, high in BANDS.values()])
    planned = _spectrum(person, hz) @ inside.T * 10 ** (levels_db / 10)
    filters = _band_filters(hz)
    products = np.einsum("af,bf,pf->pabf", filters, filters, inside)
    shares = (measured @ products.reshape(-1, len(hz)).T).reshape(*levels_db.shape, len(BANDS), len(BANDS))
    correction_db = np.zeros_like(levels_db)
    for _ in range(_CORRECTIONS):
        gain = 10 ** ((levels_db + correction_db) / 20)
        correction_db += 10 * np.log10(planned / np.einsum("wspab,wsa,wsb->wsp", shares, gain, gain))
        correction_db = correction_db.clip(-_MAX_CORRECTION_DB, _MAX_CORRECTION_DB)  # a weak band between strong ones
    return 10 ** ((levels_db + correction_db) / 20)


def _window_weights(n_windows: int, n_times: int) -> np.ndarray:
    """Share of every window in every sample, shape (n_windows, n_times): 0 or 1, with transitions of 0.25 s."""
    starts = np.arange(1, n_windows)[:, None] * WINDOW_S
    since = np.clip((np.arange(n_times) / SFREQ - starts) / 0.25 + 0.5, 0.0, 1.0)
    return -np.diff(np.concatenate([np.ones((1, n_times)), since, np.zeros((1, n_times))]), axis=0)


def _rhythms(person: Person, latents: np.ndarray, session: int, position: float, n_times: int,
             rng: np.random.Generator) -> np.ndarray:
    """Source signals of one clip, microvolts (sources, n_times): background and bursts at the levels of each window."""
    levels_db = latents[:, :-1].reshape(len(latents), len(SOURCES), len(BANDS))
    levels_db = levels_db + person.baseline_db + person.drift_db[session] * (position - 0.5)
    size = fft.next_fast_len(n_times, real=True)
    weights, frequencies = _window_weights(len(latents), size), fft.rfftfreq(size, 1.0 / SFREQ)
    signal = _shaped_noise(_aperiodic(frequencies, person.exponent), len(SOURCES), size, rng)
    signal += _bursts(person, latents[:, -1] @ weights, size, rng)
    responses = _gains(person, levels_db, signal) @ _band_filters(frequencies)
    parts = fft.irfft(fft.rfft(signal) * responses.astype(np.float32), size)
    return np.einsum("wst,wt->st", parts, weights.astype(np.float32))[:, :n_times]


def _artefacts(preset: Preset, n_times: int, rng: np.random.Generator) -> np.ndarray:
    """Blinks of the eyes, and bursts of the left and right jaw muscle, microvolts (3, n_times)."""
    times = np.arange(n_times) / SFREQ
    minutes = times[-1] / 60.0
    traces = np.zeros((3, n_times))
    for _ in range(rng.poisson(preset.blinks_per_minute * minutes)):
        onset, height = rng.uniform(0, times[-1]), rng.uniform(10.0, 25.0)
        traces[0] += height * np.exp(-0.5 * ((times - onset) / 0.08) ** 2)
    density = np.clip((np.fft.rfftfreq(n_times, 1.0 / SFREQ) - 15.0) / 20.0, 0.0, 1.0) ** 2
    for _ in range(rng.poisson(preset.muscle_per_minute * minutes)):
        onset, width = rng.uniform(0, times[-1]), rng.uniform(0.15, 0.5)
        burst = _shaped_noise(density, 1, n_times, rng)[0]
        burst *= rng.uniform(0.5, 1.0) * preset.muscle_uv / burst.std() * np.exp(-0.5 * ((times - onset) / width) ** 2)
        traces[1 + rng.integers(2)] += burst
    return traces


def _clip_signal(person, topographies, contact_db, latents, session, position, n_times, preset, rng) -> np.ndarray:
    """One clip as the amplifier would have written it, microvolts (62, n_times), float64."""
    size = fft.next_fast_len(n_times, real=True)
    density = _spectrum(person, fft.rfftfreq(size, 1.0 / SFREQ)).mean(axis=0)
    background = _shaped_noise(density / (density.sum() * SFREQ / size), _N_BACKGROUND, size, rng)[:, :n_times]
    sources = [_rhythms(person, latents, session, position, n_times, rng),
               background * np.float32(preset.background_uv / np.sqrt(_N_BACKGROUND)), _artefacts(preset, n_times, rng)]
    mains = np.exp(2j * np.pi * 50.0 * np.arange(n_times) / SFREQ)
    phases = preset.line_uv * rng.uniform(0.2, 1.0, (62, 1)) * np.exp(2j * np.pi * rng.uniform(size=(62, 1)))
    mixing = np.concatenate([topographies, phases.real, phases.imag], axis=1).astype(np.float32)
    signal = mixing @ np.concatenate([*sources, [mains.real, mains.imag]]).astype(np.float32)
    signal *= (10.0 ** ((person.gain_db + contact_db[:, None]) / 20.0)).astype(np.float32)
    signal += np.float32(preset.sensor_noise_uv) * rng.standard_normal(signal.shape, np.float32)
    return signal.astype(np.float64)


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
    made = {**asdict(params), "effects": asdict(params.effects_preset()), "version": _VERSION}
    description = yaml.safe_dump(made, sort_keys=False)
    if not root.exists():
        truth.mkdir(parents=True, exist_ok=True)
        with FileLock(truth / ".lock"):  # runs of one sweep may want it at one time
            if not root.exists():
                return _write(root, truth, params, description, n_jobs)
    if not (truth / "twin.yaml").is_file():
        raise FileExistsError(f"{root} exists and is not a finished twin: give another folder, or remove it first.")
    if read_yaml(truth / "twin.yaml")[0] != yaml.safe_load(description):
        raise FileExistsError(f"{root} is a twin with other parameters, or of another version (see "
                              f"{truth / 'twin.yaml'}): give another folder, or remove it and its truth first.")
    return root


def _write(root: Path, truth: Path, params: TwinParams, description: str, n_jobs: int) -> Path:
    """Write a twin that is not there yet."""
    partial = root.with_name(root.name + ".part")
    shutil.rmtree(partial, ignore_errors=True)
    for folder in ("EEG_preprocessed", "continuous_labels", "save_info"):
        (partial / folder).mkdir(parents=True)
    _write_tables(partial)
    subjects = range(1, params.subjects + 1)
    parts = Parallel(n_jobs=n_jobs)(delayed(_write_subject)(partial, params, subject) for subject in subjects)
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
