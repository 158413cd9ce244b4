"""Arithmetic of sizes: parameters, floating point operations and bytes of the models, from their shapes alone.

Nothing is loaded or computed here, and no torch is needed. A multiplication and an addition are two operations, as in
``torch.utils.flop_counter``; norms, activations and softmax are left out there and here. Tests hold the numbers against
models with random weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.files import read_mapping
from .catalogue import CATALOGUE, Bundled, fetched

BYTES = {"float32": 4.0, "float16": 2.0, "bfloat16": 2.0, "auto": 2.0, "4bit": 0.5625}  # 4bit: a scale for 64 weights
ADAM = 8.0  # bytes of AdamW's two moments of a weight


@dataclass(frozen=True)
class TextShape:
    """Shape of a language model of Qwen's or Llama's kind.

    Parameters
    ----------
    hidden, layers, heads, kv_heads, head_dim, intermediate, vocabulary : int
        As ``config.json`` names them.
    tied : bool
        Whether the output layer is the embedding.
    head_norms : bool
        Whether queries and keys have norms of their own, as in Qwen3.
    """

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    tied: bool
    head_norms: bool = True

    @property
    def linear(self) -> int:
        """Weights of the linear layers of one layer."""
        attention = self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        return attention + 3 * self.hidden * self.intermediate

    @property
    def body(self) -> int:
        """Parameters of all layers and the last norm, without embedding and output layer."""
        norms = 2 * self.hidden + 2 * self.head_dim * self.head_norms
        return self.layers * (self.linear + norms) + self.hidden

    @property
    def embedding(self) -> int:
        """Parameters of the embedding, and of the output layer if that is another matrix."""
        return self.vocabulary * self.hidden * (1 if self.tied else 2)

    @property
    def parameters(self) -> int:
        """All parameters."""
        return self.body + self.embedding

    def lora(self, rank: int) -> int:
        """Parameters of an adapter of a rank on every linear layer but the output layer."""
        heads, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        ends = 2 * (self.hidden + heads) + 2 * (self.hidden + kv) + 3 * (self.hidden + self.intermediate)
        return self.layers * rank * ends

    def cache(self, bytes_each: float) -> float:
        """Bytes of keys and values that one token leaves."""
        return 2 * self.layers * self.kv_heads * self.head_dim * bytes_each

    def forward(self, rows: int, length: float, logits: float) -> float:
        """Operations of reading texts.

        Parameters
        ----------
        rows : int
            Texts.
        length : float
            Tokens of each; each attends to all (what a causal mask spares is not spared by most kernels).
        logits : float
            Places, all texts together, at which the output layer is computed.
        """
        tokens = rows * length
        attention = 4 * tokens * length * self.heads * self.head_dim
        return self.layers * (2 * tokens * self.linear + attention) + 2 * logits * self.vocabulary * self.hidden

    def backward_to_inputs(self, rows: int, length: float, logits: float) -> float:
        """Operations of the gradient with regard to the inputs, the weights frozen; arguments as in :meth:`forward`.

        Attention takes four products for the two of the forward pass.

        Parameters
        ----------
        rows, length, logits
            As for :meth:`forward`.
        """
        attention = 4 * rows * length * length * self.heads * self.head_dim * self.layers
        return self.forward(rows, length, logits) + attention

    def adapter_step(self, rows: int, length: float, rank: int) -> float:
        """Operations that an adapter adds to a training step: forward, and backward to its inputs and weights.

        Parameters
        ----------
        rows : int
            Texts of a batch.
        length : float
            Tokens of a text.
        rank : int
            Of LoRA.
        """
        return 6 * rows * length * self.lora(rank)

    def token_step(self, logits: float) -> float:
        """Operations that trained embeddings of some tokens add to a training step.

        The gradient is made of the whole output layer, and the rows of these tokens are taken out of it.

        Parameters
        ----------
        logits : float
            As for :meth:`forward`.
        """
        return 2 * logits * self.vocabulary * self.hidden

    def token_copies(self, bytes_each: float) -> float:
        """Bytes that such a step takes beside the weights: a copy of the output layer with the trained rows put in.

        And the gradient of this copy. Of the embedding both are gone before, or come after.

        Parameters
        ----------
        bytes_each : float
            Of a weight.
        """
        return 2 * bytes_each * self.vocabulary * self.hidden

    def activations(self, length: float, bytes_each: float, adapter: bool, dropout: bool = False) -> float:
        """Bytes that one text keeps for the backward pass of one layer, the layer's own weights frozen.

        Parameters
        ----------
        length : float
            Tokens.
        bytes_each : float
            Of a number; norms compute in float32.
        adapter : bool
            Whether an adapter is trained: its layers keep their inputs too, in float32.
        dropout : bool
            Whether the adapter has dropout: then each of its layers has an input of its own.
        """
        heads, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        norms = 4.0 * (2 * self.hidden + (heads + kv) * self.head_norms)
        attention = bytes_each * 4 * heads  # queries, keys and values for each head, and the output
        mlp = bytes_each * 3 * self.intermediate  # gate, its activation, and what it is multiplied with
        inputs = 0.0
        if adapter:
            own = 5 * self.hidden + heads if bytes_each < 4 or dropout else 2 * self.hidden
            inputs = 4.0 * (own + self.intermediate)
        return length * (norms + attention + mlp + inputs)


@dataclass(frozen=True)
class EncoderShape:
    """Shape of an EEGPT; see :class:`e2llm.models.eegpt.EEGPTConfig`."""

    width: int
    depth: int
    heads: int
    summary_tokens: int
    mlp_ratio: int = 4
    vocabulary: int = 62
    patch: int = 64

    @property
    def token_width(self) -> int:
        """Numbers that one time patch leaves."""
        return self.summary_tokens * self.width

    @property
    def parameters(self) -> int:
        """All parameters."""
        w, r = self.width, self.mlp_ratio
        block = 4 * w + (4 * w * w + 4 * w) + (2 * r * w * w + r * w + w)
        return (self.patch + 1) * w + self.vocabulary * w + self.summary_tokens * w + self.depth * block + 2 * w

    def forward(self, windows: float, channels: float, times: float) -> float:
        """Operations of encoding windows.

        Parameters
        ----------
        windows : float
            How many.
        channels, times : float
            Channels and time patches of each.
        """
        w, s, r = self.width, self.summary_tokens, self.mlp_ratio
        tokens = channels + s
        block = tokens * (8 + 4 * r) * w * w + 4 * tokens * tokens * w
        last = 4 * tokens * w * w + s * (4 + 4 * r) * w * w + 4 * s * tokens * w  # only summary tokens leave it
        return windows * times * (2 * channels * self.patch * w + (self.depth - 1) * block + last)

    def training_step(self, windows: float, channels: float, times: float) -> float:
        """Operations of a training step: forward, and backward to weights and inputs, but not to the signal.

        Parameters
        ----------
        windows : float
            Of a batch.
        channels, times : float
            Channels and time patches that are not left out.
        """
        embed = windows * times * 2 * channels * self.patch * self.width
        return 3 * self.forward(windows, channels, times) - embed

    def activations(self, windows: float, channels: float, times: float) -> float:
        """Bytes that a training step keeps for its backward pass, in float32.

        Parameters
        ----------
        windows, channels, times : float
            As for :meth:`training_step`.
        """
        tokens = windows * times * (channels + self.summary_tokens)
        return 4.0 * tokens * self.width * (7 + 2 * self.mlp_ratio + 1) * self.depth


@dataclass(frozen=True)
class ProjectorShape:
    """Shape of the projector; see :class:`e2llm.models.projector.Projector`. ``hidden`` is its inner width too."""

    eeg_width: int
    hidden: int
    evidence: int = 0

    @property
    def parameters(self) -> int:
        """Trained parameters."""
        return 2 * self.eeg_width + (self.eeg_width + 1) * self.hidden + (self.hidden + 1) * self.hidden

    @property
    def buffers(self) -> int:
        """Numbers that are kept and not trained: the evidence probe and its words."""
        probe = self.evidence * (2 * self.eeg_width + 1 + 2 * self.hidden)
        return probe + 3 * self.hidden if self.evidence else 0

    def training_step(self, tokens: float) -> float:
        """Operations of a training step for a number of state tokens; the features need no gradient."""
        first, second = self.eeg_width * self.hidden, self.hidden * self.hidden
        return 6 * tokens * (first + second)  # the norm before them needs a gradient


# As their config.json on the Hugging Face hub state them (Qwen/Qwen3-*, HuggingFaceTB/SmolLM2-135M-Instruct); the sizes
# of Qwen3 are also in table 1 of its technical report (arXiv 2505.09388).
KNOWN: dict[str, TextShape] = {
    "qwen3-0.6b": TextShape(1024, 28, 16, 8, 128, 3072, 151936, True),
    "qwen3-1.7b": TextShape(2048, 28, 16, 8, 128, 6144, 151936, True),
    "qwen3-4b": TextShape(2560, 36, 32, 8, 128, 9728, 151936, True),
    "qwen3-8b": TextShape(4096, 36, 32, 8, 128, 12288, 151936, False),
    "qwen3-14b": TextShape(5120, 40, 40, 8, 128, 17408, 151936, False),
    "smollm2-135m": TextShape(576, 30, 9, 3, 64, 1536, 49152, True, head_norms=False),
    "scratch": TextShape(96, 3, 4, 2, 24, 288, 3072, True),
}


def text_shape(name: str) -> TextShape:
    """Shape of a language model by its name.

    Parameters
    ----------
    name : str
        As for :func:`e2llm.models.language.load_language_model`: a known hub id, a name of the catalogue, or a folder.

    Raises
    ------
    ValueError
        If its shape is not known here.
    """
    folder = Path(name).expanduser()
    asset = CATALOGUE.get(name)
    if isinstance(asset, Bundled):
        return shape_of(Path(__file__).parent / asset.folder / "config.json")
    if asset is None and (folder / "config.json").is_file():
        return shape_of(folder / "config.json")
    if (place := fetched(name)) is not None and (place / "config.json").is_file():
        return shape_of(place / "config.json")
    short = name.partition("@")[0].rpartition("/")[2].lower().removesuffix("-instruct").removesuffix("-base")
    if short not in KNOWN:
        raise ValueError(f"The shape of the language model {name!r} is not known here (known: {', '.join(KNOWN)}): "
                         "give the folder that holds its config.json.")
    return KNOWN[short]


def shape_of(path: Path) -> TextShape:
    """Shape of a language model from its ``config.json``; ValueError names the file and what it lacks."""
    needed = {name: int for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
                                     "vocab_size")}
    remedy = "give the folder of a language model of Qwen's or Llama's kind"
    config: Mapping[str, Any] = read_mapping(path, {})
    config = config.get("text_config") or config
    if lacking := [name for name, kind in needed.items() if not isinstance(config.get(name), kind)]:
        raise ValueError(f"{path} does not say {', '.join(lacking)}: {remedy}.")
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    return TextShape(config["hidden_size"], config["num_hidden_layers"], heads,
                     config.get("num_key_value_heads") or heads, head_dim,
                     config["intermediate_size"], config["vocab_size"], bool(config.get("tie_word_embeddings", True)),
                     str(config.get("model_type", "")).startswith("qwen3"))
