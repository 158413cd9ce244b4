"""Steps of training as planned and as measured: seconds, and the largest memory that a process took.

``OMP_NUM_THREADS=1 python benchmarks/plan.py`` prints a table. Given the folder of a finished run and its profile,
``python benchmarks/plan.py --run runs/tiny --profile tiny`` compares the seconds of its stages instead.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from common import machine
from peft import LoraConfig, get_peft_model
from transformers import Qwen3Config, Qwen3ForCausalLM

from e2llm.app.pipeline import load_profile
from e2llm.app.plan import CORE, SHARE_CPU, plan
from e2llm.app.plan_devices import measured_rate
from e2llm.core.montage import EEGPT_VOCABULARY
from e2llm.models.arithmetic import EncoderShape, TextShape, text_shape
from e2llm.models.eegpt import EEGPT, EEGPT_SIZES, eegpt_config

CHANNELS, LENGTH, LABELS, RANK = 58, 120, 20, 16
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def measured(work: Callable[[], object], repeats: int = 3) -> float:
    """Median seconds of the processor in a call of one thread, after one that is not counted; others do not matter."""
    work()
    took = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        took.append(time.process_time() - start)
    return sorted(took)[repeats // 2]


def planned(operations: float, kept: float, touched: float) -> float:
    """As :mod:`e2llm.app.plan` plans a step on a processor, at the rate that it has now."""
    rate = measured_rate()
    return operations / (SHARE_CPU * rate) + kept / touched / rate


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
               planned(shape.training_step(batch, *kept), shape.activations(batch, *kept), CORE.touched))
        with torch.no_grad():
            took = measured(lambda m=model, x=signal: m.eval()(x))
        yield (f"encoding, {size}, {batch} windows", took,
               planned(shape.forward(batch, CHANNELS, 16), shape.activations(batch, CHANNELS, 16) / 2,
                       CORE.touched))


def language_steps() -> Iterator[tuple[str, float, float]]:
    """Steps of stages 2 and 3 by language models with random weights."""
    for name, shape, batch in (("e2llm-tiny", text_shape("e2llm-tiny"), 16),
                               ("30 million", TextShape(512, 8, 8, 4, 64, 1536, 8000, True), 8),
                               ("smollm2-135m", text_shape("smollm2-135m"), 4)):  # fmt: skip
        model = Qwen3ForCausalLM(Qwen3Config(
            vocab_size=shape.vocabulary, hidden_size=shape.hidden, intermediate_size=shape.intermediate,
            num_hidden_layers=shape.layers, num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads,
            head_dim=shape.head_dim, tie_word_embeddings=shape.tied)).requires_grad_(False)  # fmt: skip
        given = torch.randn(batch, LENGTH, shape.hidden, requires_grad=True)
        mask = torch.ones(batch, LENGTH, dtype=torch.long)
        mask[0, -5:] = 0

        def step(own, given=given, mask=mask) -> None:
            out = own(inputs_embeds=given, attention_mask=mask, logits_to_keep=LABELS).logits
            out.float().logsumexp(-1).mean().backward()

        logits = LABELS * batch
        operations = shape.forward(batch, LENGTH, logits) + shape.backward_to_inputs(batch, LENGTH, logits)
        for stage, own, more in ((2, model, 0.0), (3, None, shape.adapter_step(batch, LENGTH, RANK))):
            own = own or get_peft_model(model, LoraConfig(r=RANK, target_modules=TARGETS))
            kept = batch * shape.layers * shape.activations(LENGTH, 4.0, stage == 3) + 12.0 * logits * shape.vocabulary
            yield (f"stage {stage}, {name}, {batch} items", measured(lambda m=own: step(m)),
                   planned(operations + more, kept, CORE.touched_text))


def run_stages(folder: Path, profile: str) -> Iterator[tuple[str, float, float]]:
    """Stages of a finished run."""
    found = plan(load_profile(profile))
    for stage in found.stages:
        took = json.loads((folder / stage.name / "stage.json").read_text())["seconds"]
        yield stage.name, took, stage.seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, help="folder of a finished run")
    parser.add_argument("--profile", default="tiny", help="of that run (tiny)")
    given = parser.parse_args()
    print(machine(["torch", "transformers", "peft"]), f"{measured_rate() / 1e9:.0f} Gflop/s", sep="; ")
    print("\n| what | measured, s | planned, s | planned / measured |\n|---|---|---|---|")
    rows = run_stages(given.run, given.profile) if given.run else (*encoder_steps(), *language_steps())
    for name, took, wanted in rows:
        print(f"| {name} | {took:.3g} | {wanted:.3g} | {wanted / took:.2f} |", flush=True)
    print(f"\nLargest memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
