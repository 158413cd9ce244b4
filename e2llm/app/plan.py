"""A plan of a run: disk, memory, operations and hours of every stage, from the parameters alone.

Nothing is read but parameters and, for a local language model, its ``config.json``. What a stage takes is counted in
:mod:`e2llm.app.plan_stages`; here it is compared with what there is.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ..core.arguments import check_number
from ..models.arithmetic import text_shape
from .parameters import FIELDS, Parameters, checked
from .plan_devices import Device, device_of
from .plan_sizes import Size, size_of, split_shares
from .plan_stages import SHARE_CPU, SHARE_GPU, StagePlan, StagePlanner
from .plan_words import gb, time_in_words, two


@dataclass(frozen=True)
class Plan:
    """A plan of a run: its stages, and whether it fits."""

    title: str
    device: Device
    share: float
    size: Size
    windows: dict[str, int]  # all, train, val, test
    stages: tuple[StagePlan, ...]
    host_memory: float
    disk_free: float
    remarks: tuple[str, ...] = ()  # what the plan takes for granted, or leaves out, in sentences

    @property
    def faults(self) -> list[str]:
        """What does not fit, in sentences; empty if all fits."""
        found = []
        for stage in self.stages:
            need = sum(stage.device.values())
            if self.device.is_gpu and need > self.device.memory:
                found.append(f"The stage {stage.name} needs {gb(need)} on each {self.device.name}, which has "
                             f"{gb(self.device.memory)}.")
            need = sum(stage.host.values())
            if need > self.host_memory:
                found.append(f"The stage {stage.name} needs {gb(need)} of memory, and {gb(self.host_memory)} are "
                             "there.")
        if self.disk > self.disk_free:
            found.append(f"The run needs {gb(self.disk)} on the disk, and {gb(self.disk_free)} are free.")
        return found

    @property
    def disk(self) -> float:
        """Bytes of all files of the run."""
        return sum(sum(stage.disk.values()) for stage in self.stages)

    @property
    def seconds(self) -> float:
        """Of the whole run."""
        return sum(stage.seconds for stage in self.stages)

    def table(self) -> pd.DataFrame:
        """One row a stage, and their sum."""
        rows = [{"stage": stage.name, "operations": f"{stage.operations:.1e}", "time": time_in_words(stage.seconds),
                 "on a device": gb(sum(stage.device.values())) if self.device.is_gpu else "–",
                 "in memory": gb(sum(stage.host.values())), "on the disk": gb(sum(stage.disk.values()))}
                for stage in self.stages]
        total = {"stage": "together", "operations": f"{sum(stage.operations for stage in self.stages):.1e}",
                 "time": time_in_words(self.seconds),
                 "on a device": gb(max(sum(stage.device.values()) for stage in self.stages))
                 if self.device.is_gpu else "–",
                 "in memory": gb(max(sum(stage.host.values()) for stage in self.stages)),
                 "on the disk": gb(self.disk)}
        return pd.DataFrame([*rows, total])

    def parts(self) -> pd.DataFrame:
        """Memory by part, one column a stage that uses a model."""
        where = "device" if self.device.is_gpu else "host"
        columns = {stage.name: {part: gb(value) for part, value in getattr(stage, where).items()}
                   for stage in self.stages if stage.device}
        return pd.DataFrame(columns).fillna("")


def in_words(found: Plan) -> str:
    """A plan for the reader: what is planned, a table of stages, and what takes memory."""
    where = "device" if found.device.is_gpu else "machine"
    windows = ", ".join(f"{name} {n:,}" for name, n in found.windows.items() if name != "all")
    rate = found.device.rate["bfloat16"] / 1e12
    lines = [f"{found.title + ' ' if found.title else ''}on {found.device} at {found.share:.0%} of its rate "
             f"({two(rate)} Tflop/s): {found.size.people:,} people, {found.windows['all']:,} windows ({windows}).", "",
             found.table().to_string(index=False), "", f"Memory on each {where}:", found.parts().to_string()]
    return "\n".join([*lines, *(["", *found.remarks] if found.remarks else [])])


def plan(profile: Mapping[str, Any], gpus: str = "", people: int | None = None, clips: int | None = None,
         seconds: float | None = None, share: float | None = None, title: str = "", device: Device | None = None,
         host_memory: float | None = None, disk_free: float = math.inf, cores: int | None = None) -> Plan:
    """Plan a run.

    Parameters
    ----------
    profile : mapping
        Parameters; the others have their defaults.
    gpus : str
        Graphics cards, ``8xA100-80``; empty for the processor of this machine.
    people, clips, seconds
        See :func:`size_of`.
    share : float, optional
        Of the device's rate that training reaches; default :data:`SHARE_GPU` or :data:`SHARE_CPU`.
    title : str
        For the reader.
    device : Device, optional
        In place of ``gpus``.
    host_memory, disk_free : float, optional
        Bytes; default the memory of this machine, and any disk.
    cores : int, optional
        Of the machine; default those of this one. Training uses a thread for each.

    Raises
    ------
    ValueError
        If a parameter is refused, or the shape of a model or the size of the recordings is not known.
    """
    values = checked(profile)
    for name, value, low, high in (("people", people, 1, 10**6), ("clips", clips, 1, 10**6),
                                   ("seconds", seconds, values.window_s, 10**6), ("share", share, 1e-3, 1),
                                   ("memory", host_memory, 1e6, 1e18)):
        if value is not None:
            check_number(name, value, low, high, whole=name in ("people", "clips"))
    device = device or device_of(gpus)
    import psutil

    if host_memory is None:
        host_memory = psutil.virtual_memory().total
    cores = cores or psutil.cpu_count(logical=False) or os.cpu_count() or 1
    share = share or (SHARE_GPU if device.is_gpu else SHARE_CPU)
    size = size_of(values, people, clips, seconds)
    shares = split_shares(values, size)
    everything = size.people * size.windows
    windows = {"all": everything, **{name: round(part * everything) for name, part in shares.items()}}
    made = StagePlanner(values, device, share, size, windows, cores)
    return Plan(title, device, share, size, windows, tuple(made.stages()), host_memory, disk_free,
                tuple(_remarks(values, device)))


def _remarks(values: Parameters, device: Device) -> Iterator[str]:
    if device.count > 1 and values.processes != device.count:
        yield (f"This plans {device.count} processes that train together: run it with -p processes={device.count}, for "
               f"processes = {values.processes}.")
    if more := [name for name in ("ablation", "eegnet") if getattr(values, name)]:
        yield f"The trainings of {' and '.join(more)} are not in this plan."


# ---------------------------------------------------------------- remedies


SMALLER = ("Qwen/Qwen3-8B", "Qwen/Qwen3-4B", "Qwen/Qwen3-1.7B", "Qwen/Qwen3-0.6B", "smollm2-135m", "e2llm-tiny")


def remedy(profile: Mapping[str, Any], made: Plan, **given: Any) -> str:
    """The first change of parameters with which a plan that does not fit would fit; or that none was found.

    Parameters
    ----------
    profile : mapping
        Parameters of the plan.
    made : Plan
        It does not fit.
    **given
        Further arguments of :func:`plan`.
    """
    values = checked(profile)

    def faults(change: Mapping[str, Any]) -> list[str]:
        try:
            return plan({**profile, **change}, device=made.device, share=made.share, host_memory=made.host_memory,
                        disk_free=made.disk_free, **given).faults
        except ValueError as error:  # a batch that the processes cannot share is no remedy
            return [str(error)]

    of_encoder: dict[str, Any] = {}
    windows, augmented = values.encoder_batch, values.augmented_windows
    while any(" encoder needs " in fault for fault in faults(of_encoder)) and windows > 8:
        windows, augmented = -(-windows // 2), augmented // 2
        if windows % values.processes or augmented % values.processes:
            break
        of_encoder = {"encoder_batch": windows, "augmented_windows": augmented}
    of_tables: dict[str, Any] = {}
    rows, steps = values.second_pass_batch, values.second_pass_steps
    while any(" second_pass needs " in fault for fault in faults(of_tables)) and rows > 8:
        rows, steps = -(-rows // 2), steps * 2
        of_tables = {"second_pass_batch": rows, "second_pass_steps": steps}
    halved: list[dict[str, Any]] = [{}]
    batch, accumulate = values.batch_size, values.accumulate
    while batch > 1:
        batch, accumulate = -(-batch // 2), accumulate * 2
        halved.append({"batch_size": batch, "accumulate": accumulate})
    again = [{}, *([{"gradient_checkpointing": True}] if "gradient_checkpointing" in FIELDS else [])]
    formats = [{}, *([{"dtype": "4bit"}] if made.device.is_gpu and values.dtype != "4bit" else [])]
    models = [{}, *({"language_model": name} for name in SMALLER
                    if text_shape(name).parameters < text_shape(values.language_model).parameters)]
    for parts in itertools.product(models, formats, again, halved):  # what changes the results least comes first
        change = {key: value for part in (of_encoder, of_tables, *parts) for key, value in part.items()}
        if change and not faults(change):
            asked = " ".join(f"-p {key}={'true' if value is True else value}" for key, value in change.items())
            return f"This would fit: {asked}"
    return "No smaller batch or model makes it fit: take larger or more devices (--gpus), or fewer people."
