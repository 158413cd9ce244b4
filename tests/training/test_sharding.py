"""A frozen language model spread over two processes: what each keeps, and losses and gradients as without."""

from __future__ import annotations

import copy
import os
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from e2llm.core.chat import IGNORE
from e2llm.models.language import ScratchParams, make_tokenizer, new_language_model
from e2llm.models.modeling import E2LLMForConditionalGeneration
from e2llm.training.sharding import decoder_layers, held_here, shard_frozen
from e2llm.training.stage3_instruction import LORA_TARGETS
from e2llm.training.stage_trainer import checkpointed
from e2llm.training.trainer import train_only

WIDTH, EEG_TOKENS, VOCABULARY = 16, 2, 320


def joined(is_tied: bool, adapted: bool) -> nn.Module:
    tokenizer = make_tokenizer(["Which segment is more pleasant? A: B:"], VOCABULARY)
    language = new_language_model(tokenizer, ScratchParams(VOCABULARY, hidden_size=64, layers=3, heads=4), 0)
    if not is_tied:
        language.lm_head.weight = nn.Parameter(language.lm_head.weight.detach().flip(0))
    model = E2LLMForConditionalGeneration.join(language, tokenizer, "none", None, WIDTH, EEG_TOKENS, 0)
    if not adapted:
        train_only(model, "projector.")
        return model.train()
    peft = get_peft_model(model, LoraConfig(r=2, target_modules=LORA_TARGETS, modules_to_save=["projector"]))
    for name, weight in peft.named_parameters():  # B is zero at first, and A then has no gradient
        if "lora_B" in name:
            nn.init.normal_(weight, std=0.1)
    return peft.train()


def batch(model: nn.Module, with_eeg: bool) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(3)
    ids = torch.randint(100, 200, (2, 14), generator=draw)
    labels = torch.where(torch.arange(14) > 9, ids, IGNORE)
    given = {"input_ids": ids, "labels": labels, "label_tokens": torch.arange(90, 210)}
    if with_eeg:
        ids[:, 2 : 2 + EEG_TOKENS] = model.config.eeg_token_id
        given["eeg_features"] = torch.randn(2, 4, WIDTH, generator=draw)
    return given


def is_trained(parameter: nn.Parameter) -> bool:
    return parameter.requires_grad


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def in_one_of_two(rank: int, folder: str) -> None:
    """What a process finds: a file for each case."""
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2")
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    for case, (is_tied, adapted, again) in CASES.items():
        model = joined(is_tied, adapted)
        whole = copy.deepcopy(model)
        trained = sum(p.numel() for p in filter(is_trained, model.language_model.parameters()))
        frozen = held_here(model.language_model) - trained
        shard_frozen(model, torch.device("cpu"))
        held = held_here(model.language_model) - trained
        kinds = {type(p) for p in [*model.projector.parameters(), *filter(is_trained, model.parameters())]}
        spread = DistributedDataParallel(model, find_unused_parameters=True)
        losses, gaps = [], []
        for step in range(2):  # in the second one an adapter has a process without EEG
            given = batch(model, not (adapted and step and rank))
            with checkpointed(model, again):
                loss = spread(**given)["loss"]
                loss.backward()
            expected = [whole(**batch(model, not (adapted and step and other)))["loss"] for other in range(2)]
            (sum(expected) / 2).backward()
            losses.append(abs(float(loss.detach()) - float(expected[rank].detach())))
            found, wanted = gradients(model), gradients(whole)
            assert found.keys() == wanted.keys()
            gaps.append(max(float((found[name] - wanted[name]).abs().max()) for name in wanted))
            model.zero_grad()
            whole.zero_grad()
        torch.save({"frozen": frozen, "held": held, "whole": kinds == {nn.Parameter}, "losses": losses, "gaps": gaps,
                    "after": held_here(model.language_model) - trained, "n": len(wanted)}, f"{folder}/{case}-{rank}.pt")
    dist.destroy_process_group()


CASES = {"stage 2": (True, False, False), "stage 3": (True, True, False), "own output layer": (False, True, False),
         "checkpointed": (False, True, True)}


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict[str, list[dict]]:
    folder = tmp_path_factory.mktemp("two")
    mp.spawn(in_one_of_two, (str(folder),), nprocs=2)
    return {case: [torch.load(folder / f"{case}-{rank}.pt") for rank in range(2)] for case in CASES}


@pytest.mark.parametrize("case", CASES)
def test_each_process_keeps_half_of_the_frozen_weights_and_all_that_is_trained(found, case):
    for part in found[case]:
        assert part["whole"]
        assert 0.5 <= part["held"] / part["frozen"] < 0.51
        assert part["after"] == part["held"], "what was gathered for a step is given up after it"
    assert sum(part["held"] for part in found[case]) == pytest.approx(found[case][0]["frozen"], rel=0.01)


@pytest.mark.parametrize("case", CASES)
def test_losses_and_gradients_are_those_of_the_whole_model(found, case):
    """Embeddings with EEG at their places, and logits of some tokens at some places, come from gathered weights."""
    for part in found[case]:
        assert part["n"] >= 4
        assert max(part["losses"]) < 1e-5 and max(part["gaps"]) < 1e-5


def test_a_model_that_names_no_decoder_layers_is_refused():
    class Unknown(nn.Linear):
        _no_split_modules = None

    with pytest.raises(ValueError, match=r"^sharded = True, but Unknown does not say .*: take sharded = False"):
        decoder_layers(Unknown(2, 2))
    with pytest.raises(ValueError, match="does not say"):
        shard_frozen(SimpleNamespace(language_model=Unknown(2, 2)), torch.device("cpu"))
