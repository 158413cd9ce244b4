"""E2-LLM in the manner of a Hugging Face multimodal model: encoder, projector, language model.

``text with <|eeg|> placeholders -> token embeddings; placeholders <- projector(EEG tokens) -> language model``
"""

from __future__ import annotations

import copy
import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import CausalLMOutputWithPast

from ..core.chat import EEG_TOKEN, IGNORE
from ..core.files import replacing
from .eegpt import N_PATCHES
from .encoders import Encoder, config_from, config_values, make_encoder
from .language import LanguageModelError, load_language_model
from .projector import WORDS_OF_A_SLOT, EvidenceProbe, Projector


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
        State tokens that a segment takes in the prompt; divides the 16 time patches.
    evidence : list of str, optional
        Features whose heard level becomes tokens too; see :class:`e2llm.models.projector.EvidenceTokens`.
    evidence_slots : int
        How many of them are said of a segment, three tokens each.
    projector_hidden : int
        Hidden width of the projector; 0 means that of the language model.
    eeg_token_id : int
        Id of the placeholder.
    """

    model_type = "e2llm"

    def __init__(self, text_config=None, language_model: str = "", encoder: dict | None = None, eeg_width: int = 2048,
                 eeg_tokens: int = N_PATCHES, evidence: list[str] | None = None, evidence_slots: int = 0, projector_hidden: int = 0,
                 eeg_token_id: int = 0, **kwargs) -> None:
        if isinstance(text_config, dict):
            text_config = AutoConfig.for_model(**text_config)
        if N_PATCHES % eeg_tokens:
            raise ValueError(f"eeg_tokens must divide the {N_PATCHES} time patches of a segment, got {eeg_tokens}.")
        self.evidence, self.evidence_slots = list(evidence or ()), evidence_slots
        if evidence_slots > len(self.evidence):
            raise ValueError(f"evidence_slots must be at most the {len(self.evidence)} features that can be heard, got {evidence_slots}.")
        self.text_config = text_config
        self.language_model, self.encoder = language_model, encoder
        self.eeg_width, self.eeg_tokens, self.eeg_token_id = eeg_width, eeg_tokens, eeg_token_id
        self.projector_hidden = projector_hidden
        super().__init__(**kwargs)

    @property
    def tokens_per_segment(self) -> int:
        """Placeholders that one segment takes."""
        return self.eeg_tokens + WORDS_OF_A_SLOT * self.evidence_slots

    def get_text_config(self, *_: object, **__: object):
        """The language model's configuration, which generation reads."""
        return self.text_config or self

    def to_dict(self) -> dict:
        """As JSON-ready dict."""
        out = super().to_dict()
        out["text_config"] = self.text_config.to_dict() if self.text_config is not None else None
        for part in (out, out["text_config"] or {}):
            part.pop("_name_or_path", None)  # a place on this machine; ``language_model`` says where the model comes from
        return out


class E2LLMForConditionalGeneration(PreTrainedModel, GenerationMixin):
    """EEG segments and text in, text out.

    Made by :meth:`join` from its parts, or by :meth:`from_pretrained` from a folder that :meth:`save_pretrained` wrote.
    """

    config_class = E2LLMConfig
    base_model_prefix = ""
    _supports_sdpa = True
    supports_gradient_checkpointing = True

    def __init__(self, config: E2LLMConfig, language_model: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        text = config.text_config
        self.language_model = language_model if language_model is not None else AutoModelForCausalLM.from_config(text)
        self.projector = Projector(config.eeg_width, text.hidden_size, config.projector_hidden or text.hidden_size, config.eeg_tokens,
                                   len(config.evidence), config.evidence_slots)
        self.encoder = None
        if config.encoder:
            fields = dict(config.encoder)
            ch_names = fields.pop("ch_names")
            self.encoder = make_encoder(config_from(fields), ch_names)
        self.generation_config = self.language_model.generation_config

    @classmethod
    def join(cls, language_model, tokenizer, source: str, encoder: Encoder | None, eeg_width: int, eeg_tokens: int, seed: int,
             evidence_probe: EvidenceProbe | None = None, evidence_slots: int = 0):
        """Join a loaded language model and an encoder by a fresh projector.

        Parameters
        ----------
        language_model, tokenizer
            From :func:`e2llm.models.language.load_language_model`.
        source : str
            Where they came from; ``from_pretrained`` will look there.
        encoder : Encoder or None
            EEGPT or a registered one (:mod:`e2llm.models.encoders`); None when only precomputed tokens will be given.
        eeg_width, eeg_tokens : int
            See :class:`E2LLMConfig`.
        seed : int
            Of the projector's weights.
        ear : Ear, optional
            How evidence is heard in the encoder's tokens; needed for ``evidence_slots``.
        evidence_slots : int
            See :class:`E2LLMConfig`.
        """
        fields = {**config_values(encoder.config), "ch_names": encoder.ch_names} if encoder is not None else None
        if evidence_slots and evidence_probe is None:
            raise ValueError("evidence_slots needs an ear: pass Ear.fit(tokens, z, names), or 0 slots.")
        config = E2LLMConfig(language_model.config, source, fields, eeg_width, eeg_tokens,
                             evidence_probe.names if evidence_slots else None, evidence_slots,
                             eeg_token_id=tokenizer.convert_tokens_to_ids(EEG_TOKEN))
        torch.manual_seed(seed)
        model = cls(config, language_model)
        if encoder is not None:
            model.encoder.load_state_dict(encoder.state_dict())
        # Start at the size of the word embeddings, so that the frozen language model hears EEG at a normal volume.
        embeddings = language_model.get_input_embeddings().weight
        with torch.no_grad():
            model.projector.fc2.weight.mul_(embeddings.std() / model.projector.fc2.weight.std().clamp_min(1e-8))
            model.projector.fc2.bias.zero_()
        if evidence_slots:
            model.projector.evidence.set_from_probe(evidence_probe, lambda text: embeddings[tokenizer(text, add_special_tokens=False)["input_ids"]].mean(dim=0))
        return model

    def without_evidence_tokens(self) -> E2LLMForConditionalGeneration:
        """The same model (weights are shared) with a projector that says nothing of the evidence."""
        quiet = copy.copy(self)
        quiet._modules = {**self._modules, "projector": self.projector.without_evidence_tokens()}
        return quiet

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module:
        return self.language_model.get_output_embeddings()

    def put_eeg_at_placeholders(self, input_ids: Tensor, eeg_features: Tensor, eeg_noise: Tensor | None = None) -> Tensor:
        """Token embeddings with every placeholder replaced by its projected EEG token, in order.

        Parameters
        ----------
        input_ids : Tensor, shape (batch, length)
            With ``config.tokens_per_segment`` placeholders for each segment.
        eeg_features : Tensor, shape (segments, 16, eeg_width)
            All segments of the batch, row by row, in the order of the text.
        eeg_noise : Tensor, optional
            Of the same shape, in training; see :class:`e2llm.models.projector.Projector`.

        Raises
        ------
        ValueError
            If the number of placeholders is not that of the segments' tokens.
        """
        embeddings = self.get_input_embeddings()(input_ids)
        at = input_ids == self.config.eeg_token_id
        wanted = eeg_features.shape[0] * self.config.tokens_per_segment
        if int(at.sum()) != wanted:
            raise ValueError(f"The text has {int(at.sum())} EEG placeholders, {eeg_features.shape[0]} segments need {wanted}.")
        dtype = self.projector.fc1.weight.dtype
        tokens = self.projector(eeg_features.to(dtype), None if eeg_noise is None else eeg_noise.to(dtype)).to(embeddings.dtype)
        return embeddings.masked_scatter(at.unsqueeze(-1), tokens.flatten(0, 1))

    def encode(self, signal_mv: Tensor) -> Tensor:
        """EEG features of segments (segments, channels, 1024), millivolts, by the model's own encoder."""
        if self.encoder is None:
            raise ValueError("This model was saved without an encoder: give eeg_features, or save it with one.")
        return self.encoder(signal_mv).flatten(2)

    def forward(self, input_ids: Tensor | None = None, eeg_features: Tensor | None = None, signal_mv: Tensor | None = None,
                attention_mask: Tensor | None = None, labels: Tensor | None = None, inputs_embeds: Tensor | None = None,
                eeg_noise: Tensor | None = None, logits_to_keep: int | Tensor = 0, **kwargs) -> CausalLMOutputWithPast:
        """Language-model output; give EEG as precomputed ``eeg_features`` or as ``signal_mv``.

        With ``labels``, logits are made at the places before a label only (of any row): the loss needs no others, and over a vocabulary
        of a hundred thousand they are the larger part of the work. Otherwise ``logits_to_keep`` says for how many places from the end
        (0: all), or for which.
        """
        if signal_mv is not None:
            eeg_features = self.encode(signal_mv)
        if inputs_embeds is None and eeg_features is not None:
            inputs_embeds, input_ids = self.put_eeg_at_placeholders(input_ids, eeg_features, eeg_noise), None
        if labels is not None:
            next_labels = nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORE)
            logits_to_keep = (next_labels != IGNORE).any(dim=0).nonzero().squeeze(1)
        out = self.language_model(input_ids=input_ids, inputs_embeds=inputs_embeds, attention_mask=attention_mask,
                                  logits_to_keep=logits_to_keep, **kwargs)
        if labels is not None:
            out.loss = nn.functional.cross_entropy(out.logits.float().flatten(0, 1), next_labels[:, logits_to_keep].flatten(), ignore_index=IGNORE)
        return out

    def prepare_inputs_for_generation(self, input_ids, eeg_features=None, signal_mv=None, is_first_iteration=False, **kwargs):
        """EEG enters with the prompt only; later steps read it from the cache."""
        inputs = super().prepare_inputs_for_generation(input_ids, is_first_iteration=is_first_iteration, **kwargs)
        first = is_first_iteration or not kwargs.get("use_cache", True)
        return {**inputs, "eeg_features": eeg_features if first else None, "signal_mv": signal_mv if first else None}

    def _expand_inputs_for_generation(self, expand_size=1, is_encoder_decoder=False, input_ids=None, **kwargs):
        """Several answers to a prompt (beams, samples): each of them hears all segments of its prompt, in their order."""
        eeg = {name: kwargs.pop(name) for name in ("eeg_features", "signal_mv") if kwargs.get(name) is not None}
        if eeg and expand_size > 1:
            counts = ((input_ids == self.config.eeg_token_id).sum(dim=1) // self.config.tokens_per_segment).tolist()
            eeg = {name: torch.cat([segments for row in value.split(counts) for segments in [row] * expand_size]) for name, value in eeg.items()}
        input_ids, kwargs = super()._expand_inputs_for_generation(expand_size, is_encoder_decoder, input_ids, **kwargs)
        return input_ids, {**kwargs, **eeg}

    def own_state(self) -> dict[str, Tensor]:
        """Weights that belong to this model: projector and encoder, never the language model."""
        return {key: value.contiguous() for key, value in self.state_dict().items() if key.startswith(("projector.", "encoder."))}

    def save_pretrained(self, save_directory, **_: object) -> None:
        """Write configuration, projector and encoder; the frozen language model is named, not copied."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / "model.safetensors") as partial:
            save_file(self.own_state(), partial, metadata={"format": "pt"})
        self.config.save_pretrained(folder)

    @classmethod
    def from_pretrained(cls, folder, language_model: str | None = None, dtype: str = "float32", **_: object):
        """Load a folder of :meth:`save_pretrained`; the language model comes from where the configuration says.

        Parameters
        ----------
        folder : path
            Written by :meth:`save_pretrained`.
        language_model : str, optional
            Take the language model from here instead (the same model at another place).

        Raises
        ------
        LanguageModelError
            If the folder or its language model cannot be loaded, or they do not belong together.
        """
        return cls.with_tokenizer(folder, language_model, dtype)[0]

    @classmethod
    def with_tokenizer(cls, folder, language_model: str | None = None, dtype: str = "float32"):
        """What :meth:`from_pretrained` loads, and the language model's tokenizer; same parameters and errors."""
        folder = Path(folder)
        config = _read_config(folder)
        state = _read_weights(folder)
        source = language_model or config.language_model
        if not language_model and not Path(source).is_absolute() and (folder / source).is_dir():
            source = str(folder / source)  # relative to the folder itself, so that a run folder can be moved
        loaded, tokenizer = load_language_model(source, dtype)
        _check_language_model(config, loaded, tokenizer, f"{folder} was trained with another language model than '{source}'")
        model = cls(config, loaded)
        try:
            report = model.load_state_dict(state, strict=False)
        except RuntimeError as error:
            raise LanguageModelError(f"{folder}/model.safetensors does not fit its config.json: {str(error).splitlines()[-1].strip()}") from None
        lost = [key for key in report.missing_keys if key.startswith(("projector.", "encoder."))] + list(report.unexpected_keys)
        if lost:
            raise LanguageModelError(f"{folder}/model.safetensors does not fit its config.json: {lost[:5]}.")
        return model.eval(), tokenizer


def _read_config(folder: Path) -> E2LLMConfig:
    path = folder / "config.json"
    if not path.is_file():
        raise LanguageModelError(f"{folder} holds no config.json: give a folder that save_pretrained wrote.")
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise LanguageModelError(f"{path} is not JSON ({error}): copy the folder again.") from None
    if not isinstance(stored, dict) or stored.get("model_type") != E2LLMConfig.model_type or not stored.get("text_config"):
        raise LanguageModelError(f"{path} describes no E2-LLM: give a folder that save_pretrained wrote.")
    return E2LLMConfig.from_dict(stored)


def _read_weights(folder: Path) -> dict[str, Tensor]:
    path = folder / "model.safetensors"
    if not path.is_file():
        raise LanguageModelError(f"{path} is missing: copy the whole folder again.")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise LanguageModelError(f"{path} is damaged ({error}): copy it again.") from None


def _check_language_model(config: E2LLMConfig, loaded, tokenizer, fact: str) -> None:
    """A projector speaks to one language model: width, depth and vocabulary have to be those that it was trained with."""
    for what in ("model_type", "hidden_size", "num_hidden_layers", "vocab_size"):
        wanted, found = getattr(config.text_config, what, None), getattr(loaded.config, what, None)
        if wanted != found:
            raise LanguageModelError(f"{fact}: its {what} is {found}, not {wanted}. Give the one that it was trained with.")
    if (found := tokenizer.convert_tokens_to_ids(EEG_TOKEN)) != (wanted := config.eeg_token_id):
        raise LanguageModelError(f"{fact}: its tokenizer calls {EEG_TOKEN} {found}, not {wanted}. Give the one that it was trained with.")
