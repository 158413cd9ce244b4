"""The stages of a run, one function each: what it reads, what it leaves, and when it may be skipped.

Notebooks call these; everything they need comes from the run folder and the parameters.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from .calibration import Baseline, Equaliser
from .copies import Copies, hear
from .emotions import LabelSet
from .encoder import EEGPT, EmotionEncoder, HeadParams
from .encoders import EncoderConfig, config_from, config_values, encoder_config, make_encoder, start, start_marks
from .features import EvidenceNames, evidence, group_entropy, scalp_groups
from .fetch import CATALOGUE
from .files import data_fingerprint
from .language import ScratchParams, best_dtype, load_language_model, make_language_model, make_tokenizer
from .modeling import E2LLMForConditionalGeneration, E2LLMProcessor
from .preprocess import PreprocessParams, Windows, preprocess
from .projector import LOUDEST, Ear
from .questions import Item
from .recordings import open_source
from .runs import Progress, Run, Stage, StageMissing
from .segments import MAX_CLAIMS, Segment, imagined_segments, real_segments
from .splits import Split, make_split
from .tasks import ItemBuilder, OnePersonBuilder, drill_items, read_items, text_items, write_items
from .train import (
    FitParams,
    Samples,
    encode_rows,
    examples_of,
    fit,
    item_collate,
    item_order,
    mixed_order,
    signal_collate,
    trainable,
)


@dataclass(frozen=True)
class Corpus:
    """Windows of a run with everything that a split lets one know of them."""

    windows: Windows
    label_set: LabelSet
    split: Split
    equalise: Equaliser
    z: np.ndarray  # (n_windows, n_evidence) against each person's own level
    evidence_names: EvidenceNames
    spectral: np.ndarray  # (n_windows, n_evidence + n_groups * n_bands), z and the same for scalp groups: what stage 1 learns to hear
    labels: np.ndarray  # class indices
    owners: np.ndarray  # subject names
    whose: np.ndarray  # whose levels a window is compared with (Split.whose)
    heard: np.ndarray | None = None  # z as the trained encoder hears it, NaN for windows outside the split; None before stage 1

    def segments(self, rows: np.ndarray) -> list[Segment]:
        """Segments of some windows with what may be said of them."""
        return real_segments(self.windows.index, rows, self.z, self.evidence_names, self.heard)

    def builder(self, part: str, seed: int) -> ItemBuilder:
        """Builder of items from one part of the split."""
        return ItemBuilder(self.segments(getattr(self.split, part)), self.label_set, seed)

    def examiner(self, seed: int) -> OnePersonBuilder:
        """Builder of the items of tiers 2 and 3: of the test part, each of one person."""
        return OnePersonBuilder(self.segments(self.split.test), self.label_set, seed)


def make_windows(run: Run, kind: str, data_root: str | Path, params: PreprocessParams, subjects: int | None = None, n_jobs: int = 2,
                 **options) -> Stage:
    """Preprocess a data source, with its class's options, into the ``windows`` stage; finished work with the same inputs is kept."""
    source = open_source(kind, data_root, subjects=subjects, **options)
    inputs = {"data": data_fingerprint(data_root, source.inputs(), run.path / ".data-digests.json")}
    stage = run.stage("windows", {"source": kind, "subjects": subjects, **options, **asdict(params)}, inputs=inputs)
    if not stage.done:
        stage.begin()
        skipped = preprocess(source, stage.path / "signal", params, n_jobs)
        (stage.path / "labels.json").write_text(json.dumps(asdict(source.label_set), indent=1))
        windows = Windows.open(stage.path / "signal")
        stage.finish({"windows": len(windows)}, skipped=skipped, channels=windows.channel_facts)
    return stage


def open_corpus(run: Run, protocol: dict | None = None) -> Corpus:
    """Windows of a run under a protocol.

    Parameters
    ----------
    run : Run
        With a finished ``windows`` stage.
    protocol : dict, optional
        Arguments of :func:`e2llm.splits.make_split`; default those that the encoder stage was trained with.
    """
    if protocol is None:
        protocol = run.require("encoder")["params"]["protocol"]
    folder = run.path / "windows"
    run.require("windows")
    windows = Windows.open(folder / "signal")
    stored = json.loads((folder / "labels.json").read_text())
    label_set = LabelSet(**{**stored, "labels": tuple(stored["labels"])})
    split = make_split(windows.index, **protocol)
    owners, whose = windows.index["subject"].to_numpy(dtype=object), split.whose(windows.index)
    power = np.asarray(windows.power)
    values, names = evidence(power, np.asarray(windows.shape), windows.ch_names)
    groups = group_entropy(power, scalp_groups(windows.ch_names))
    labels = np.array([label_set.index(label) for label in windows.index["label"]])
    z, z_groups = (Baseline.fit(found, whose, split).z(found, whose) for found in (values, groups))
    spectral = np.clip(np.column_stack([z, z_groups]), -LOUDEST, LOUDEST).astype(np.float32)
    heard = None
    if run.finished("encoder") is not None and run.require("encoder")["params"]["protocol"] == protocol:
        heard = np.full(z.shape, np.nan, dtype=np.float32)
        heard[split.used] = np.load(run.path / "encoder" / "heard.npy")
    return Corpus(windows, label_set, split, Equaliser.fit(power, whose, split, windows.sfreq), z, names, spectral, labels, owners, whose, heard)


def new_encoder(corpus: Corpus, size: EncoderConfig, weights: str, seed: int) -> tuple[EEGPT, str]:
    """An encoder with its start (:func:`e2llm.weights.start_encoder`: weights, physiology or noise), and a sentence on it."""
    torch.manual_seed(seed)
    encoder = make_encoder(size, corpus.windows.ch_names)
    return encoder, start(encoder, weights)


def frozen_encoder(run: Run, corpus: Corpus) -> EEGPT:
    """The encoder of a run as it was before stage 1: it has seen no label of these recordings."""
    record = run.require("encoder")
    kept = record["params"]
    if start_marks(kept["weights"]) != record["inputs"]:
        raise StageMissing(f"{kept['weights']} is not what the stage 'encoder' of {run.path} started from: bring that file back, or run lesson 02 "
                           "again.")
    return new_encoder(corpus, config_from(kept["encoder"]), kept["weights"], kept["fit"]["seed"])[0]


def train_encoder(run: Run, corpus: Corpus, protocol: dict, size: str, size_changes: dict, weights: str, params: FitParams,
                  head: HeadParams, edited: int = 0) -> Stage:
    """Stage 1: emotion-discriminative pretraining; leaves the encoder, its tokens for every used window, and its answers.

    Beside the ``params.batch_size`` windows of a batch stand ``edited`` copies of them, for the terms on evidence; see :mod:`e2llm.copies`.
    """
    config = encoder_config(size, **size_changes)
    wanted = {"protocol": protocol, "encoder": config_values(config), "weights": weights, "fit": asdict(params), "head": asdict(head),
              "edited": edited}
    stage = run.stage("encoder", wanted, needs=("windows",), inputs=start_marks(weights))
    if stage.done:
        return stage
    stage.begin()
    encoder, origin = new_encoder(corpus, config, weights, params.seed)
    rows = corpus.split.used
    before, copies = _pooled_tokens(encoder, corpus, rows), Copies.draw(corpus, corpus.split.train, params.seed)
    model = EmotionEncoder(encoder, len(corpus.label_set), corpus.spectral.shape[1], head)
    with Progress(run, params.steps, "stage 1") as progress:
        order = mixed_order(corpus.labels, corpus.owners, corpus.split.train, params)
        order = copies.beside(order, params.batch_size, edited, params.seed)
        collate = copies.collate(signal_collate(corpus.windows.data, corpus.equalise, corpus.whose, corpus.labels, corpus.spectral))
        history = fit(model, Samples(order, lambda row: row), collate, replace(params, batch_size=params.batch_size + edited),
                      stage.path / "checkpoints", terms=("ce", "supcon", "spectral", "change"), tell=progress.update)
    history.to_csv(stage.path / "history.csv", index=False)
    save_file(model.state_dict(), stage.path / "encoder.safetensors")
    tokens = encode_rows(encoder, corpus.windows.data, corpus.equalise, corpus.whose, rows, stage.path / "tokens.npy")
    names, *weights = ear = hear(encoder, copies, tokens, rows)
    save_file(dict(zip(Ear._fields[1:], weights, strict=True)), stage.path / "ear.safetensors", metadata={"names": json.dumps(names)})
    np.save(stage.path / "heard.npy", ear(tokens))
    model.cpu()
    after = model.pooled(torch.from_numpy(np.array(tokens).reshape(len(rows), tokens.shape[1], config.summary_tokens, -1))).detach()
    logits = model.classifier(after).detach().numpy()
    np.savez(stage.path / "answers.npz", rows=rows, logits=logits, before=before, after=after.numpy())
    stage.finish({"final_loss": float(history["loss"].iloc[-1])}, origin=origin)
    return stage


@torch.no_grad()
def _pooled_tokens(encoder: EEGPT, corpus: Corpus, rows: np.ndarray, batch: int = 64) -> np.ndarray:
    """Mean token of every window by an untrained encoder: the picture before training."""
    encoder.eval()
    data, whose = corpus.windows.data, corpus.whose
    parts = [encoder(corpus.equalise(data[some], whose[some])).mean(1).flatten(1).numpy()
             for some in np.array_split(rows, max(1, len(rows) // batch))]
    return np.concatenate(parts)


def load_encoder(run: Run, corpus: Corpus) -> EmotionEncoder:
    """The trained encoder of a run with its head."""
    kept = run.require("encoder")["params"]
    encoder = make_encoder(config_from(kept["encoder"]), corpus.windows.ch_names)
    model = EmotionEncoder(encoder, len(corpus.label_set), corpus.spectral.shape[1], HeadParams(**kept["head"]))
    model.load_state_dict(load_file(run.path / "encoder" / "encoder.safetensors"))
    return model.eval()


def load_ear(run: Run) -> Ear:
    """How evidence is heard in the encoder's tokens of a run."""
    run.require("encoder")
    with safe_open(run.path / "encoder" / "ear.safetensors", "pt") as stored:
        return Ear(json.loads(stored.metadata()["names"]), *(stored.get_tensor(name) for name in Ear._fields[1:]))


def load_tokens(run: Run) -> tuple[np.ndarray, dict[int, int]]:
    """Frozen encoder tokens of a run, memory-mapped, and the row of each window id."""
    folder = run.path / "encoder"
    rows = np.load(folder / "answers.npz")["rows"]
    return np.load(folder / "tokens.npy", mmap_mode="r"), {int(row): i for i, row in enumerate(rows)}


def item_text(item: Item) -> str:
    """Plain text of an item without EEG, for a tokenizer to learn from."""
    return "".join(part.get("text", "") for part in item.messages[0]["content"]) + f" {item.response(True)}"


def make_language(run: Run, corpus: Corpus, name: str, dtype: str, scratch: ScratchParams, n_items: int, drill_steps: int,
                  params: FitParams) -> Stage:
    """The language model of a run: loaded by name, or, for ``scratch``, made on the spot and taught from text alone.

    The text holds no EEG, no zero-shot scenario and no zero-shot question form.
    """
    is_scratch = name == "scratch"
    wanted = {"name": name, "dtype": dtype, "labels": list(corpus.label_set.labels)}
    if is_scratch:
        wanted |= {"scratch": asdict(scratch), "claims": MAX_CLAIMS, "n_items": n_items, "drill_steps": drill_steps, "fit": asdict(params)}
    own = [Path(name)] if not is_scratch and name not in CATALOGUE and Path(name).exists() else []  # may be edited
    inputs = {"files": data_fingerprint(own[0].parent, own, run.path / ".model-digests.json")} if own else {}
    stage = run.stage("language_model", wanted, inputs=inputs)
    if stage.done:
        return stage
    stage.begin()
    if is_scratch:
        drills = drill_items(corpus.label_set, drill_steps * params.batch_size, params.seed)
        items = [*drills, *text_items(corpus.label_set, n_items, params.seed)]
        tokenizer = make_tokenizer([item_text(item) for item in items], scratch.vocab_size)
        model = make_language_model(tokenizer, scratch, params.seed)
        processor = E2LLMProcessor(tokenizer, 1)
        examples = examples_of(items, processor, 0.5, params.seed)
        with Progress(run, params.steps, "language") as progress:
            lengths = [len(example["input_ids"]) for example in examples[len(drills) :]]
            lesson = item_order(lengths, replace(params, steps=params.steps - drill_steps))
            order = np.concatenate([np.arange(len(drills)), len(drills) + lesson])
            history = fit(model, Samples(order, examples.__getitem__), item_collate(processor, None, {}), params,
                          stage.path / "checkpoints", tell=progress.update)
        model.save_pretrained(stage.path / "model")
        tokenizer.save_pretrained(stage.path / "model")
        history.to_csv(stage.path / "history.csv", index=False)
        parameters = sum(p.numel() for p in model.parameters())
    else:
        model, tokenizer = load_language_model(name, dtype)
        parameters = sum(p.numel() for p in model.parameters())
    dtype = best_dtype() if dtype == "auto" else dtype  # decided once: what follows is computed alike wherever the run goes on
    (stage.path / "source.json").write_text(json.dumps({"name": "model" if is_scratch else name, "dtype": dtype}))
    stage.finish({"parameters": parameters, "vocabulary": len(tokenizer)})
    return stage


def open_language(run: Run):
    """Language model and tokenizer of a run, and where they come from."""
    run.require("language_model")
    folder = run.path / "language_model"
    source = json.loads((folder / "source.json").read_text())
    name = str(folder / "model") if source["name"] == "model" else source["name"]
    return *load_language_model(name, source["dtype"]), name


def train_projector(language, tokenizer, source: str, items: list[Item], tokens: np.ndarray, position: dict[int, int],
                    eeg_tokens: int, noise: float, params: FitParams, folder: Path, tell=None, ear: Ear | None = None,
                    evidence_slots: int = 0) -> tuple[E2LLMForConditionalGeneration, pd.DataFrame]:
    """Alignment: only the projector learns, so that the frozen language model says the description of a segment."""
    model = E2LLMForConditionalGeneration.join(language, tokenizer, source, None, tokens.shape[-1], eeg_tokens, params.seed, ear, evidence_slots)
    processor = E2LLMProcessor(tokenizer, eeg_tokens, evidence_slots)
    list(trainable(model, "projector."))
    examples = examples_of(items, processor, 0.0, params.seed)
    order = item_order([len(example["input_ids"]) for example in examples], params)
    history = fit(model, Samples(order, examples.__getitem__), item_collate(processor, tokens, position, noise), params, folder, tell=tell)
    return model, history


def align(run: Run, corpus: Corpus, eeg_tokens: int, evidence_slots: int, n_items: int, noise: float, params: FitParams) -> Stage:
    """Stage 2: cross-modal alignment with encoder and language model frozen."""
    settings = {"eeg_tokens": eeg_tokens, "evidence_slots": evidence_slots, "n_items": n_items, "noise": noise, "fit": asdict(params)}
    stage = run.stage("projector", settings, needs=("encoder", "language_model"))
    if stage.done:
        return stage
    stage.begin()
    items = alignment_items(corpus, "train", n_items, params.seed)
    write_items(items, stage.path / "items.jsonl")
    language, tokenizer, source = open_language(run)
    tokens, position = load_tokens(run)
    with Progress(run, params.steps, "stage 2") as progress:
        model, history = train_projector(language, tokenizer, source, items, tokens, position, eeg_tokens, noise, params,
                                         stage.path / "checkpoints", progress.update, load_ear(run), evidence_slots)
    save_file(model.own_state(), stage.path / "projector.safetensors")
    history.to_csv(stage.path / "history.csv", index=False)
    stage.finish({"final_loss": float(history["loss"].iloc[-1])})
    return stage


def alignment_items(corpus: Corpus, part: str, n: int, seed: int) -> list[Item]:
    """Descriptions of segments, and their labels: what alignment makes the language model say."""
    builder = corpus.builder(part, seed)
    return [*builder.draw("describe", n // 2), *builder.draw("predict", n - n // 2)]


def open_aligned(run: Run) -> tuple[E2LLMForConditionalGeneration, E2LLMProcessor]:
    """The model after stage 2."""
    stored = run.require("projector")["params"]
    language, tokenizer, source = open_language(run)
    tokens, _ = load_tokens(run)
    model = E2LLMForConditionalGeneration.join(language, tokenizer, source, None, tokens.shape[-1], stored["eeg_tokens"], 0,
                                               load_ear(run), stored["evidence_slots"])
    model.load_state_dict(load_file(run.path / "projector" / "projector.safetensors"), strict=False)
    return model.eval(), E2LLMProcessor(tokenizer, stored["eeg_tokens"], stored["evidence_slots"])


@dataclass(frozen=True)
class AdapterParams:
    """LoRA on the language model, and the projector's own learning rate."""

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    projector_lr: float = 1e-3
    noise: float = 0.5  # added to the encoder's tokens in training


@contextmanager
def quiet_peft() -> Iterator[None]:
    """peft reads an attribute that transformers renamed; nothing here can act on the warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        yield


LORA_TARGETS = r"language_model\..*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"


def train_adapter(model: E2LLMForConditionalGeneration, processor: E2LLMProcessor, items: list[Item], tokens: np.ndarray,
                  position: dict[int, int], adapter: AdapterParams, params: FitParams, folder: Path, tell=None) -> tuple[PeftModel, pd.DataFrame]:
    """Instruction tuning: LoRA on the language model, the projector trained on."""
    torch.manual_seed(params.seed)
    config = LoraConfig(r=adapter.rank, lora_alpha=adapter.alpha, lora_dropout=adapter.dropout, target_modules=LORA_TARGETS,
                        modules_to_save=["projector"])
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with quiet_peft():
        peft = get_peft_model(model, config)
    examples = examples_of(items, processor, 0.5, params.seed)
    return peft, fit_adapter(peft, processor, examples, tokens, position, adapter, params, folder, tell)


def fit_adapter(peft: PeftModel, processor: E2LLMProcessor, examples: list[dict], tokens: np.ndarray, position: dict[int, int],
                adapter: AdapterParams, params: FitParams, folder: Path, tell=None) -> pd.DataFrame:
    """Train an adapter and the projector on examples, in batches of similar length; the history of the loss."""
    named = [(name, p) for name, p in peft.named_parameters() if p.requires_grad]
    groups = [{"params": [p for name, p in named if "lora_" in name]},
              {"params": [p for name, p in named if "lora_" not in name], "lr": adapter.projector_lr}]
    order = item_order([len(example["input_ids"]) for example in examples], params)
    collate = item_collate(processor, tokens, position, adapter.noise)
    return fit(peft, Samples(order, examples.__getitem__), collate, params, folder, groups=groups, tell=tell)


def instruction_items(corpus: Corpus, part: str, per_kind: dict[str, int], seed: int) -> list[Item]:
    """Items of the kinds that this source serves; kinds it cannot serve are left out by its label set, not by chance."""
    builder = corpus.builder(part, seed)
    return [item for kind, n in per_kind.items() if kind in builder.kinds() for item in builder.draw(kind, n)]


def items_per_kind(run: Run) -> dict[str, int]:
    """Items of each kind that stage 3 of a run was given, in the order in which they were drawn: records sort their keys."""
    stored = run.require("adapter")["params"]["per_kind"]
    in_turn = dict.fromkeys(item.kind for item in read_items(run.path / "adapter" / "items.jsonl"))
    return {kind: stored[kind] for kind in in_turn if kind in stored}


def replay_items(corpus: Corpus, n: int, seed: int) -> list[Item]:
    """Text-only items about scenarios and descriptions, so that instruction tuning does not unlearn what text has taught.

    In the descriptions features stand together as chance will have it, not as recorded ones do: reading out evidence stays reading.
    """
    if not n:
        return []
    segments = imagined_segments(corpus.label_set, 256, np.random.default_rng(seed + 1))
    builder = ItemBuilder(segments, corpus.label_set, seed + 1)
    scenarios = [builder.scenario() if i % 2 else builder.choose() for i in range(2 * n // 3 if builder.has_scenarios else 0)]
    return [*scenarios, *builder.draw("describe", n - 2 * n // 3)]


def instruct(run: Run, corpus: Corpus, per_kind: dict[str, int], replay: int, adapter: AdapterParams, params: FitParams) -> Stage:
    """Stage 3: instruction tuning with chain of thought; ``replay`` text-only items keep what the text has taught."""
    if held_out := sorted(kind for kind in per_kind if kind.startswith("zero_")):
        raise ValueError(f"{held_out} belong to the zero-shot tier: they must not be trained on.")
    replay = replay if corpus.label_set.has_affect else 0
    settings = {"per_kind": per_kind, "replay": replay, "adapter": asdict(adapter), "fit": asdict(params)}
    stage = run.stage("adapter", settings, needs=("projector",))
    if stage.done:
        return stage
    stage.begin()
    items = instruction_items(corpus, "train", per_kind, params.seed) + replay_items(corpus, replay, params.seed)
    write_items(items, stage.path / "items.jsonl")
    model, processor = open_aligned(run)
    tokens, position = load_tokens(run)
    with Progress(run, params.steps, "stage 3") as progress:
        peft, history = train_adapter(model, processor, items, tokens, position, adapter, params, stage.path / "checkpoints", progress.update)
    peft.save_pretrained(stage.path / "lora")
    history.to_csv(stage.path / "history.csv", index=False)
    stage.finish({"final_loss": float(history["loss"].iloc[-1]), "trained": sum(p.numel() for p in peft.parameters() if p.requires_grad)})
    return stage


def open_instructed(run: Run, stage: str = "adapter") -> tuple[torch.nn.Module, E2LLMProcessor]:
    """The model after stage 3, or after another ``stage`` that leaves an adapter (``feedback``), the adapter merged."""
    run.require(stage)
    model, processor = open_aligned(run)
    with quiet_peft():
        peft = PeftModel.from_pretrained(model, str(run.path / stage / "lora"))
    return peft.merge_and_unload().eval(), processor
