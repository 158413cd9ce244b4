"""E2-LLM in the manner of a Hugging Face multimodal model: encoder, projector, language model.

``text with <|eeg|> placeholders -> token embeddings; placeholders <- projector(EEG tokens) -> language model``

Importing this module registers configuration, processor and model with ``AutoConfig``, ``AutoProcessor`` and
``AutoModelForCausalLM``. The last one is the fitting auto class: transformers has none for EEG and text, and the model
is a causal language model with one more input.
"""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any, cast

import huggingface_hub
import torch
from huggingface_hub.errors import HTTPError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoProcessor, Cache, PreTrainedConfig, PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import CausalLMOutputWithPast

from ..core.chat import EEG_TOKEN
from ..core.claims import SCALES
from ..core.files import one_line, read_json, replacing
from .eegpt import N_PATCHES
from .encoders import Encoder, config_from, config_values, make_encoder
from .evidence_probe import EvidenceProbe
from .language import LanguageModelError, load_language_model
from .logits import loss_at_labels
from .processing import HUB_ARGUMENTS, E2LLMProcessor, refuse_unknown
from .projector import EvidenceTokens, Projector, tokens_per_slot

_LARGEST_SIZE = 1 << 20  # of a width, a depth or a number of tokens; ids of tokens are smaller too


class E2LLMConfig(PreTrainedConfig):
    """Configuration of E2-LLM.

    Parameters
    ----------
    text_config : dict or PreTrainedConfig
        Of the language model.
    language_model : str
        Where its weights come from (hub id, folder, GGUF file); they are never saved with this model.
    encoder : dict, optional
        What :func:`e2llm.models.encoders.config_values` gives, plus ``ch_names``.
    eeg_width : int
        Width of one time patch of the encoder's output, all summary tokens together.
    eeg_tokens : int
        State tokens that a segment takes in the prompt; divides its time patches, 16 in 4 s.
    evidence : list of str, optional
        Features whose predicted level becomes tokens too; see :class:`e2llm.models.projector.EvidenceTokens`.
    evidence_slots : int
        Largest number of them in the prompt of a segment; see :func:`e2llm.models.projector.tokens_per_slot`.
    projector_hidden : int
        Hidden width of the projector; 0 means that of the language model.
    levels : str
        Words for evidence, a key of :data:`e2llm.core.claims.SCALES`.
    eeg_token_id : int
        Id of the placeholder.
    """

    model_type = "e2llm"

    def __init__(self, text_config=None, language_model: str = "", encoder: dict | None = None, eeg_width: int = 2048,
                 eeg_tokens: int = N_PATCHES, evidence: list[str] | None = None, evidence_slots: int = 0,
                 projector_hidden: int = 0, eeg_token_id: int = 0, levels: str = "low_high", **kwargs) -> None:
        if isinstance(text_config, dict):
            text_config = AutoConfig.for_model(**text_config)
        if eeg_tokens < 1:
            raise ValueError(f"eeg_tokens must be 1 or more, got {eeg_tokens}.")
        if levels not in SCALES:
            raise ValueError(f"levels must be one of {', '.join(SCALES)}, got {levels!r:.60}.")
        self.evidence, self.evidence_slots, self.levels = list(evidence or ()), evidence_slots, levels
        if evidence_slots > len(self.evidence):
            raise ValueError(f"evidence_slots must be at most the {len(self.evidence)} features that are predicted, "
                             f"got {evidence_slots}.")
        self.text_config = text_config
        self.language_model, self.encoder = language_model, encoder
        self.eeg_width, self.eeg_tokens, self.eeg_token_id = eeg_width, eeg_tokens, eeg_token_id
        self.projector_hidden = projector_hidden
        super().__init__(**kwargs)

    @property
    def tokens_per_segment(self) -> int:
        """Placeholders that one segment takes."""
        return self.eeg_tokens + tokens_per_slot(SCALES[self.levels]) * self.evidence_slots

    def get_text_config(self, *_: object, **__: object):
        """The language model's configuration, which generation reads."""
        return self.text_config or self

    def to_dict(self) -> dict:
        """As JSON-ready dict."""
        out = super().to_dict()
        out["text_config"] = self.text_config.to_dict() if self.text_config is not None else None
        for part in (out, out["text_config"] or {}):
            # A place on this machine; ``language_model`` says where the model comes from.
            part.pop("_name_or_path", None)
        return out


class E2LLMForConditionalGeneration(PreTrainedModel, GenerationMixin):
    """EEG segments and text in, text out.

    Made by :meth:`join` from its parts, or by :meth:`from_pretrained` from what :meth:`save_pretrained` wrote. The
    auto class is ``AutoModelForCausalLM``.

    Parameters
    ----------
    config : E2LLMConfig
        Sizes of all parts.
    language_model : PreTrainedModel, optional
        A loaded one; default one with random weights.
    """

    config_class = E2LLMConfig
    base_model_prefix = ""
    _supports_sdpa = True
    supports_gradient_checkpointing = True

    def __init__(self, config: E2LLMConfig, language_model: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        text = config.text_config
        self.language_model = language_model if language_model is not None else AutoModelForCausalLM.from_config(text)
        self.projector = Projector(config.eeg_width, text.hidden_size, config.projector_hidden or text.hidden_size,
                                   config.eeg_tokens, len(config.evidence), config.evidence_slots,
                                   SCALES[config.levels])
        self.encoder: nn.Module | None = None
        if config.encoder:
            fields = dict(config.encoder)
            ch_names = fields.pop("ch_names")
            self.encoder = make_encoder(config_from(fields), ch_names)
        self.generation_config = self.language_model.generation_config

    @classmethod
    def join(cls, language_model: PreTrainedModel, tokenizer: Tokenizer, source: str, encoder: Encoder | None,
             eeg_width: int, eeg_tokens: int, seed: int, evidence_probe: EvidenceProbe | None = None,
             evidence_slots: int = 0, levels: str = "low_high") -> E2LLMForConditionalGeneration:
        """Join a loaded language model and an encoder by a fresh projector.

        Parameters
        ----------
        language_model, tokenizer : PreTrainedModel, PreTrainedTokenizerBase
            From :func:`e2llm.models.language.load_language_model`.
        source : str
            Where they came from; ``from_pretrained`` will look there.
        encoder : Encoder or None
            EEGPT or a registered one (:mod:`e2llm.models.encoders`); None when only precomputed tokens will be given.
        eeg_width, eeg_tokens : int
            See :class:`E2LLMConfig`.
        seed : int
            Of the projector's weights.
        evidence_probe : EvidenceProbe, optional
            Fitted on the encoder's tokens; needed for ``evidence_slots``.
        evidence_slots, levels : int, str
            See :class:`E2LLMConfig`.

        Raises
        ------
        ValueError
            If there are evidence slots and no probe.
        """
        if evidence_slots and evidence_probe is None:
            raise ValueError("evidence_slots needs an evidence probe: pass EvidenceProbe.fit(tokens, z, names), or 0 "
                             "slots.")
        fields = None if encoder is None else {**config_values(encoder.config), "ch_names": encoder.ch_names}
        names = evidence_probe.names if evidence_slots and evidence_probe is not None else None
        config = E2LLMConfig(language_model.config, source, fields, eeg_width, eeg_tokens, names, evidence_slots,
                             eeg_token_id=tokenizer.convert_tokens_to_ids(EEG_TOKEN), levels=levels)
        torch.manual_seed(seed)
        model = cls(config, language_model)
        model._follow_language_model()
        if encoder is not None:
            cast(nn.Module, model.encoder).load_state_dict(cast(nn.Module, encoder).state_dict())
        # Start at the size of the word embeddings, so that the frozen language model gets values of a usual size.
        embeddings = cast(Tensor, language_model.get_input_embeddings().weight)
        with torch.no_grad():
            model.projector.fc2.weight.mul_(embeddings.std() / model.projector.fc2.weight.std().clamp_min(1e-8))
            model.projector.fc2.bias.zero_()
        if names is not None:
            cast(EvidenceTokens, model.projector.evidence).set_from_probe(
                cast(EvidenceProbe, evidence_probe),
                lambda text: embeddings[tokenizer(text, add_special_tokens=False)["input_ids"]].mean(dim=0))
        return model

    def without_evidence_tokens(self) -> E2LLMForConditionalGeneration:
        """The same model (weights are shared) with a projector that gives the tokens of "no evidence"."""
        return self._with_projector(self.projector.without_evidence_tokens())

    def with_random_projector(self, seed: int) -> E2LLMForConditionalGeneration:
        """The same model behind an untrained projector; the weights of language model and encoder are shared.

        Parameters
        ----------
        seed : int
            See :meth:`e2llm.models.projector.Projector.reinitialize`.
        """
        projector = copy.deepcopy(self.projector).cpu()  # drawn there, so that every device has the same one
        projector.reinitialize(seed)
        return self._with_projector(projector.to(self.device))

    def _with_projector(self, projector: nn.Module) -> E2LLMForConditionalGeneration:
        changed = copy.copy(self)
        changed._modules = {**self._modules, "projector": projector}
        return changed

    @property
    def device(self) -> torch.device:
        """Where inputs go: that of the projector, which is where the word embeddings are."""
        return self.projector.fc1.weight.device

    def _follow_language_model(self) -> None:
        """Put projector and encoder where the word embeddings are.

        The language model is never moved: it may be packed to 4 bits, or lie on several devices.
        """
        places = {str(place) for place in getattr(self.language_model, "hf_device_map", {}).values()}
        if len(places) > 1 and places & {"cpu", "disk"}:
            raise LanguageModelError("device_map leaves parts of the language model outside the GPUs, where an adapter "
                                     "cannot be joined with them: take dtype = '4bit', more GPUs or a smaller model.")
        place = cast(Tensor, self.get_input_embeddings().weight).device
        for part in (self.projector, self.encoder):
            if part is not None:
                part.to(place)

    def get_input_embeddings(self) -> nn.Module:
        """Word embeddings of the language model."""
        return self.language_model.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module:
        """Output layer of the language model."""
        return self.language_model.get_output_embeddings()

    def put_eeg_at_placeholders(self, input_ids: Tensor, eeg_features: Tensor, eeg_noise: Tensor | None = None,
                                eeg_brief: Tensor | None = None) -> Tensor:
        """Token embeddings with every placeholder replaced by its projected EEG token, in order.

        Parameters
        ----------
        input_ids : Tensor, shape (batch, length)
            With ``config.tokens_per_segment`` placeholders for each segment that is not brief.
        eeg_features : Tensor, shape (segments, n_times, eeg_width)
            All segments of the batch, row by row, in the order of the text.
        eeg_noise : Tensor, optional
            Of the same shape, in training; see :class:`e2llm.models.projector.Projector`.
        eeg_brief : Tensor of bool, shape (segments,), optional
            Which segments enter with their state tokens alone, ``config.eeg_tokens`` placeholders each.

        Raises
        ------
        ValueError
            If the number of placeholders is not that of the segments' tokens.
        """
        embeddings = self.get_input_embeddings()(input_ids)
        at = input_ids == self.config.eeg_token_id
        sizes = self._tokens_of(eeg_features, eeg_brief)
        if int(at.sum()) != int(sizes.sum()):
            raise ValueError(f"The text has {int(at.sum())} EEG placeholders, {eeg_features.shape[0]} segments need "
                             f"{int(sizes.sum())}.")
        dtype = self.projector.fc1.weight.dtype
        noise = None if eeg_noise is None else eeg_noise.to(dtype)
        tokens = self.projector(eeg_features.to(dtype), noise).to(embeddings.dtype)
        used = torch.arange(tokens.shape[1], device=tokens.device) < sizes[:, None]
        return embeddings.masked_scatter(at.unsqueeze(-1), tokens[used])

    def _tokens_of(self, segments: Tensor, eeg_brief: Tensor | None) -> Tensor:
        """Number of tokens of every segment, shape (segments,)."""
        sizes = torch.full((len(segments),), self.config.tokens_per_segment, device=segments.device)
        return sizes if eeg_brief is None else sizes.masked_fill(eeg_brief, self.config.eeg_tokens)

    def encode(self, signal_mv: Tensor) -> Tensor:
        """EEG features of segments (segments, channels, samples), millivolts, by the model's own encoder."""
        if self.encoder is None:
            raise ValueError("This model was saved without an encoder: give eeg_features, or save it with one.")
        return self.encoder(signal_mv).flatten(2)

    def forward(self, input_ids: Tensor | None = None, eeg_features: Tensor | None = None,  # type: ignore[override]
                signal_mv: Tensor | None = None, attention_mask: Tensor | None = None, labels: Tensor | None = None,
                inputs_embeds: Tensor | None = None, eeg_noise: Tensor | None = None,
                eeg_brief: Tensor | None = None, logits_to_keep: int | Tensor = 0,
                past_key_values: Cache | None = None, label_tokens: Tensor | None = None,
                position_ids: Tensor | None = None, **kwargs) -> CausalLMOutputWithPast:
        """Output of the language model, and with labels the cross-entropy.

        Parameters
        ----------
        input_ids, attention_mask, labels : Tensor of int, shape (batch, length)
            Labels are :data:`e2llm.core.chat.IGNORE` where there is no loss. With labels, logits are made only where
            the loss needs them; see :func:`e2llm.models.logits.loss_at_labels`.
        eeg_features : Tensor, shape (segments, n_times, eeg_width), optional
            Tokens of the encoder for all segments of the batch, in the order of the text.
        signal_mv : Tensor, shape (segments, channels, samples), optional
            Signals in millivolts, in place of ``eeg_features``.
        inputs_embeds : Tensor, optional
            In place of ``input_ids``.
        eeg_noise, eeg_brief : Tensor, optional
            See :meth:`put_eeg_at_placeholders`.
        logits_to_keep : int or Tensor
            Without labels: for how many places from the end logits are made (0: all), or for which.
        past_key_values : Cache, optional
            Of the text before.
        label_tokens : Tensor of int, shape (n_tokens,), optional
            With labels: the tokens of the softmax, see :func:`e2llm.models.logits.loss_at_labels`.
        position_ids : Tensor of int, shape (batch, length), optional
            Places of the tokens. It is named here so that ``generate`` counts them without padding.
        **kwargs
            Further arguments of the language model.
        """
        if signal_mv is not None:
            eeg_features = self.encode(signal_mv)
        if inputs_embeds is None and eeg_features is not None:
            inputs_embeds = self.put_eeg_at_placeholders(cast(Tensor, input_ids), eeg_features, eeg_noise,
                                                          eeg_brief)
            input_ids = None
        given = {"input_ids": input_ids, "inputs_embeds": inputs_embeds, "attention_mask": attention_mask, **kwargs}
        if past_key_values is not None:  # a state-space model has another name for it
            given["past_key_values"] = past_key_values
        if position_ids is not None:
            given["position_ids"] = position_ids
        if labels is not None:
            return loss_at_labels(self.language_model, labels, label_tokens, **given)
        return self.language_model(logits_to_keep=logits_to_keep, **given)

    def prepare_inputs_for_generation(self, input_ids, eeg_features=None, signal_mv=None,  # type: ignore[override]
                                      eeg_brief=None, is_first_iteration=False, **kwargs):
        """EEG enters with the prompt only; later steps read it from the cache.

        Parameters
        ----------
        input_ids, eeg_features, signal_mv, eeg_brief : Tensor
            See :meth:`forward`.
        is_first_iteration : bool
            Whether the prompt is read now.
        **kwargs
            As in transformers.
        """
        inputs = super().prepare_inputs_for_generation(  # type: ignore[misc]
            input_ids, is_first_iteration=is_first_iteration, **kwargs)
        first = is_first_iteration or not kwargs.get("use_cache", True)
        eeg = {"eeg_features": eeg_features, "signal_mv": signal_mv, "eeg_brief": eeg_brief}
        return {**inputs, **(eeg if first else dict.fromkeys(eeg))}

    def _expand_inputs_for_generation(self, expand_size=1, is_encoder_decoder=False, input_ids=None, **kwargs):
        """Several answers to a prompt (beams, samples): each of them has all segments of its prompt, in their order."""
        eeg = {name: kwargs.pop(name) for name in ("eeg_features", "signal_mv", "eeg_brief")
               if kwargs.get(name) is not None}
        if eeg and expand_size > 1:
            ends = self._tokens_of(next(iter(eeg.values())), eeg.get("eeg_brief")).cumsum(0)
            placeholders = (input_ids == self.config.eeg_token_id).sum(dim=1).cumsum(0)
            until = torch.searchsorted(ends, placeholders, right=True)  # segments that end within a row or before it
            counts = until.diff(prepend=until.new_zeros(1)).tolist()
            eeg = {name: torch.cat([segments for row in value.split(counts) for segments in [row] * expand_size])
                   for name, value in eeg.items()}
        input_ids, kwargs = super()._expand_inputs_for_generation(  # type: ignore[misc]
            expand_size, is_encoder_decoder, input_ids, **kwargs)
        return input_ids, {**kwargs, **eeg}

    def own_state(self) -> dict[str, Tensor]:
        """Weights that belong to this model: projector and encoder, never the language model."""
        return _own(self.state_dict())

    def save_pretrained(self, save_directory: str | os.PathLike,  # type: ignore[override]
                        is_main_process: bool = True, state_dict: dict[str, Tensor] | None = None) -> None:
        """Write configuration, projector and encoder; the frozen language model is named, not copied.

        Parameters
        ----------
        save_directory : str or path
            Made if it is not there.
        is_main_process : bool
            False writes nothing; set by a training on several devices.
        state_dict : dict of str to Tensor, optional
            Weights in place of the model's, gathered by such a training.
        """
        if not is_main_process:
            return
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / "model.safetensors") as partial:
            save_file(self.own_state() if state_dict is None else _own(state_dict), partial, metadata={"format": "pt"})
        self.config.save_pretrained(folder)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike,  # type: ignore[override]
                        language_model: str | None = None, dtype: str | torch.dtype = "float32",
                        device_map: str | dict | torch.device | None = None, revision: str | None = None,
                        config: E2LLMConfig | None = None, **hub: Any) -> E2LLMForConditionalGeneration:
        """Load what :meth:`save_pretrained` wrote; the language model comes from where the configuration says.

        Parameters
        ----------
        pretrained_model_name_or_path : str or path
            A folder, or a hub id.
        language_model : str, optional
            Take the language model from here instead (the same model at another place).
        dtype : str or torch.dtype
            Of the language model, see :func:`e2llm.models.language.load_language_model`. Projector and encoder stay
            in float32, as they were trained.
        device_map : str, dict or torch.device, optional
            Where the language model goes, as in transformers (``auto``: over all GPUs); default the device of the
            policy (:func:`e2llm.models.device.use_device`). Projector and encoder go to its word embeddings.
        revision : str, optional
            Branch, tag or commit of a hub id.
        config : E2LLMConfig, optional
            In place of the stored one.
        **hub
            Names in :data:`e2llm.models.processing.HUB_ARGUMENTS`.

        Raises
        ------
        LanguageModelError
            If the model or its language model cannot be loaded, or they do not belong together.
        TypeError
            For other arguments.
        """
        refuse_unknown(f"{cls.__name__}.from_pretrained", hub, HUB_ARGUMENTS)
        folder = _model_folder(pretrained_model_name_or_path, revision, hub)
        return cls.with_tokenizer(folder, language_model, dtype, device_map, config)[0]

    @classmethod
    def with_tokenizer(cls, folder: str | os.PathLike, language_model: str | None = None,
                       dtype: str | torch.dtype = "float32", device_map: str | dict | torch.device | None = None,
                       config: E2LLMConfig | None = None) -> tuple[E2LLMForConditionalGeneration, Tokenizer]:
        """Model and tokenizer of a folder.

        Parameters
        ----------
        folder : str or path
            Written by :meth:`save_pretrained`.
        language_model, dtype, device_map, config
            As for :meth:`from_pretrained`.

        Raises
        ------
        LanguageModelError
            As for :meth:`from_pretrained`.
        """
        folder = Path(folder)
        config = config or _read_config(folder)
        state = _read_weights(folder)
        source = language_model_source(folder, config, language_model)
        loaded, tokenizer = load_language_model(source, dtype, device_map=device_map)
        _check_language_model(config, loaded, tokenizer, f"{folder} was trained with another language model than "
                                                         f"'{source}'")
        try:
            with torch.device("meta"):  # shapes without memory: a size that the weights do not have is never allocated
                cls(config, loaded).load_state_dict(state, strict=False, assign=True)
            model = cls(config, loaded)
            report = model.load_state_dict(state, strict=False)
        except Exception as error:  # another shape, or values of another type in the configuration
            fact = str(error).strip().splitlines()[-1:] or [type(error).__name__]
            raise LanguageModelError(f"{folder}/model.safetensors does not fit its config.json: "
                                     f"{fact[0].strip()[:300]}") from None
        lost = [*_own(dict.fromkeys(report.missing_keys)), *report.unexpected_keys]
        if lost:
            raise LanguageModelError(f"{folder}/model.safetensors does not fit its config.json: {lost[:5]}.")
        model._follow_language_model()
        return model.eval(), tokenizer


def language_model_source(folder: Path, config: E2LLMConfig, language_model: str | None = None) -> str:
    """Where the language model of a stored model is loaded from.

    Parameters
    ----------
    folder : Path
        Of the model.
    config : E2LLMConfig
        Its configuration.
    language_model : str, optional
        Given in place of the stored name.

    Returns
    -------
    str
        A name or a path, as :func:`e2llm.models.language.load_language_model` takes it.
    """
    source = language_model or config.language_model
    if not language_model and not Path(source).is_absolute() and (folder / source).is_dir():
        source = str(folder / source)  # relative to the folder itself, so that a run folder can be moved
    return source


def _own(state: dict) -> dict:
    """Entries of projector and encoder."""
    return {key: value.contiguous() if isinstance(value, Tensor) else value for key, value in state.items()
            if key.startswith(("projector.", "encoder."))}


def _model_folder(name: str | os.PathLike, revision: str | None, hub: dict[str, Any]) -> Path:
    """A folder here, or a copy of what the hub has under that name."""
    if Path(name).is_dir() or isinstance(name, Path) or str(name).startswith((".", "/", "~")):
        if revision is not None:
            raise LanguageModelError(f"{name} is a folder here, which has no revision '{revision}': leave it out, or "
                                     "give a hub id.")
        return Path(name)
    arguments = {key: value for key, value in hub.items() if key in ("cache_dir", "force_download", "local_files_only",
                                                                     "token")}
    try:
        found = Path(huggingface_hub.snapshot_download(str(name), revision=revision, **arguments))
    except (OSError, ValueError, HTTPError) as error:
        raise LanguageModelError(f"'{name}' is no folder here, and the hub did not give it ({type(error).__name__}: "
                                 f"{str(error).strip().partition(chr(10))[0]}). Check name, revision and "
                                 "network.") from error
    return found / (hub.get("subfolder") or "")


def _read_config(folder: Path) -> E2LLMConfig:
    path = folder / "config.json"
    if not path.is_file():
        raise LanguageModelError(f"{folder} holds no config.json: give a folder that save_pretrained wrote.")
    try:
        stored = read_json(path, "copy the folder again")
    except ValueError as error:
        raise LanguageModelError(str(error)) from None
    if (not isinstance(stored, dict) or stored.get("model_type") != E2LLMConfig.model_type
            or not stored.get("text_config") or not isinstance(stored.get("language_model", ""), str)):
        raise LanguageModelError(f"{path} describes no E2-LLM: give a folder that save_pretrained wrote.")
    sizes = {**(stored["encoder"] if isinstance(stored.get("encoder"), dict) else {}), **stored}
    if large := [name for name, value in sizes.items() if isinstance(value, int) and value > _LARGEST_SIZE]:
        raise LanguageModelError(f"{path} has sizes that no model has ({', '.join(large)}): do not use it.")
    try:
        return E2LLMConfig.from_dict(stored)
    except Exception as error:  # of transformers, or a value of another type
        raise LanguageModelError(f"{path} describes no E2-LLM ({one_line(error)}): copy the folder again.") from error


def _read_weights(folder: Path) -> dict[str, Tensor]:
    path = folder / "model.safetensors"
    if not path.is_file():
        raise LanguageModelError(f"{path} is missing: copy the whole folder again.")
    try:
        weights = load_file(path)
    except SafetensorError as error:
        raise LanguageModelError(f"{path} is damaged ({error}): copy it again.") from None
    for name, value in weights.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise LanguageModelError(f"{path} is damaged ({name} holds values that are not finite): copy it again.")
    return weights


def _check_language_model(config: E2LLMConfig, loaded, tokenizer, fact: str) -> None:
    """A projector fits one language model: width, depth and vocabulary have to be those that it was trained with."""
    for what in ("model_type", "hidden_size", "num_hidden_layers", "vocab_size"):
        wanted, found = getattr(config.text_config, what, None), getattr(loaded.config, what, None)
        if wanted != found:
            raise LanguageModelError(f"{fact}: its {what} is {found}, not {wanted}. Give the one that it was trained "
                                     "with.")
    if (found := tokenizer.convert_tokens_to_ids(EEG_TOKEN)) != (wanted := config.eeg_token_id):
        raise LanguageModelError(f"{fact}: its tokenizer gives {EEG_TOKEN} the id {found}, not {wanted}. Give the one "
                                 "that it was trained with.")


AutoConfig.register(E2LLMConfig.model_type, E2LLMConfig, exist_ok=True)
AutoProcessor.register(E2LLMConfig, E2LLMProcessor, exist_ok=True)
AutoModelForCausalLM.register(E2LLMConfig, E2LLMForConditionalGeneration, exist_ok=True)
