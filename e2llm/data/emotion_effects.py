"""The generating model of the SEED-VII twin: what each emotion does to the rhythms, and the oracle.

Everything that distinguishes one emotion from another in the twin stands in :data:`EFFECTS`. The signal
depends on the emotion only through the latent levels drawn here, so the Bayes rule on those latents
(:func:`oracle_probabilities`) is a ceiling for every classifier that sees only the signal.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from ..core.bands import BANDS
from ..core.labels import SEED_VII

# Where the rhythms come from: a cortical source under this electrode.
SOURCES: dict[str, str] = {
    "frontal_left": "F3", "frontal_right": "F4", "frontal_mid": "FZ", "central_left": "C3", "central_right": "C4",
    "temporal_left": "T7", "temporal_right": "T8", "parietal_left": "P3", "parietal_right": "P4",
    "occipital_left": "O1", "occipital_right": "O2",
}


@dataclass(frozen=True)
class Effect:
    """One row of the table: at full intensity, ``emotion`` changes ``band`` power of ``region`` by ``db`` decibels."""

    emotion: str
    band: str
    region: str  # a prefix of source names: "frontal" means left, right and mid
    db: float
    source: str


_ZHENG = "Zheng & Lu 2015, IEEE TAMD 7:162"
_DAVIDSON = "Davidson 1992, Brain Cogn. 20:125"
_SAMMLER = "Sammler et al. 2007, Psychophysiology 44:293"
_HARMON = "Harmon-Jones & Allen 1998, JPSP 74:1310"
_KLIMESCH = "Klimesch 1999, Brain Res. Rev. 29:169"
_OWN = "chosen here, so that the classes differ"
# Directions follow the literature named in each row where there is one; sizes are chosen for teaching.
EFFECTS: tuple[Effect, ...] = (
    Effect("happy", "gamma", "temporal", 4.0, _ZHENG),
    Effect("happy", "beta", "temporal", 3.5, _ZHENG),
    Effect("happy", "alpha", "frontal_left", -3.0, _DAVIDSON),
    Effect("happy", "theta", "frontal_mid", 2.0, _SAMMLER),
    Effect("surprise", "theta", "frontal", 4.0, _OWN),
    Effect("surprise", "delta", "parietal", 4.0, _OWN),
    Effect("surprise", "alpha", "parietal", -3.0, _KLIMESCH),
    Effect("neutral", "alpha", "occipital", 4.5, _ZHENG),
    Effect("neutral", "alpha", "parietal", 4.0, _ZHENG),
    Effect("neutral", "beta", "temporal", -3.0, _ZHENG),
    Effect("disgust", "alpha", "frontal_right", -3.5, _DAVIDSON),
    Effect("disgust", "gamma", "frontal", 4.0, _OWN),
    Effect("disgust", "theta", "occipital", 4.0, _OWN),
    Effect("fear", "alpha", "occipital", -4.5, _KLIMESCH),
    Effect("fear", "beta", "parietal", 4.0, _OWN),
    Effect("fear", "gamma", "occipital", 3.5, _OWN),
    Effect("sad", "alpha", "central", 4.0, _OWN),
    Effect("sad", "delta", "frontal", 4.0, _OWN),
    Effect("sad", "beta", "central", -3.5, _OWN),
    Effect("anger", "alpha", "frontal_left", -3.0, _HARMON),
    Effect("anger", "beta", "central", 4.0, _OWN),
    Effect("anger", "theta", "temporal", 4.0, _OWN),
)
# Shift of the alpha peak in Hz at full intensity: inside one band, so band power cannot see it.
ALPHA_SHIFT: dict[str, float] = {
    "happy": 0.3, "surprise": 0.9, "neutral": -0.6, "disgust": -0.3, "fear": 1.2, "sad": -1.2, "anger": 0.6,
}


@dataclass(frozen=True)
class Preset:
    """Sizes of everything that varies in the twin (levels in decibels of power unless said otherwise)."""

    effect_scale: float = 1.3
    window_noise: float = 1.5  # level of each source and band, drawn anew for every 4 s window
    clip_noise: float = 1.2  # the same, for every clip
    band_noise: float = 1.0  # common to all sources of a band, for every window
    idiosyncrasy: float = 0.5  # each person's deviation from the table
    subject_baseline: float = 2.5  # each person's baseline of every source and band; bands of a source go together
    subject_gain: float = 1.5  # amplifier and skull: all channels alike
    channel_gain: float = 1.0  # electrode contact: every channel its own, for every session
    drift: float = 1.0  # over one session, every source and band its own slope
    anatomy_mm: float = 4.0  # displacement of every source
    alpha_hz: float = 0.7  # spread of the individual alpha frequency
    exponent: float = 0.13  # spread of the exponent of each person's 1/f background
    alpha_noise_hz: float = 0.4  # of the alpha frequency, for every window
    intensity: tuple[float, float] = (0.4, 1.0)
    lapse_rate: float = 0.15  # share of windows in which the film does not reach the viewer: intensity 0
    blinks_per_minute: float = 10.0
    muscle_per_minute: float = 6.0
    muscle_uv: float = 3.0
    line_uv: float = 1.0
    bad_channel_rate: float = 0.15  # chance of one bad channel in a session
    background_uv: float = 1.5  # root mean square of activity that no emotion changes
    sensor_noise_uv: float = 0.6


PRESETS: dict[str, Preset] = {
    "teaching": Preset(),
    "realistic": Preset(effect_scale=0.42, idiosyncrasy=1.0, subject_baseline=4.0, clip_noise=2.0, drift=2.5),
    "no_emotion": Preset(effect_scale=0.0, idiosyncrasy=0.0),
}


def get_preset(name: str, **changes: Any) -> Preset:
    """A preset by name.

    Parameters
    ----------
    name : str
        Key of :data:`PRESETS`.
    **changes
        Fields of :class:`Preset` to replace.

    Raises
    ------
    ValueError
        For an unknown name or field; the message lists the known ones.
    """
    if name not in PRESETS:
        raise ValueError(f"Unknown preset '{name}' (known: {', '.join(PRESETS)}).")
    known = asdict(PRESETS[name])
    unknown = sorted(set(changes) - set(known))
    if unknown:
        raise ValueError(f"Unknown effect parameter {unknown} (known: {', '.join(known)}).")
    return replace(PRESETS[name], **changes)


def effect_matrix() -> np.ndarray:
    """Effects at full intensity, shape (emotion, source * band + 1): decibels, in the last column alpha shift in Hz."""
    columns = [(source, band) for source in SOURCES for band in BANDS]
    table = np.zeros((len(SEED_VII), len(columns) + 1))
    for effect in EFFECTS:
        for j, (source, band) in enumerate(columns):
            if band == effect.band and source.startswith(effect.region):
                table[SEED_VII.index(effect.emotion), j] += effect.db
    table[:, -1] = [ALPHA_SHIFT[label] for label in SEED_VII.labels]
    return table


@dataclass(frozen=True)
class Person:
    """One simulated person: effects, baseline, drift, alpha frequency and gain."""

    effects: np.ndarray  # (emotion, latent)
    baseline_db: np.ndarray  # (source, band)
    drift_db: np.ndarray  # (session, source, band), change from begin to end of the session
    alpha_hz: float
    gain_db: float  # all bands alike: also the offset of the 1/f background
    exponent: float  # of the 1/f background, power ~ f**-exponent


def draw_person(preset: Preset, rng: np.random.Generator, n_sessions: int = 4) -> Person:
    """Draw one person from a preset.

    Parameters
    ----------
    preset : Preset
        Sizes of what varies.
    rng : Generator
        Draws everything.
    n_sessions : int
        Sessions with a drift of their own.
    """
    shape = (len(SOURCES), len(BANDS))
    own = rng.normal(0.0, preset.idiosyncrasy, (len(SEED_VII), shape[0] * shape[1] + 1))
    own[:, -1] *= 0.2  # the last latent is in Hz, not dB
    # Most of a baseline is common to all bands of a source, so that its spectrum stays smooth.
    baseline_db = rng.normal(0.0, preset.subject_baseline, (shape[0], 1)) * 0.8
    baseline_db = baseline_db + rng.normal(0.0, preset.subject_baseline, shape) * 0.6
    return Person(
        effects=preset.effect_scale * effect_matrix() + own,
        baseline_db=baseline_db,
        drift_db=rng.normal(0.0, preset.drift, (n_sessions, *shape)),
        alpha_hz=float(np.clip(rng.normal(10.3, preset.alpha_hz), 9.0, 12.0)),
        gain_db=float(rng.normal(0.0, preset.subject_gain)),
        exponent=float(np.clip(rng.normal(1.7, preset.exponent), 1.3, 2.0)),
    )


def noise_covariance(preset: Preset) -> np.ndarray:
    """Covariance of the latents of a window around ``intensity * effect``: clip, window and band noise together."""
    n_sources, n_bands = len(SOURCES), len(BANDS)
    size = n_sources * n_bands + 1
    covariance = np.zeros((size, size))
    covariance[:-1, :-1] += np.kron(np.ones((n_sources, n_sources)), np.eye(n_bands)) * preset.band_noise**2
    covariance[:-1, :-1] += np.eye(size - 1) * (preset.window_noise**2 + preset.clip_noise**2)
    covariance[-1, -1] = preset.alpha_noise_hz**2
    return covariance


def draw_intensity(film: np.ndarray, preset: Preset, rng: np.random.Generator) -> np.ndarray:
    """Intensity of every window of a clip: mostly the film's, a little the viewer's, 0 in a lapse.

    Parameters
    ----------
    film : ndarray, shape (n_windows,)
        The film's part, uniform in [0, 1] and the same for every viewer.
    preset : Preset
        Range of intensities and rate of lapses.
    rng : Generator
        Draws the viewer's part and the lapses.
    """
    low, high = preset.intensity
    intensity = low + (high - low) * (0.7 * film + 0.3 * rng.uniform(size=film.shape))
    return np.where(rng.uniform(size=film.shape) < preset.lapse_rate, 0.0, intensity)


def intensity_prior(preset: Preset) -> tuple[np.ndarray, np.ndarray]:
    """Discrete distribution that stands for :func:`draw_intensity` in the oracle's integral.

    Parameters
    ----------
    preset : Preset
        Range of intensities and rate of lapses.

    Returns
    -------
    levels, shares : ndarray
        Nine intensities (and 0, of a lapse), and their probabilities.
    """
    # The sum of 0.7 and 0.3 of two uniform variables, by its exact distribution function (a trapezoid).
    edges = np.linspace(0.0, 1.0, 10)
    grid = (np.arange(1000) + 0.5) / 1000
    below = np.clip((edges[:, None] - 0.7 * grid) / 0.3, 0.0, 1.0).mean(axis=1)
    low, high = preset.intensity
    levels = low + (high - low) * (edges[:-1] + edges[1:]) / 2
    shares = np.diff(below) * (1.0 - preset.lapse_rate)
    if preset.lapse_rate > 0:
        levels, shares = np.append(levels, 0.0), np.append(shares, preset.lapse_rate)
    return levels, shares


def draw_latents(person: Person, emotion: int, intensity: np.ndarray, preset: Preset,
                 rng: np.random.Generator) -> np.ndarray:
    """Latent levels of one clip.

    Parameters
    ----------
    person : Person
        Who watches.
    emotion : int
        Class index of the clip.
    intensity : ndarray, shape (n_windows,)
        Intensity trace in [0, 1], one value per 4 s.
    preset : Preset
        Sizes of the noise.
    rng : Generator
        Draws the noise.

    Returns
    -------
    ndarray, shape (n_windows, source * band + 1)
        Decibels around the person's baseline; last column the alpha shift in Hz.
    """
    n_windows, n_sources, n_bands = len(intensity), len(SOURCES), len(BANDS)
    levels = rng.normal(0.0, preset.window_noise, (n_windows, n_sources, n_bands))
    levels += rng.normal(0.0, preset.clip_noise, (1, n_sources, n_bands))
    levels += rng.normal(0.0, preset.band_noise, (n_windows, 1, n_bands))
    shift = rng.normal(0.0, preset.alpha_noise_hz, (n_windows, 1))
    noise = np.concatenate([levels.reshape(n_windows, -1), shift], axis=1)
    return noise + intensity[:, None] * person.effects[emotion]


def oracle_probabilities(latents: np.ndarray, effects: np.ndarray, preset: Preset) -> np.ndarray:
    """Posterior of each emotion given the true latents: the ceiling of any score on the twin.

    The oracle knows the person, the noise and the distribution of intensities, and sees the levels that
    the signal was made from, without the noise of estimating them from four seconds of EEG.

    Parameters
    ----------
    latents : ndarray, shape (n_windows, n_latents)
        As written by the simulation.
    effects : ndarray, shape (n_windows, n_emotions, n_latents)
        Effects of each window's person.
    preset : Preset
        The sizes that the twin was made with.

    Returns
    -------
    ndarray, shape (n_windows, n_emotions)
    """
    precision = np.linalg.inv(noise_covariance(preset))
    levels, shares = intensity_prior(preset)
    log_likelihood = []
    for level, share in zip(levels, shares, strict=True):
        residual = latents[:, None, :] - level * effects
        log_likelihood.append(np.log(share) - 0.5 * np.einsum("nki,ij,nkj->nk", residual, precision, residual))
    joint = np.logaddexp.reduce(np.stack(log_likelihood), axis=0)
    joint -= joint.max(axis=1, keepdims=True)
    posterior = np.exp(joint)
    return posterior / posterior.sum(axis=1, keepdims=True)
