"""Parity of this kit's EEGPT with ``braindecode.models.EEGPT`` on shared random weights.

braindecode needs torchaudio. On Linux that has no build for a CPU-only torch from the package index, and it breaks
``import transformers``. So the comparison has an environment of its own; this script makes nothing outside it:

    python -m venv parity
    parity/bin/pip install torch==2.13.0                              # first, or another package pulls in a CUDA build
    parity/bin/pip install --no-deps torchaudio==2.11.0
    rm parity/lib/python3.*/site-packages/torchaudio/lib/*.so         # its pure-torch fallback takes over
    echo torch==2.13.0 > pins && parity/bin/pip install -c pins braindecode==1.8.1 safetensors
    PYTHONPATH=. parity/bin/python benchmarks/parity_eegpt.py

For each size braindecode's model is made at random, saved in the hub's layout (``config.json``,
``model.safetensors``) and loaded by :func:`e2llm.models.eegpt_weights.load_released_weights`. Both then read the same
signals. Exit code 1 if any output differs by more than 1e-5.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import warnings
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file

from e2llm.core.montage import EEGPT_VOCABULARY
from e2llm.models.eegpt import EEGPT, N_PATCHES, PATCH, SFREQ, eegpt_config
from e2llm.models.eegpt_weights import RELEASED_CHANNELS, load_released_weights

TOLERANCE = 1e-5
TEN_TWENTY = ["FP1", "FP2", "F7", "F3", "FZ", "F4", "F8", "T7", "C3", "CZ", "C4", "T8",
              "P7", "P3", "PZ", "P4", "P8", "O1", "O2"]
CAPS = {"19 channels": TEN_TWENTY, "58 channels": list(RELEASED_CHANNELS), "62 channels": list(EEGPT_VOCABULARY)}


def braindecode_model(size: str, ch_names: list[str], seed: int) -> torch.nn.Module:
    """braindecode's EEGPT with random weights, enlarged so that every part of it shows in the output."""
    from braindecode.models import EEGPT as Reference

    config = eegpt_config(size)
    torch.manual_seed(seed)
    model = Reference(n_chans=len(ch_names), n_times=N_PATCHES * PATCH, sfreq=SFREQ, n_outputs=2,
                      chs_info=[{"ch_name": name} for name in ch_names], patch_size=PATCH, patch_stride=PATCH,
                      chan_proj_type="none", return_encoder_output=True, embed_num=config.summary_tokens,
                      embed_dim=config.width, depth=config.depth, num_heads=config.heads, mlp_ratio=config.mlp_ratio)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                # Signals are in millivolts: with the usual weights they would hardly change the output.
                parameter.mul_(100.0 if "patch_embed" in name else 3.0)
            else:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def pair(size: str, ch_names: list[str], seed: int = 0) -> tuple[EEGPT, torch.nn.Module, object]:
    """Our model and braindecode's with the same random weights, and the report on their keys."""
    theirs = braindecode_model(size, ch_names, seed)
    with tempfile.TemporaryDirectory() as folder:
        state = {key: value.contiguous() for key, value in theirs.state_dict().items()}
        save_file(state, Path(folder) / "model.safetensors")
        config = {"patch_size": PATCH, "patch_stride": PATCH, "sfreq": SFREQ}
        (Path(folder) / "config.json").write_text(json.dumps(config))
        own = EEGPT(eegpt_config(size), ch_names).eval()
        return own, theirs, load_released_weights(own, folder)


@torch.no_grad()
def difference(size: str, ch_names: list[str], seed: int = 0, batch: int = 2) -> dict[str, object]:
    """Largest difference of the two outputs, their spread over time patches, and how many keys matched."""
    own, theirs, report = pair(size, ch_names, seed)
    generator = torch.Generator().manual_seed(seed)
    signal = torch.randn(batch, len(ch_names), N_PATCHES * PATCH, generator=generator) * 0.02  # millivolts
    ours, reference = own(signal), theirs(signal)
    assert ours.shape == reference.shape == (batch, N_PATCHES, own.config.summary_tokens, own.config.width)
    return {"matched": f"{len(report.matched)} of {report.total}", "difference": float((ours - reference).abs().max()),
            "spread": float(reference.std(dim=1).mean())}  # over time patches: the same weights, other samples


def main() -> int:
    """Print a row for every size and cap; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sizes", nargs="*", default=["tiny1", "tiny2", "tiny3", "little", "base1", "base2", "large"])
    warnings.filterwarnings("ignore", category=FutureWarning)
    worst = 0.0
    for size in parser.parse_args().sizes:
        for cap, ch_names in CAPS.items():
            found = difference(size, ch_names)
            worst = max(worst, found["difference"])
            form = "{width} wide, {depth} layers, {heads} heads, S = {summary_tokens}"
            form = form.format(**asdict(eegpt_config(size)))
            print(f"{size:7} {form:42} {cap}: {found['matched']} keys, spread over time {found['spread']:.2f}, "
                  f"largest difference {found['difference']:.1e}")
    verdict = "parity" if worst <= TOLERANCE else "NO parity"
    print(f"largest difference of all {worst:.1e}, tolerance {TOLERANCE:.0e}: {verdict}")
    return int(worst > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
