"""Steps of training as planned and as measured: seconds, and the largest memory that a process took.

``OMP_NUM_THREADS=1 python benchmarks/plan.py`` prints a table. Given the folder of a finished run and its profile,
``python benchmarks/plan.py --run runs/tiny --profile tiny`` compares the seconds of its stages instead. With
``--steps laptop`` it trains a few steps of stages 2 and 3 of that profile, with its language model and real items, and
compares them, scaled to all steps, with the plan: no constant of the plan was fitted to these.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from common import machine
from peft import LoraConfig, get_peft_model
from transformers import Qwen3Config, Qwen3ForCausalLM

from e2llm.app.pipeline import load_profile
from e2llm.app.plan import plan
from e2llm.app.plan_devices import measured_rate
from e2llm.app.plan_stages import CORE, SHARE_CPU
from e2llm.core.montage import EEGPT_VOCABULARY
from e2llm.models.arithmetic import EncoderShape, TextShape, text_shape
from e2llm.models.eegpt import EEGPT, EEGPT_SIZES, eegpt_config

CHANNELS, LENGTH, LABELS, RANK = 58, 120, 20, 16
TABLE_LENGTH, TABLE_LABELS = 75, 3  # of a question of the second pass
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def measured(work: Callable[[], object], repeats: int = 5) -> float:
    """Fewest seconds of the processor in a call of one thread, after one that is not counted.

    The fewest, for the rate that it is planned with is the highest: other work of the machine makes both worse.
    """
    work()
    took = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        took.append(time.process_time() - start)
    return min(took)


def planned(operations: float, kept: float, touched: float, layers: int = 0) -> float:
    """As a stage plans a step on a processor, at the rate that it has now; it begins so many layers."""
    rate = measured_rate()
    return operations / (SHARE_CPU * rate) + kept / touched / rate + layers * CORE.layer


def encoder_steps() -> Iterator[tuple[str, float, float]]:
    """Steps of stage 1, and encoding."""
    for size, batch, dropped in (("tiny2", 64, (0.75, 0.5)), ("tiny3", 16, (0.5, 0.25)), ("large", 2, (0.0, 0.0))):
        config = EEGPT_SIZES[size]
        shape = EncoderShape(config.width, config.depth, config.heads, config.summary_tokens)
        model = EEGPT(eegpt_config(size, patch_dropout=dropped[0], channel_dropout=dropped[1]),
                      list(EEGPT_VOCABULARY)[:CHANNELS])
        signal = torch.randn(batch, CHANNELS, 1024)
        kept = round(CHANNELS * (1 - dropped[1])), round(16 * (1 - dropped[0]))
        yield (f"stage 1, {size}, {batch} windows", measured(lambda m=model, x=signal: m.train()(x).sum().backward()),
               planned(shape.training_step(batch, *kept), shape.activations(batch, *kept), CORE.touched,
                       shape.depth))
        with torch.no_grad():
            took = measured(lambda m=model, x=signal: m.eval()(x))
        yield (f"encoding, {size}, {batch} windows", took,
               planned(shape.forward(batch, CHANNELS, 16), shape.activations(batch, CHANNELS, 16) / 2,
                       CORE.touched))


def language_steps() -> Iterator[tuple[str, float, float]]:
    """Steps of stages 2 and 3 and of the second pass by language models with random weights."""
    for name, shape, batch in (("e2llm-tiny", text_shape("e2llm-tiny"), 16),
                               ("30 million", TextShape(512, 8, 8, 4, 64, 1536, 8000, True), 8),
                               ("smollm2-135m", text_shape("smollm2-135m"), 4)):  # fmt: skip
        model = random_model(shape)
        given = torch.randn(batch, LENGTH, shape.hidden, requires_grad=True)

        logits = LABELS * batch
        operations = shape.forward(batch, LENGTH, logits) + shape.backward_to_inputs(batch, LENGTH, logits)
        for stage, own, more in ((2, model, 0.0), (3, None, shape.adapter_step(batch, LENGTH, RANK))):
            own = own or get_peft_model(model, LoraConfig(r=RANK, target_modules=TARGETS))
            kept = batch * shape.layers * shape.activations(LENGTH, 4.0, stage == 3) + 12.0 * logits * shape.vocabulary
            yield (f"stage {stage}, {name}, {batch} items",
                   measured(lambda m=own, x=given: step(m, LABELS, inputs_embeds=x)),
                   planned(operations + more, kept, CORE.touched_text, shape.layers))
        # The second pass: shorter texts, four times as many, and the embeddings of some tokens are trained.
        rows = 4 * batch
        own = get_peft_model(random_model(shape), LoraConfig(
            r=RANK, target_modules=TARGETS, trainable_token_indices={"embed_tokens": list(range(40))}))
        ids = torch.randint(shape.vocabulary, (rows, TABLE_LENGTH))
        logits = TABLE_LABELS * rows
        operations = (shape.forward(rows, TABLE_LENGTH, logits) + shape.backward_to_inputs(rows, TABLE_LENGTH, logits)
                      + shape.adapter_step(rows, TABLE_LENGTH, RANK) + shape.token_step(logits))
        kept = rows * shape.layers * shape.activations(TABLE_LENGTH, 4.0, True) + 12.0 * logits * shape.vocabulary
        yield (f"second pass, {name}, {rows} tables", measured(lambda m=own, x=ids: step(m, TABLE_LABELS, input_ids=x)),
               planned(operations, kept, CORE.touched_text, shape.layers) + 4 * shape.token_copies(4.0) / 10e9)


def random_model(shape: TextShape) -> Qwen3ForCausalLM:
    """A frozen language model of a shape, with random weights."""
    return Qwen3ForCausalLM(Qwen3Config(
        vocab_size=shape.vocabulary, hidden_size=shape.hidden, intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers, num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim, tie_word_embeddings=shape.tied)).requires_grad_(False)  # fmt: skip


def step(model: torch.nn.Module, labels: int, **given: torch.Tensor) -> None:
    """Forward and backward pass of a batch, with logits at the last places of each text."""
    mask = torch.ones(next(iter(given.values())).shape[:2], dtype=torch.long)
    mask[0, -5:] = 0
    out = model(attention_mask=mask, logits_to_keep=labels, **given).logits
    out.float().logsumexp(-1).mean().backward()


def run_stages(folder: Path, profile: str) -> Iterator[tuple[str, float, float]]:
    """Stages of a finished run."""
    found = plan(load_profile(profile))
    for stage in found.stages:
        took = json.loads((folder / stage.name / "stage.json").read_text())["seconds"]
        yield stage.name, took, stage.seconds


def profile_steps(profile: str, few: int = 2, more: int = 5) -> Iterator[tuple[str, float, float]]:
    """Stages 2 and 3 of a profile: seconds of the processor for a few steps, scaled to all of them.

    What happens once (loading, items) is left out by the difference of two trainings. The plan's rate is measured
    before and after them, for the processor may be slower beside other work.
    """
    from e2llm.app import stages
    from e2llm.app.parameters import checked
    from e2llm.app.runs import Run
    from e2llm.data.preprocess_params import PreprocessParams
    from e2llm.data.simulation import TwinParams, simulate
    from e2llm.training.losses import HeadParams
    from e2llm.training.stage3_instruction import AdapterParams
    from e2llm.training.trainer import FitParams

    written = load_profile(profile)
    v, before = checked(written), measured_rate()
    split = {"protocol": "clips", "fold": 0, "n_groups": 4, "normalization": "session", "accept_leaks": False}
    took: dict[str, list[float]] = {"projector": [], "adapter": []}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["E2LLM_RUNS"] = folder
        twin = simulate(Path(folder) / "twin", TwinParams(3, 2, 15, (8.2, 9.0)), n_jobs=1)
        for steps in (few, more):
            run = Run.open(f"steps{steps}")
            stages.preprocess(run, "seed-vii", twin, PreprocessParams(), n_jobs=1)
            stages.train_encoder(run, stages.open_dataset(run, split), split, v.encoder_size, {}, "",
                                 FitParams(2, 8, 1e-3), HeadParams(), 0)
            corpus = stages.open_dataset(run)
            stages.make_language_model(run, corpus, v.language_model, v.dtype)
            fit = FitParams(steps, v.batch_size, v.alignment_lr, accumulate=v.accumulate)
            start = time.process_time()
            stages.align(run, corpus, v.eeg_tokens, v.evidence_slots, 400, v.token_noise, fit)
            took["projector"].append(time.process_time() - start)
            per_kind = {kind: 60 * stages.SHARES.get(kind, 1) for kind in stages.KINDS}
            start = time.process_time()
            stages.instruct(run, corpus, per_kind, 60 * v.replay_items // v.items_per_kind,
                            AdapterParams(rank=v.lora_rank), fit)
            took["adapter"].append(time.process_time() - start)
    print(f"rate before and after: {before / 1e9:.0f} and {measured_rate() / 1e9:.0f} Gflop/s")
    found = {stage.name: stage for stage in plan(written, cores=1).stages}
    for name, steps in (("projector", v.alignment_steps), ("adapter", v.instruction_steps)):
        once, all_of_them = took[name]
        yield f"{profile}, {name}, {steps} steps", (all_of_them - once) / (more - few) * steps, found[name].seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, help="folder of a finished run")
    parser.add_argument("--profile", default="tiny", help="of that run (tiny)")
    parser.add_argument("--steps", metavar="PROFILE", help="train a few steps of this profile, and scale them")
    given = parser.parse_args()
    if given.steps:
        torch.set_num_threads(1)
    print(machine(["torch", "transformers", "peft"]), f"{measured_rate() / 1e9:.0f} Gflop/s", sep="; ")
    print("\n| what | measured, s | planned, s | planned / measured |\n|---|---|---|---|")
    rows = (run_stages(given.run, given.profile) if given.run else profile_steps(given.steps) if given.steps
            else itertools.chain(encoder_steps(), language_steps()))
    for name, took, wanted in rows:
        print(f"| {name} | {took:.3g} | {wanted:.3g} | {wanted / took:.2f} |", flush=True)
    print(f"\nLargest memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
