"""Training of the baseline EEGNet on raw windows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..core.space import reserved_map
from ..models.device import current_device
from ..models.eegnet import EEGNet, EEGNetParams
from .trainer import FitParams, Samples, fit, mixed_order

# From microvolts and normalization groups to the network's input.
Prepare = Callable[[np.ndarray, np.ndarray], np.ndarray]


def prepared(data: np.ndarray, prepare: Prepare, subjects: np.ndarray, rows: np.ndarray, path: Path,
             batch: int = 64) -> np.ndarray:
    """Signals of some rows as the network reads them, prepared once and memory-mapped.

    Parameters
    ----------
    data : ndarray, shape (n_windows, n_channels, n_samples)
        Microvolts; may be memory-mapped.
    prepare : callable
        ``prepare(signal_uv, subjects)`` aligns, scales and decimates some windows: (batch, channels, samples) in and
        out.
    subjects : ndarray, shape (n_windows,)
        Normalization group of every window.
    rows : ndarray of int, shape (n_rows,)
        Windows.
    path : Path
        ``.npy`` file to write.
    batch : int
        Windows at a time.

    Returns
    -------
    ndarray of float32, shape (n_rows, channels, samples)
    """
    out = None
    for start in range(0, len(rows), batch):
        signal = _prepared(data, prepare, subjects, rows[start : start + batch]).numpy()
        if out is None:
            out = reserved_map(path, (len(rows), *signal.shape[1:]))
        out[start : start + len(signal)] = signal
    return out


def eegnet_collate(signals: np.ndarray, labels: np.ndarray) -> Callable:
    """Batches of signal and labels of some rows.

    Parameters
    ----------
    signals : ndarray, shape (n_rows, n_channels, n_samples)
        From :func:`prepared`.
    labels : ndarray, shape (n_rows,)
        Class indices.
    """

    def collate(rows: list[int]) -> dict[str, Tensor]:
        return {"signal": torch.from_numpy(np.array(signals[rows])),
                "labels": torch.from_numpy(np.asarray(labels[rows], dtype=np.int64))}

    return collate


def _prepared(data: np.ndarray, prepare: Prepare, subjects: np.ndarray, rows: np.ndarray | list[int]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(prepare(data[rows], subjects[rows]), dtype=np.float32))


def train_eegnet(data: np.ndarray, prepare: Prepare, labels: np.ndarray, subjects: np.ndarray, rows: np.ndarray,
                 n_classes: int, params: EEGNetParams, schedule: FitParams, folder: Path,
                 on_step: Callable[..., None] | None = None) -> EEGNet:
    """Train on some rows, classes in equal shares and people mixed; resume from ``folder`` after a cut-off.

    Parameters
    ----------
    data, prepare, subjects
        As for :func:`prepared`.
    labels : ndarray, shape (n_windows,)
        Class index of every window.
    rows : ndarray of int
        Training windows.
    n_classes : int
        Number of classes.
    params, schedule : EEGNetParams, FitParams
        Size and schedule; its seed is also that of the first weights.
    folder : Path
        Checkpoints and prepared signals; the caller removes it.
    on_step : callable, optional
        As for :func:`e2llm.training.trainer.fit`.

    Returns
    -------
    EEGNet
        In eval mode.
    """
    order = mixed_order(labels, subjects, rows, schedule)
    used = np.unique(order)
    signals = prepared(data, prepare, subjects, used, folder / "prepared.npy")
    torch.manual_seed(schedule.seed)
    model = EEGNet(signals.shape[1], n_classes, signals.shape[2], params).to(current_device())
    fit(model, Samples(np.searchsorted(used, order), lambda row: row), eegnet_collate(signals, labels[used]), schedule,
        folder, on_step=on_step)
    return model.eval()


@torch.no_grad()
def answers(model: EEGNet, data: np.ndarray, prepare: Prepare, subjects: np.ndarray, batch: int = 64,
            rows: np.ndarray | None = None) -> np.ndarray:
    """Logits of windows.

    Parameters
    ----------
    model : EEGNet
        Put into evaluation mode.
    data, prepare, subjects
        As for :func:`prepared`.
    batch : int
        Windows at a time.
    rows : ndarray of int, optional
        Windows in the order of the result; default all.

    Returns
    -------
    ndarray, shape (n, n_classes)
    """
    model.eval()
    rows, device = np.arange(len(data)) if rows is None else rows, model.classifier.weight.device
    logits = [model(_prepared(data, prepare, subjects, rows[start : start + batch]).to(device))["logits"].cpu().numpy()
              for start in range(0, len(rows), batch)]
    return np.concatenate(logits) if logits else np.empty((0, model.classifier.out_features), dtype=np.float32)
