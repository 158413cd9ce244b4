"""The stages of a run, one function each: what it reads, what it leaves, and when it may be skipped.

Notebooks call these; everything they need comes from the run folder and the parameters.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ..core.claims import LOW_HIGH, SCALES
from ..core.files import data_fingerprint
from ..core.labels import LabelSet
from ..data.dataset import Corpus
from ..data.preprocess_params import PreprocessParams
from ..data.preprocessing import Windows, write_windows
from ..data.sources import open_source
from ..models.catalogue import CATALOGUE, Bundled, card
from ..models.device import best_dtype, current_device
from ..models.eegpt import EEGPT
from ..models.encoders import check_length, config_from, config_values, encoder_config, initialization_key, make_encoder
from ..models.evidence_probe import EvidenceProbe
from ..tasks.items import ItemBuilder, read_items, write_items
from ..training.augmentation import TARGETS_Z, AugmentedWindows
from ..training.losses import EmotionEncoder, HeadParams
from ..training.stage1_encoder import fit_encoder, new_encoder
from ..training.trainer import FitParams
from .parameters import checked
from .processes import ask_to_share, check_sharded, made_in_processes
from .runs import Progress, Run, Stage, StageMissing, runs_folder
from .spreading import asked_scheduler, spread

# What stands on transformers and peft loads for seconds: functions import it, for most lessons need none.
if TYPE_CHECKING:
    import torch

    from ..models.language import ScratchParams
    from ..models.modeling import E2LLMForConditionalGeneration
    from ..models.processing import E2LLMProcessor
    from ..training.stage3_instruction import AdapterParams

DEFAULTS = checked({})  # what the stages take where nothing is given: the defaults of the command line
KINDS = ("predict", "describe", "select", "compare", "rank", "match", "choose")  # of instruction items
SHARES = {"predict": 3, "choose": 2}  # how many times as many items as of the other kinds


def _fit_params(steps: int, batch_size: int, lr: float, **more: float) -> FitParams:
    return FitParams(steps, batch_size, lr, seed=DEFAULTS.seed, save_steps=DEFAULTS.save_steps, **more)


def preprocess(run: Run, kind: str, data_root: str | Path, params: PreprocessParams | None = None,
               subjects: int | None = None, n_jobs: int = 2, scheduler: str | None = None, **options) -> Stage:
    """Preprocess a data source into the stage ``windows``; finished work with the same inputs is kept.

    Parameters
    ----------
    run : Run
        Where the stage is kept.
    kind : str
        Kind of source, a key of :data:`e2llm.data.sources.SOURCES`: "seed-vii", "folder", "bids", ...
    data_root : path
        Folder of the recordings.
    params : PreprocessParams, optional
        Filters, artifacts, windows.
    subjects : int, optional
        Read only so many subjects.
    n_jobs : int
        Recordings processed at a time, here.
    scheduler : str, optional
        Address of a Dask scheduler whose workers process the recordings instead; the windows are the same. Default:
        what the environment variable :data:`e2llm.app.spreading.SCHEDULER` says, and "" keeps them here.
    **options
        Further arguments of the source's class.

    Returns
    -------
    Stage
        Recordings that could not be used are listed in its facts.

    Raises
    ------
    SourceError
        If the folder is not what this kind of source reads.
    OSError
        If the cluster cannot be used (:class:`e2llm.app.cluster.ClusterError`).
    """
    scheduler = asked_scheduler(scheduler)
    if scheduler:
        data_root = Path(data_root).absolute()  # workers have working directories of their own
    params, source = params or PreprocessParams(), open_source(kind, data_root, subjects=subjects, **options)
    inputs = {"data": data_fingerprint(data_root, source.inputs(), run.path / ".data-digests.json")}
    stage = run.stage("windows", {"source": kind, "subjects": subjects, **options, **asdict(params)}, inputs=inputs)
    if not stage.done:
        files = [recording.path for recording in source.recordings if recording.path.is_file()]
        with spread(scheduler, n_jobs, runs_folder(), files):
            stage.begin()
            skipped = write_windows(source, stage.path.absolute() / "signal", params, n_jobs)
        windows = Windows.open(stage.path / "signal")
        n_windows, facts, labels = len(windows), windows.channel_facts, source.answers(windows.index["label"])
        del windows  # Windows renames no folder of which a file is open
        (stage.path / "labels.json").write_text(json.dumps(asdict(labels), indent=1))
        stage.finish({"windows": n_windows}, skipped=skipped, channels=facts)
    return stage


def open_dataset(run: Run, split_settings: dict | None = None, levels: str | None = None) -> Corpus:
    """Windows of a run under a protocol.

    Parameters
    ----------
    run : Run
        With a finished ``windows`` stage.
    split_settings : dict, optional
        Arguments of :func:`e2llm.data.splits.make_split`; default those that the encoder stage was trained with.
    levels : str, optional
        Words for evidence, a key of :data:`e2llm.core.claims.SCALES`; default those that stage 2 was trained with, and
        before it those of the default run.
    """
    if split_settings is None:
        split_settings = run.require("encoder")["params"]["protocol"]
    folder = run.path / "windows"
    run.require("windows")
    windows = Windows.open(folder / "signal")
    stored = json.loads((folder / "labels.json").read_text())
    predicted_evidence = None
    if run.finished("encoder") is not None and run.require("encoder")["params"]["protocol"] == split_settings:
        predicted_evidence = np.load(run.path / "encoder" / "predicted_evidence.npy")
    if levels is None:
        projector = run.finished("projector")  # those of older versions name no levels
        levels = DEFAULTS.levels if projector is None else projector["params"].get("levels", LOW_HIGH.name)
    return Corpus.build(windows, LabelSet.from_dict(stored), split_settings, predicted_evidence, SCALES[levels])


def initial_encoder(run: Run, corpus: Corpus) -> EEGPT:
    """The encoder of a run as it was before stage 1: it has seen no label of these recordings.

    Parameters
    ----------
    run : Run
        With a finished stage 1.
    corpus : Corpus
        Its dataset.

    Raises
    ------
    StageMissing
        If the weights that stage 1 started from have changed or are gone.
    """
    record = run.require("encoder")
    kept = record["params"]
    if initialization_key(kept["weights"]) != record["inputs"]:
        raise StageMissing(f"{kept['weights']} is not what the stage 'encoder' of {run.path} started from: bring that "
                           "file back, or run lesson 02 again.")
    return new_encoder(corpus, config_from(kept["encoder"]), kept["weights"], kept["fit"]["seed"])[0]


def train_encoder(run: Run, corpus: Corpus, split_settings: dict, size: str = DEFAULTS.encoder_size,
                  size_changes: dict | None = None, weights: str = DEFAULTS.encoder_weights,
                  params: FitParams | None = None, head: HeadParams | None = None,
                  augmented_windows: int = DEFAULTS.augmented_windows, processes: int = DEFAULTS.processes,
                  token_dtype: str = DEFAULTS.token_dtype) -> Stage:
    """Stage 1: train the encoder; leaves the encoder, its tokens for every used window, and its answers.

    Parameters
    ----------
    run : Run
        With a finished stage ``windows``.
    corpus : Corpus
        Its dataset.
    split_settings : dict
        Arguments of :func:`e2llm.data.splits.make_split` that the dataset was opened with.
    size : str
        Name of a registered encoder size; see :func:`e2llm.models.encoders.encoder_config`.
    size_changes : dict, optional
        Fields of the encoder's configuration that differ from the size's.
    weights : str
        Initialization: "", "random", "scaled", or a checkpoint; see
        :func:`e2llm.models.eegpt_weights.initialize_encoder`.
    params : FitParams, optional
        Schedule.
    head : HeadParams, optional
        Weights of the losses.
    augmented_windows : int
        Augmented windows that join the ``params.batch_size`` windows of a batch, for the losses on evidence; see
        :mod:`e2llm.training.augmentation`.
    processes : int
        That train together; see :func:`e2llm.app.processes.made_in_processes`.
    token_dtype : str
        Of the file of tokens; see :func:`e2llm.training.trainer.encode_rows`.

    Raises
    ------
    ProcessError
        If one of several processes fails.
    ValueError
        If the encoder does not take windows of this length, or processes cannot share a batch.
    """
    if size_changes is None:
        size_changes = {"patch_dropout": DEFAULTS.patch_dropout, "channel_dropout": DEFAULTS.channel_dropout}
    params = params or _fit_params(DEFAULTS.encoder_steps, DEFAULTS.encoder_batch, DEFAULTS.encoder_lr)
    head = head or HeadParams(supcon=DEFAULTS.supcon_weight, spectral=DEFAULTS.spectral_weight,
                              change=DEFAULTS.change_weight)
    config = encoder_config(size, **size_changes)
    check_length(config, corpus.windows.window_s)
    wanted = {"protocol": split_settings, "encoder": config_values(config), "weights": weights, "fit": asdict(params),
              "head": asdict(head), "augmented_windows": augmented_windows, "token_dtype": token_dtype}
    stage = run.stage("encoder", wanted, needs=("windows",), inputs=initialization_key(weights))
    if stage.done:
        return stage
    ask_to_share(processes, {"encoder_batch": params.batch_size, "augmented_windows": augmented_windows})
    made = made_in_processes(stage.begin(), processes)
    metrics, facts = made or make_encoder_files(run, stage.path, stage.params, corpus)
    return stage.finish(metrics, **facts)


def make_encoder_files(run: Run, folder: Path, settings: dict, corpus: Corpus | None = None) -> tuple[dict, dict]:
    """Files of stage 1 in a folder; several processes that train together each call it.

    Parameters
    ----------
    run : Run
        With a finished stage ``windows``.
    folder : Path
        Work folder of the stage.
    settings : dict
        Its parameters, as :func:`train_encoder` keeps them.
    corpus : Corpus, optional
        Its dataset; opened by default.

    Returns
    -------
    metrics, facts : dict
        For :meth:`e2llm.app.runs.Stage.finish`.
    """
    corpus, params = corpus or open_dataset(run, settings["protocol"]), FitParams(**settings["fit"])
    train = corpus.split.train
    with Progress(run, len(TARGETS_Z) * len(train), "band edits") as progress:
        augmented = AugmentedWindows.draw(corpus, train, params.seed, progress.update)
    with Progress(run, params.steps, "stage 1") as progress:
        made = fit_encoder(corpus, config_from(settings["encoder"]), settings["weights"], params,
                           HeadParams(**settings["head"]), settings["augmented_windows"], folder / "checkpoints",
                           folder / "tokens.npy", progress.update, augmented, settings["token_dtype"])
    made.history.to_csv(folder / "history.csv", index=False)
    save_file(made.model.state_dict(), folder / "encoder.safetensors")
    probe = made.evidence_probe
    save_file({"weight": probe.weight, "bias": probe.bias}, folder / "evidence_probe.safetensors",
              metadata={"names": json.dumps(probe.names)})
    np.save(folder / "predicted_evidence.npy", made.predicted_evidence)
    np.savez(folder / "answers.npz", rows=corpus.split.used, logits=made.logits, before=made.before, after=made.after)
    return {"final_loss": float(made.history["loss"].iloc[-1])}, {"origin": made.initialization}


def load_encoder(run: Run, corpus: Corpus) -> EmotionEncoder:
    """The trained encoder of a run with its head, on the device of the policy.

    Parameters
    ----------
    run : Run
        With a finished stage 1.
    corpus : Corpus
        Its dataset.
    """
    kept = run.require("encoder")["params"]
    encoder = make_encoder(config_from(kept["encoder"]), corpus.windows.ch_names)
    model = EmotionEncoder(encoder, len(corpus.label_set), corpus.spectral.shape[1], HeadParams(**kept["head"]))
    model.load_state_dict(load_file(run.path / "encoder" / "encoder.safetensors"))
    return model.to(current_device()).eval()


def load_evidence_probe(run: Run) -> EvidenceProbe:
    """The evidence probe of a run, fitted on tokens of its encoder."""
    run.require("encoder")
    with safe_open(run.path / "encoder" / "evidence_probe.safetensors", "pt") as stored:
        names = json.loads(stored.metadata()["names"])
        return EvidenceProbe(names, stored.get_tensor("weight"), stored.get_tensor("bias"))


def load_tokens(run: Run) -> tuple[np.ndarray, dict[int, int]]:
    """Frozen encoder tokens of a run, memory-mapped, and the row of each window id."""
    folder = run.path / "encoder"
    rows = np.load(folder / "answers.npz")["rows"]
    return np.load(folder / "tokens.npy", mmap_mode="r"), {int(row): i for i, row in enumerate(rows)}


def make_language_model(run: Run, corpus: Corpus, name: str = DEFAULTS.language_model, dtype: str = DEFAULTS.dtype,
                        scratch: ScratchParams | None = None, n_items: int = DEFAULTS.language_items,
                        drill_steps: int = DEFAULTS.drill_steps, params: FitParams | None = None,
                        attention: str = DEFAULTS.attention) -> Stage:
    """The language model of a run: loaded by name, or, for ``scratch``, made on the spot and taught from text alone.

    The text holds no EEG, no zero-shot scenario and no zero-shot question form.

    Parameters
    ----------
    run : Run
        Where the stage is kept.
    corpus : Corpus
        Gives the labels, and the scale of the claims.
    name : str
        What :func:`e2llm.models.language.load_language_model` loads, or ``scratch``.
    dtype : str
        Number format: ``float32``, ``bfloat16``, ``float16``, ``auto`` or ``4bit``.
    scratch : ScratchParams, optional
        Size of a model made on the spot.
    n_items, drill_steps : int
        Texts that it learns from, and steps of drills that come first.
    params : FitParams, optional
        Its schedule.
    attention : str
        ``auto``, or ``flash``; see :func:`e2llm.models.device.ask_for_device`.

    Raises
    ------
    LanguageModelError
        If the model cannot be loaded.
    """
    from ..models.language import ScratchParams, load_language_model
    from ..training.language_pretraining import train_language_model

    scratch, scale = scratch or ScratchParams(), corpus.evidence_names.scale
    params = params or _fit_params(DEFAULTS.language_steps, DEFAULTS.batch_size, DEFAULTS.language_lr)
    is_scratch = name == "scratch"
    wanted = {"name": name, "dtype": dtype, "labels": list(corpus.label_set.labels)}
    chosen = {} if attention == "auto" else {"attention": attention}
    wanted |= chosen
    if is_scratch:
        wanted |= {"scratch": asdict(scratch), "levels": scale.name, "n_items": n_items, "drill_steps": drill_steps,
                   "fit": asdict(params)}
    own = [Path(name)] if not is_scratch and name not in CATALOGUE and Path(name).exists() else []  # may be edited
    inputs = {"files": data_fingerprint(own[0].parent, own, run.path / ".model-digests.json")} if own else {}
    if isinstance(CATALOGUE.get(name), Bundled):
        inputs = {"sha256": card(name)["sha256"]}  # it may have been made again
    stage = run.stage("language_model", wanted, inputs=inputs)
    if stage.done:
        return stage
    stage.begin()
    if is_scratch:
        with Progress(run, params.steps, "language") as progress:
            model, tokenizer, history = train_language_model(corpus.label_set, scratch, n_items, drill_steps, params,
                                                             stage.path / "checkpoints", progress.update, scale)
        model.save_pretrained(stage.path / "model")
        tokenizer.save_pretrained(stage.path / "model")
        history.to_csv(stage.path / "history.csv", index=False)
    else:
        model, tokenizer = load_language_model(name, dtype, attention=attention)
    parameters = sum(p.numel() for p in model.parameters())
    # Decided once: what follows is computed alike wherever the run goes on.
    dtype = best_dtype() if dtype == "auto" else dtype
    # Of a hub also the commit: whatever the hub gives later, what follows takes this one.
    if not is_scratch and (commit := getattr(model.config, "_commit_hash", None)):
        name = f"{name.partition('@')[0]}@{commit}"
    (stage.path / "source.json").write_text(json.dumps({"name": "model" if is_scratch else name, "dtype": dtype,
                                                        **chosen}))
    stage.finish({"parameters": parameters, "vocabulary": len(tokenizer)})
    return stage


def language_source(run: Run) -> dict[str, str]:
    """Name, number format and attention of a run's language model."""
    run.require("language_model")
    return json.loads((run.path / "language_model" / "source.json").read_text(encoding="utf-8"))


def open_language(run: Run):
    """Language model, on the device of the policy, and tokenizer of a run, and where they come from."""
    from ..models.language import load_language_model

    source = language_source(run)
    name = str(run.path / "language_model" / "model") if source["name"] == "model" else source["name"]
    return *load_language_model(name, source["dtype"], attention=source.get("attention", "auto")), name


def align(run: Run, corpus: Corpus, eeg_tokens: int = DEFAULTS.eeg_tokens,
          evidence_slots: int = DEFAULTS.evidence_slots,
          n_items: int = DEFAULTS.alignment_items, noise: float = DEFAULTS.token_noise,
          params: FitParams | None = None, processes: int = DEFAULTS.processes,
          sharded: bool = DEFAULTS.sharded) -> Stage:
    """Stage 2: cross-modal alignment with encoder and language model frozen.

    Parameters
    ----------
    run : Run
        With the finished stages ``encoder`` and ``language_model``.
    corpus : Corpus
        Its dataset.
    eeg_tokens, evidence_slots : int
        Tokens of a segment that the projector makes, and features whose predicted evidence is stated.
    n_items : int
        Training items, half of them descriptions.
    noise : float
        Standard deviation of the noise on the encoder's tokens, in units of theirs.
    params : FitParams, optional
        Schedule.
    processes : int
        That train together; see :func:`e2llm.app.processes.made_in_processes`.
    sharded : bool
        Each of them keeps a part of the frozen language model; see :mod:`e2llm.training.sharding`.

    Raises
    ------
    ProcessError
        If one of several processes fails.
    ValueError
        If the state tokens do not divide the time patches of a window, or processes cannot share a batch
        or the language model.
    """
    from ..training.stage2_alignment import alignment_items

    params = params or _fit_params(DEFAULTS.alignment_steps, DEFAULTS.batch_size, DEFAULTS.alignment_lr,
                                   accumulate=DEFAULTS.accumulate, weight_decay=0.1)
    levels = corpus.evidence_names.scale.name
    settings = {"eeg_tokens": eeg_tokens, "evidence_slots": evidence_slots, "levels": levels, "n_items": n_items,
                "noise": noise, "fit": asdict(params)}
    stage = run.stage("projector", settings, needs=("encoder", "language_model"))
    if stage.done:
        return stage
    if (patches := load_tokens(run)[0].shape[1]) % eeg_tokens:
        raise ValueError(f"eeg_tokens = {eeg_tokens} must divide the {patches} time patches of a window of "
                         f"{corpus.windows.window_s:g} s: take another number.")
    check_sharded(sharded, processes, language_source(run)["dtype"])
    ask_to_share(processes, {"batch_size": params.batch_size})
    stage.begin()
    write_items(alignment_items(corpus, "train", n_items, params.seed), stage.path / "items.jsonl")
    made = made_in_processes(stage, processes, sharded)
    metrics, facts = made or make_projector_files(run, stage.path, stage.params)
    return stage.finish(metrics, **facts)


def make_projector_files(run: Run, folder: Path, settings: dict) -> tuple[dict, dict]:
    """Files of stage 2 in a folder that holds its items; several processes that train together each call it.

    Parameters
    ----------
    run : Run
        With the finished stages ``encoder`` and ``language_model``.
    folder : Path
        Work folder of the stage.
    settings : dict
        Its parameters, as :func:`align` keeps them.

    Returns
    -------
    metrics, facts : dict
        For :meth:`e2llm.app.runs.Stage.finish`.
    """
    from ..training.stage2_alignment import train_projector

    params = FitParams(**settings["fit"])
    language, tokenizer, source = open_language(run)
    tokens, position = load_tokens(run)
    with Progress(run, params.steps, "stage 2") as progress:
        model, history = train_projector(language, tokenizer, source, read_items(folder / "items.jsonl"), tokens,
                                         position, settings["eeg_tokens"], settings["noise"], params,
                                         folder / "checkpoints", progress.update, load_evidence_probe(run),
                                         settings["evidence_slots"], settings["levels"])
    save_file(model.own_state(), folder / "projector.safetensors")
    history.to_csv(folder / "history.csv", index=False)
    return {"final_loss": float(history["loss"].iloc[-1])}, {}


def open_aligned(run: Run) -> tuple[E2LLMForConditionalGeneration, E2LLMProcessor]:
    """The model after stage 2."""
    from ..models.modeling import E2LLMForConditionalGeneration
    from ..models.processing import E2LLMProcessor

    stored = run.require("projector")["params"]
    language, tokenizer, source = open_language(run)
    tokens, _ = load_tokens(run)
    model = E2LLMForConditionalGeneration.join(language, tokenizer, source, None, tokens.shape[-1],
                                               stored["eeg_tokens"], 0,
                                               load_evidence_probe(run), stored["evidence_slots"],
                                               stored.get("levels", LOW_HIGH.name))
    model.load_state_dict(load_file(run.path / "projector" / "projector.safetensors"), strict=False)
    return model.eval(), E2LLMProcessor(tokenizer, stored["eeg_tokens"], stored["evidence_slots"], model.config.levels)


def items_per_kind(run: Run) -> dict[str, int]:
    """Number of training items of each kind in stage 3 of a run, in the order in which they were drawn."""
    stored = run.require("adapter")["params"]["per_kind"]
    in_turn = dict.fromkeys(item.kind for item in read_items(run.path / "adapter" / "items.jsonl"))
    return {kind: stored[kind] for kind in in_turn if kind in stored}


def instruct(run: Run, corpus: Corpus, per_kind: dict[str, int] | None = None, replay: int = DEFAULTS.replay_items,
             adapter: AdapterParams | None = None, params: FitParams | None = None,
             processes: int = DEFAULTS.processes, sharded: bool = DEFAULTS.sharded) -> Stage:
    """Stage 3: instruction tuning with chain of thought, by LoRA.

    Parameters
    ----------
    run : Run
        With a finished stage 2.
    corpus : Corpus
        Its dataset.
    per_kind : dict of str to int, optional
        Training items of each kind.
    replay : int
        Items without EEG among them: they keep what the language model has learned from text.
    adapter : AdapterParams, optional
        LoRA, and the projector's learning rate.
    params : FitParams, optional
        Schedule.
    processes : int
        That train together; see :func:`e2llm.app.processes.made_in_processes`.
    sharded : bool
        Each of them keeps a part of the frozen language model; see :mod:`e2llm.training.sharding`.

    Raises
    ------
    ProcessError
        If one of several processes fails.
    ValueError
        If a kind belongs to the zero-shot tier, or processes cannot share a batch or the language model.
    """
    from ..training.stage3_instruction import AdapterParams, instruction_items, replay_items

    if per_kind is None:
        per_kind = {kind: DEFAULTS.items_per_kind * SHARES.get(kind, 1) for kind in KINDS}
    adapter = adapter or AdapterParams(DEFAULTS.lora_rank, 2 * DEFAULTS.lora_rank, DEFAULTS.lora_dropout,
                                       DEFAULTS.projector_lr, DEFAULTS.token_noise)
    params = params or _fit_params(DEFAULTS.instruction_steps, DEFAULTS.batch_size, DEFAULTS.instruction_lr,
                                   accumulate=DEFAULTS.accumulate)
    if held_out := sorted(kind for kind in per_kind if kind.startswith("zero_")):
        raise ValueError(f"{held_out} belong to the zero-shot tier: they must not be trained on.")
    replay = replay if corpus.label_set.has_affect else 0
    settings = {"per_kind": per_kind, "replay": replay, "adapter": asdict(adapter), "fit": asdict(params)}
    stage = run.stage("adapter", settings, needs=("projector",))
    if stage.done:
        return stage
    check_sharded(sharded, processes, language_source(run)["dtype"])
    ask_to_share(processes, {"batch_size": params.batch_size})
    stage.begin()
    items = instruction_items(corpus, "train", per_kind, params.seed) + replay_items(corpus, replay, params.seed)
    write_items(items, stage.path / "items.jsonl")
    left_out = {}
    if lacking := {kind for kind, n in per_kind.items() if n} - {item.kind for item in items}:
        reasons = ItemBuilder.of_part(corpus, "train", params.seed).left_out()
        left_out = {"left_out": {kind: reasons[kind] for kind in sorted(lacking & reasons.keys())}}
    made = made_in_processes(stage, processes, sharded)
    metrics, facts = made or make_adapter_files(run, stage.path, stage.params)
    return stage.finish(metrics, **facts, **left_out)


def make_adapter_files(run: Run, folder: Path, settings: dict) -> tuple[dict, dict]:
    """Files of stage 3 in a folder that holds its items; several processes that train together each call it.

    Parameters
    ----------
    run : Run
        With a finished stage 2.
    folder : Path
        Work folder of the stage.
    settings : dict
        Its parameters, as :func:`instruct` keeps them.

    Returns
    -------
    metrics, facts : dict
        For :meth:`e2llm.app.runs.Stage.finish`.
    """
    from ..training.stage3_instruction import AdapterParams, train_adapter

    params = FitParams(**settings["fit"])
    model, processor = open_aligned(run)
    tokens, position = load_tokens(run)
    with Progress(run, params.steps, "stage 3") as progress:
        peft, history = train_adapter(model, processor, read_items(folder / "items.jsonl"), tokens, position,
                                      AdapterParams(**settings["adapter"]), params, folder / "checkpoints",
                                      progress.update)
    peft.save_pretrained(folder / "lora")
    history.to_csv(folder / "history.csv", index=False)
    return ({"final_loss": float(history["loss"].iloc[-1]),
             "trained": sum(p.numel() for p in peft.parameters() if p.requires_grad)},
            {"adapted": sorted({name.rpartition(".")[2] for name in peft.base_model.targeted_module_names})})


def open_instructed(run: Run, stage: str = "adapter") -> tuple[torch.nn.Module, E2LLMProcessor]:
    """The model after instruction tuning, with its adapter (:func:`e2llm.models.adapting.adapted`).

    Parameters
    ----------
    run : Run
        With the finished stage.
    stage : str
        Stage that left the adapter: ``adapter`` or ``feedback``.
    """
    from peft import PeftModel

    from ..models.adapting import adapted
    from ..training.stage3_instruction import quiet_peft

    run.require(stage)
    model, processor = open_aligned(run)
    with quiet_peft():
        peft = PeftModel.from_pretrained(model, str(run.path / stage / "lora"), torch_device=str(model.device))
    return adapted(peft), processor
