"""EEG encoders by name: a new one is one class and one call of :func:`register`.

An encoder is a torch module made from a configuration and channel names::

    @dataclass(frozen=True)
    class LogPowerConfig:
        width: int = 32
        summary_tokens: int = 1

        @property
        def token_width(self) -> int:
            return self.summary_tokens * self.width

    register("log-power", LogPowerConfig, LogPower)  # LogPower(config, ch_names): (batch, channel, 1024) -> (batch, 16,
    1, 32), for windows of 4 s; lengths_s says which others it takes

After that ``encoder_size = "log-power"`` is a size like any other, in a process that has imported the module that
registers it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

from torch import Tensor, nn

from ..core.files import checksum
from .eegpt import EEGPT, EEGPT_SIZES, PATCH, SFREQ, EEGPTConfig, eegpt_config
from .eegpt_weights import NAMED_INITIALIZATIONS, initialize_encoder, located, read_checkpoint

_KIND = "kind"  # names the encoder in a stored configuration; EEGPT's, the first, has none


@runtime_checkable
class EncoderConfig(Protocol):
    """Size of an encoder: a frozen dataclass of plain values."""

    @property
    def summary_tokens(self) -> int:
        """Tokens of each time patch."""

    @property
    def token_width(self) -> int:
        """Width of one time patch's output, all its summary tokens together."""


@runtime_checkable
class Encoder(Protocol):
    """EEG to tokens; also a ``torch.nn.Module``, whose parameters stage 1 trains."""

    config: EncoderConfig
    ch_names: list[str]

    def __call__(self, signal_mv: Tensor) -> Tensor:
        """Tokens of windows.

        Parameters
        ----------
        signal_mv : Tensor, shape (batch, n_channels, n_samples)
            Millivolts at 256 Hz: 1024 samples are 4 s.

        Returns
        -------
        Tensor, shape (batch, n_samples / 64, summary_tokens, width)
            One time patch is 250 ms: 16 of them are 4 s.
        """


class _Known(NamedTuple):
    """What :func:`register` was given."""

    config: type
    encoder: Callable[[Any, list[str]], nn.Module]
    lengths_s: tuple[float, ...] | None


_KNOWN: dict[str, _Known] = {}


def register(name: str, config: type, encoder: Callable[[Any, list[str]], nn.Module],
             lengths_s: Sequence[float] | None = (4.0,)) -> None:
    """Make an encoder known by a name.

    Parameters
    ----------
    name : str
        Such as ``log-power``.
    config : type
        Dataclass of its size, see :class:`EncoderConfig`.
    encoder : callable
        ``encoder(config, ch_names)`` makes one, see :class:`Encoder`.
    lengths_s : sequence of float, optional
        Lengths of the windows that it takes, seconds; None: every whole number of time patches.

    Raises
    ------
    ValueError
        If the name belongs to another encoder.
    """
    new = _Known(config, encoder, None if lengths_s is None else tuple(lengths_s))
    if name in EEGPT_SIZES or _KNOWN.get(name, new)[:2] != new[:2]:
        raise ValueError(f"'{name}' names another encoder: choose another name.")
    _KNOWN[name] = new


def check_length(config: EncoderConfig, window_s: float) -> None:
    """Refuse windows of a length that an encoder does not take, before any work.

    EEGPT takes every whole number of time patches, for tokens attend to each other inside one patch only. It was
    pretrained on 4 s.

    Parameters
    ----------
    config : EncoderConfig
        Of the encoder.
    window_s : float
        Length of the windows, seconds.

    Raises
    ------
    ValueError
        Naming the lengths that would do.
    """
    kind = _kind_of(config)
    lengths_s, patch_s = _KNOWN[kind].lengths_s if kind else None, PATCH / SFREQ
    if lengths_s is not None and window_s not in lengths_s:
        would_do = " or ".join(f"{length:g}" for length in lengths_s)
        raise ValueError(f"The encoder '{kind}' takes windows of {would_do} s, not of {window_s:g} s: run lesson 01 "
                         f"with window_s = {would_do}, or take another encoder.")
    if window_s % patch_s:
        near = window_s // patch_s * patch_s
        raise ValueError(f"Windows of {window_s:g} s are no whole number of time patches of {patch_s:g} s: window_s = "
                         f"{near or patch_s:g} or {near + patch_s:g} would do.")


def encoder_config(size: str, **changes: float) -> EncoderConfig:
    """Configuration of an EEGPT's published size or of a registered encoder, single values replaced.

    Parameters
    ----------
    size : str
        Published size, or name of a registered encoder.
    **changes
        Fields and their values. One that the encoder does not have is passed over if it is 0 (a dropout that is off).

    Raises
    ------
    ValueError
        For an unknown size, or another value of a field that the encoder does not have.
    """
    if size in EEGPT_SIZES:
        return eegpt_config(size, **changes)
    if size not in _KNOWN:
        raise ValueError(f"Unknown encoder '{size}' (known: {', '.join([*EEGPT_SIZES, *_KNOWN])}).")
    known = {field.name for field in fields(_KNOWN[size].config)}
    if wrong := [name for name, value in changes.items() if name not in known and value]:
        raise ValueError(f"The encoder '{size}' has no {', '.join(wrong)} (it has {', '.join(sorted(known))}): set "
                         "them to 0.")
    return _KNOWN[size].config(**{name: value for name, value in changes.items() if name in known})


def config_values(config: EncoderConfig) -> dict:
    """Plain values to keep with a run; :func:`config_from` reads them."""
    kind = _kind_of(config)
    return {_KIND: kind, **asdict(cast(Any, config))} if kind else asdict(cast(Any, config))


def _kind_of(config: EncoderConfig) -> str:
    """Name of a registered encoder; empty for EEGPT."""
    if isinstance(config, EEGPTConfig):
        return ""
    kind = next((name for name, known in _KNOWN.items() if type(config) is known.config), "")
    if not kind:
        raise ValueError(f"{type(config).__name__} belongs to no known encoder: register it "
                         "(e2llm.models.encoders.register).")
    return kind


def config_from(values: dict) -> EncoderConfig:
    """Configuration from what :func:`config_values` gave."""
    values = dict(values)
    kind = values.pop(_KIND, None)
    if kind is None:
        return EEGPTConfig(**values)
    if kind not in _KNOWN:
        raise ValueError(f"The encoder '{kind}' is not known here: import the module that registers it first.")
    return _KNOWN[kind].config(**values)


def make_encoder(config: EncoderConfig, ch_names: list[str]) -> nn.Module:
    """An untrained encoder.

    Parameters
    ----------
    config : EncoderConfig
        Size.
    ch_names : list of str
        Channels of its input.

    Raises
    ------
    TypeError
        If what was registered does not keep to :class:`Encoder`.
    """
    if isinstance(config, EEGPTConfig):
        return EEGPT(config, ch_names)
    encoder = _KNOWN[_kind_of(config)].encoder(config, ch_names)
    if not (isinstance(encoder, nn.Module) and isinstance(encoder, Encoder)
            and isinstance(encoder.config, EncoderConfig)):
        raise TypeError(f"{type(encoder).__name__} is no encoder: it must be a torch module with config "
                        "(summary_tokens, token_width) and ch_names.")
    return encoder


def initialization_key(weights: str) -> dict[str, str]:
    """Inputs of an initialization: the checksum of its file of weights; nothing for the named ones."""
    return {} if weights in NAMED_INITIALIZATIONS else {"weights": checksum(located(weights))}


def initialize(encoder: nn.Module, weights: str) -> str:
    """Initialize any encoder in place.

    Parameters
    ----------
    encoder : Module
        EEGPT, or a registered encoder.
    weights : str
        For EEGPT see :func:`e2llm.models.eegpt_weights.initialize_encoder`; for others empty or "random" (its own
        random weights), or a checkpoint that fits all its keys.

    Returns
    -------
    str
        A sentence on what was done.

    Raises
    ------
    ValueError
        If the weights do not fit.
    """
    if isinstance(encoder, EEGPT):
        return initialize_encoder(encoder, weights)
    if weights in ("", "random"):
        return f"own start of {type(encoder).__name__}"
    found, own = read_checkpoint(weights).tensors, encoder.state_dict()
    matched = [key for key in own if key in found and found[key].shape == own[key].shape]
    if len(matched) < len(own):
        lacking = [key for key in own if key not in matched]
        raise ValueError(f"{weights} does not fit {type(encoder).__name__}: {len(matched)} of {len(own)} keys matched; "
                         f"lacking or of another shape {lacking[:5]}.")
    encoder.load_state_dict({key: found[key] for key in matched})
    return f"{Path(weights).name}: {len(matched)} of {len(own)} keys matched"
