"""Stage 3 of a large language model with random weights: tokens a second, share of the device's rate, memory.

``python benchmarks/gpu.py --device cuda --model Qwen/Qwen3-1.7B`` builds a language model of that shape on the device,
joins it with an untrained encoder's tokens, and trains LoRA as stage 3 does, on the items of a small twin. It prints
tokens a second; the operations of the matrix products that training needs, as a share of the rate that a large product
reaches on the same device (goal 40 %); and the peak of memory beside the one that ``e2llm plan`` states. What
checkpointing computes again is not counted. Nothing is downloaded. With ``--device cpu --model e2llm-tiny`` it shows
that the script works; the goal is for graphics cards.

The whole default run on a card, compared with the committed figures of the processor::

    e2llm run -p device=cuda --name tiny-cuda
    python benchmarks/gpu.py --compare runs/tiny-cuda/metrics.json
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import torch
from common import machine
from transformers import Qwen3Config, Qwen3ForCausalLM
from workload import EEG_TOKENS, SLOTS, processor, workload

from e2llm.app.plan import plan
from e2llm.app.plan_devices import GPUS
from e2llm.core.chat import IGNORE
from e2llm.models.arithmetic import TextShape, text_shape
from e2llm.models.device import use_device
from e2llm.models.modeling import E2LLMForConditionalGeneration
from e2llm.training.stage3_instruction import AdapterParams, instruction_items, train_adapter
from e2llm.training.trainer import FitParams, examples_of

GOAL = 0.4
NOT_TIMED = 3  # first steps: kernels are chosen and memory is taken
EXPECTED = Path(__file__).resolve().parent.parent / "tests" / "expected_tiny.json"
KINDS = {"predict": 2, "describe": 1, "select": 1, "compare": 1, "match": 1, "choose": 1}  # shares of the items


def waited(device: torch.device) -> float:
    """Time after everything that was asked of the device is done, s."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def device_rate(device: torch.device, dtype: torch.dtype, repeats: int = 20) -> float:
    """Operations a second of a large square product on the device: the best of some.

    Parameters
    ----------
    device : torch.device
        Where.
    dtype : torch.dtype
        Of both matrices.
    repeats : int
        Products.
    """
    size = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    torch.mm(a, b)
    took = []
    for _ in range(repeats):
        start = waited(device)
        torch.mm(a, b)
        took.append(waited(device) - start)
    return 2.0 * size**3 / min(took)


def random_language_model(shape: TextShape, dtype: torch.dtype, device: torch.device) -> Qwen3ForCausalLM:
    """A language model of this shape, made on the device with random weights.

    Parameters
    ----------
    shape : TextShape
        Its sizes.
    dtype, device : torch.dtype, torch.device
        Of its weights.
    """
    config = Qwen3Config(vocab_size=shape.vocabulary, hidden_size=shape.hidden, intermediate_size=shape.intermediate,
                         num_hidden_layers=shape.layers, num_attention_heads=shape.heads,
                         num_key_value_heads=shape.kv_heads, head_dim=shape.head_dim, tie_word_embeddings=shape.tied,
                         dtype=dtype)
    torch.manual_seed(0)
    with device:
        torch.set_default_dtype(dtype)
        try:
            return Qwen3ForCausalLM(config)
        finally:
            torch.set_default_dtype(torch.float32)


def operations(shape: TextShape, examples: list[dict], batch: int, rank: int) -> float:
    """Of the matrix products that one step over such examples needs.

    Parameters
    ----------
    shape : TextShape
        Of the language model.
    examples : list of dict
        From :func:`e2llm.training.trainer.examples_of`.
    batch, rank : int
        Examples in a step; rank of LoRA.
    """
    length = sum(len(each["input_ids"]) for each in examples) / len(examples)
    labels = batch * sum(sum(label != IGNORE for label in each["labels"]) for each in examples) / len(examples)
    return (shape.forward(batch, length, labels) + shape.backward_to_inputs(batch, length, labels)
            + shape.adapter_step(batch, length, rank))


def trained(given: argparse.Namespace) -> int:
    """Train some steps and print the table; 1 if the goal was missed on a graphics card."""
    device = use_device(given.device, given.gradient_checkpointing)
    dtype = getattr(torch, given.dtype)
    shape, w = text_shape(given.model), workload()
    model = E2LLMForConditionalGeneration.join(
        random_language_model(shape, dtype, device), w.tokenizer, "benchmark", None, w.tokens.shape[-1], EEG_TOKENS, 0,
        w.probe, SLOTS).to(device)  # fmt: skip
    n, parts = given.steps * given.batch, sum(KINDS.values())
    items = instruction_items(w.corpus, "train", {kind: -(-n * part // parts) for kind, part in KINDS.items()}, 0)
    params = FitParams(given.steps, given.batch, 1e-4, bf16=dtype == torch.bfloat16)
    times: list[float] = []
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with tempfile.TemporaryDirectory() as folder:
        train_adapter(model, processor(), items, w.tokens, w.position, AdapterParams(rank=given.rank), params,
                      Path(folder), lambda *_, **__: times.append(waited(device)))
    seconds = (times[-1] - times[NOT_TIMED]) / (len(times) - 1 - NOT_TIMED)
    examples = examples_of(items, processor(), 0.5, 0)
    tokens = given.batch * sum(len(each["input_ids"]) for each in examples) / len(examples)
    rate = device_rate(device, dtype)
    share = operations(shape, examples, given.batch, given.rank) / seconds / rate
    planned = plan({"language_model": given.model, "dtype": given.dtype, "batch_size": given.batch,
                    "lora_rank": given.rank, "gradient_checkpointing": given.gradient_checkpointing}, given.plan_as)
    wanted = sum(next(stage for stage in planned.stages if stage.name == "adapter").device.values())
    peak = (f"{torch.cuda.max_memory_allocated(device) / 1e9:.2f}" if device.type == "cuda"
            else "not measured on a processor")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "processor"
    print(machine(["torch", "transformers", "peft"]), end="\n\n")
    print("| device | model | batch | ms a step | tokens a second | rate of a large product, Tflop/s | share of it, % "
          "| peak, GB | planned, GB |\n" + "|---" * 9 + "|")
    print(f"| {name} | {given.model}, {given.dtype} | {given.batch} | {1e3 * seconds:.1f} | {tokens / seconds:,.0f} | "
          f"{rate / 1e12:.3g} | {100 * share:.1f} | {peak} | {wanted / 1e9:.2f} ({given.plan_as}) |")
    return int(device.type == "cuda" and share < GOAL)


def compared(metrics: Path) -> int:
    """Print the scores of a run beside the committed ones; 1 if one lies outside its interval.

    Parameters
    ----------
    metrics : Path
        ``metrics.json`` of a run with the default parameters.
    """
    found, outside = json.loads(metrics.read_text())["tables"]["tier_1"], 0
    committed = {name: score for name, _, score in json.loads(EXPECTED.read_text())["tables"]["tier_1"]}
    print("| tier 1 | this run, % (95 %) | committed, % |\n|---|---|---|")
    for row in found:
        if row["name"] not in committed or row["low"] is None:
            continue
        wanted = committed[row["name"]]
        inside = row["low"] <= wanted <= row["high"]
        outside += not inside
        print(f"| {row['name']} | {100 * row['score']:.1f} ({100 * row['low']:.1f} to {100 * row['high']:.1f}) | "
              f"{100 * wanted:.1f}{'' if inside else ', outside'} |")
    return int(outside > 0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, mps or cpu (cuda)")
    parser.add_argument("--model", default="Qwen/Qwen3-1.7B", help="whose shape it is; nothing is downloaded")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float16", "float32"])
    parser.add_argument("--batch", type=int, default=16, help="items in a step (16)")
    parser.add_argument("--rank", type=int, default=16, help="of LoRA (16)")
    parser.add_argument("--steps", type=int, default=20, help=f"the first {NOT_TIMED} are not timed (20)")
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--plan-as", default="H100-80", choices=list(GPUS), help="the card of the plan (H100-80)")
    parser.add_argument("--compare", type=Path, metavar="METRICS", help="train nothing: compare a run's metrics.json")
    given = parser.parse_args()
    if given.steps < NOT_TIMED + 2:
        parser.error(f"give at least {NOT_TIMED + 2} steps.")
    return compared(given.compare) if given.compare else trained(given)


if __name__ == "__main__":
    sys.exit(main())
