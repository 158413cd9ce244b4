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
    1, 32)

After that ``encoder_size = "log-power"`` is a size like any other, in a process that has imported the module that
registers it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

from torch import Tensor, nn

from ..core.files import checksum
from .eegpt import EEGPT, EEGPT_SIZES, EEGPTConfig, eegpt_config
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
        signal_mv : Tensor, shape (batch, n_channels, 1024)
            Millivolts at 256 Hz.

        Returns
        -------
        Tensor, shape (batch, 16, summary_tokens, width)
            One time patch is 250 ms.
        """


_KNOWN: dict[str, tuple[type, Callable[[Any, list[str]], nn.Module]]] = {}


def register(name: str, config: type, encoder: Callable[[Any, list[str]], nn.Module]) -> None:
    """Make an encoder known by a name.

    Parameters
    ----------
    name : str
        Such as ``log-power``.
    config : type
        Dataclass of its size, see :class:`EncoderConfig`.
    encoder : callable
        ``encoder(config, ch_names)`` makes one, see :class:`Encoder`.

    Raises
    ------
    ValueError
        If the name belongs to another encoder.
    """
    if name in EEGPT_SIZES or _KNOWN.get(name, (config, encoder)) != (config, encoder):
        raise ValueError(f"'{name}' names another encoder: choose another name.")
    _KNOWN[name] = (config, encoder)


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
    known = {field.name for field in fields(_KNOWN[size][0])}
    if wrong := [name for name, value in changes.items() if name not in known and value]:
        raise ValueError(f"The encoder '{size}' has no {', '.join(wrong)} (it has {', '.join(sorted(known))}): set "
                         "them to 0.")
    return _KNOWN[size][0](**{name: value for name, value in changes.items() if name in known})


def config_values(config: EncoderConfig) -> dict:
    """Plain values to keep with a run; :func:`config_from` reads them."""
    if isinstance(config, EEGPTConfig):
        return asdict(config)
    kind = next((name for name, (known, _) in _KNOWN.items() if type(config) is known), None)
    if kind is None:
        raise ValueError(f"{type(config).__name__} belongs to no known encoder: register it "
                         "(e2llm.models.encoders.register).")
    return {_KIND: kind, **asdict(cast(Any, config))}


def config_from(values: dict) -> EncoderConfig:
    """Configuration from what :func:`config_values` gave."""
    values = dict(values)
    kind = values.pop(_KIND, None)
    if kind is None:
        return EEGPTConfig(**values)
    if kind not in _KNOWN:
        raise ValueError(f"The encoder '{kind}' is not known here: import the module that registers it first.")
    return _KNOWN[kind][0](**values)


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
    encoder = _KNOWN[config_values(config)[_KIND]][1](config, ch_names)
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
