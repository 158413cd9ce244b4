"""Run folders: the stages of a pipeline, which of them are valid, and which have to be made again.

A run is the folder ``runs/<name>/``; a stage is a folder in it. A stage is made in a hidden work folder
(``.encoder.part-1a2b3c4d``), which is renamed when the stage is complete. An interrupt therefore leaves the earlier
stage unchanged. One process at a time makes stages of a run::

    run = Run.open("tiny")
    stage = run.stage("encoder", {"epochs": 10}, needs=("windows",))
    if not stage.done:
        stage.begin()  # keeps the checkpoints of an interrupted training with the same parameters
        ...  # write files below stage.path
        stage.finish({"accuracy": accuracy})
    stage.metrics["accuracy"]
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.environment import is_first_process, is_watched
from ..core.files import (
    check_name,
    checksum,
    digest,
    project_root,
    read_json,
    read_mapping,
    replacing,
    visible_files,
    write_json,
)
from . import sharing
from .locks import RunBusy, held, hold, release
from .records import DIGESTS, fingerprint, is_whole, read_record, remember, versions
from .stage_code import code_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

# Which notebook makes which stage.
NOTEBOOKS = {
    "windows": "01_preprocessing",
    "encoder": "02_encoder",
    "language_model": "03_alignment",
    "projector": "03_alignment",
    "adapter": "04_instruction_tuning",
    "second_pass": "04_instruction_tuning",
    "evaluation": "05_evaluation",
    "feedback": "07_reasoning",
    "reasoning": "07_reasoning",
    "scaling": "08_scaling",
    "pretraining": "09_pretraining_an_encoder",
}
_RESERVED = ("figures", "notebooks")  # folders of a run that are not stages


class StageMissing(Exception):
    """A stage that another one needs is not finished; the message says which notebook makes it."""


def runs_folder() -> Path:
    """Folder of all runs: ``runs/`` of the project, or ``E2LLM_RUNS`` (relative to the project)."""
    return project_root() / (os.environ.get("E2LLM_RUNS") or "runs")


def _plain(value: Any, where: str) -> Any:
    """``value`` with builtin types only; numpy scalars and arrays are converted, other types refused."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON has no NaN; other programs expect null
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{where} is a {type(value).__name__}: give numbers, text, lists and dictionaries only.")


@dataclass(frozen=True)
class Run:
    """A run folder; make it by :meth:`Run.open`."""

    name: str
    path: Path
    root: Path
    _used: set[str] = field(default_factory=set, init=False, repr=False, compare=False)  # stages; see :meth:`figure`

    @classmethod
    def open(cls, name: str) -> Run:
        """Open the run called ``name``; its folder is made if it is missing."""
        root, path = project_root(), runs_folder() / check_name(name)
        path.mkdir(parents=True, exist_ok=True)
        run = cls(name, path, root)
        run._recover()
        return run

    def beside(self, name: str) -> Run:
        """Another run in the same folder, to be read only: nothing is made or recovered there."""
        return Run(name, self.path.parent / name, self.root)

    def stage(self, name: str, params: Mapping, needs: tuple[str, ...] = (), inputs: Mapping | None = None) -> Stage:
        """One step of the run, identified by everything that it is made from.

        Parameters
        ----------
        name : str
            Its folder in the run.
        params, inputs : mapping
            Everything that decides its result: settings, and facts such as a
            :func:`e2llm.core.files.data_fingerprint`. Constants of the code are added (:mod:`e2llm.app.stage_code`).
        needs : tuple of str
            Stages it reads. A change of their parameters or files makes this one stale.

        Raises
        ------
        StageMissing
            If a needed stage is not finished, or was made from a stage that has changed since.
        TypeError, ValueError
            If a parameter is not a number, text, list or mapping, or the name is not allowed.
        """
        if isinstance(needs, str):  # its letters would be taken for stages
            raise TypeError(f"needs must be a tuple of stage names, got the text {needs!r}: write ({needs!r},).")
        if check_name(name, "stage") in _RESERVED:
            raise ValueError(f"{name!r} is a folder of every run: give the stage another name.")
        found = {need: self._needed(need, name) for need in needs}
        self._used.add(name)
        return Stage(self, name, _plain(params, "params"), _plain(inputs or {}, "inputs"), found, code_of(name))

    def finished(self, name: str, above: tuple[str, ...] = ()) -> dict | None:
        """The record (``stage.json``) of a complete stage whose needed stages have not changed, or None.

        Parameters
        ----------
        name : str
            Of the stage. Its files are compared with their checksums when a process first asks.
        above : tuple of str
            Stages that need it, of which the question came.

        Raises
        ------
        ValueError
            If the record is damaged.
        """
        if not (path := self.path / name / "stage.json").is_file():
            return None
        record = read_record(path)
        if circle := {name, *above} & set(record["needs"]):
            raise ValueError(f"{path} is damaged (the stage needs {', '.join(sorted(circle))}, which is made from it): "
                             f"remove the folder {path.parent} and make it again.")
        if not is_whole(record, path.parent, self._digests):
            return None
        for need, stated in record["needs"].items():
            upstream = self.finished(need, (*above, name))
            if upstream is None or fingerprint(upstream) != stated:
                return None
        return record

    def require(self, name: str) -> dict:
        """The record of a finished stage.

        Raises
        ------
        StageMissing
            If it is not finished; the message names the notebook that makes it.
        """
        record = self.finished(name)
        if record is None:
            raise StageMissing(f"The stage {name!r} {self._fact(name)} in {self.path}: {self._remedy(name)}")
        self._used.add(name)
        return record

    def _needed(self, need: str, by: str) -> str:
        record = self.finished(need)
        if record is None:
            raise StageMissing(f"The stage {by!r} needs {need!r}, which {self._fact(need)} in {self.path}: "
                               f"{self._remedy(need)}")
        return fingerprint(record)

    def _fact(self, stage: str) -> str:
        stale = (self.path / stage / "stage.json").is_file()
        return "is out of date (its files or what it was made from have changed)" if stale else "is not finished"

    def _remedy(self, stage: str) -> str:
        notebook = NOTEBOOKS.get(stage)
        if not notebook:
            return "make it first."
        return (f"run the notebook {notebook} with run_name = {self.name!r} first, or all lessons that make stages by "
                "e2llm run.")

    def refresh_manifest(self) -> None:
        """Write ``manifest.json``: the records of all finished stages."""
        names = (path.parent.name for path in self.path.glob("[!.]*/stage.json"))
        records = {name: record for name in names if (record := self.finished(name)) is not None}
        write_json(self.path / "manifest.json", {"run": self.name, "stages": records})

    def put_stage(self, name: str, whole: Path) -> None:
        """Replace a stage: rename the old folder, rename the new one, remove the old one.

        If the process is killed between these steps, both folders are left, and :meth:`open` finishes the replacement.

        Parameters
        ----------
        name : str
            Of the stage.
        whole : Path
            Folder of the complete new stage.
        """
        # A name of its own: on a shared disk an open file keeps what is left of an earlier one.
        place, old = self.path / name, self.path / f".{name}.old-{uuid.uuid4().hex[:8]}"
        (whole / "stage.part.json").unlink(missing_ok=True)
        shutil.rmtree(whole / "checkpoints", ignore_errors=True)
        if place.exists():
            place.rename(old)
        whole.rename(place)
        shutil.rmtree(old, ignore_errors=True)

    def _recover(self) -> None:
        """Finish replacements of stages that were interrupted."""
        if not any(self.path.glob(".*.part-*/stage.json")) and not any(self.path.glob(".*.old*")):
            return
        try:
            with held(self, "recovery"):
                for record in self.path.glob(".*.part-*/stage.json"):
                    self.put_stage(record.parent.name[1:].rpartition(".part-")[0], record.parent)
                for old in self.path.glob(".*.old*"):
                    place = self.path / old.name[1:].rpartition(".old")[0]
                    if not place.exists() and (old / "stage.json").is_file():
                        old.rename(place)
                    else:
                        shutil.rmtree(old, ignore_errors=True)  # a file that is open elsewhere stays until it is closed
        except RunBusy:
            return  # not interrupted: another process is just doing it

    def write_metrics(self, metrics: Mapping) -> Path:
        """Write ``metrics.json``: results only, so that equal runs write equal bytes; NaN becomes null.

        Raises
        ------
        ValueError
            If a text contains the path of the project.
        """
        metrics, path = _plain(metrics, "metrics"), self.path / "metrics.json"
        if json.dumps(str(self.root))[1:-1] in json.dumps(metrics):
            raise ValueError(f"Metrics hold the path {self.root}: give names relative to the project, for {path}.")
        write_json(path, metrics)
        write_json(self._metrics_source, {"evaluation": self._evaluated()})
        return path

    def read_metrics(self) -> dict:
        """The results that :meth:`write_metrics` wrote.

        Raises
        ------
        StageMissing
            If there are none, or their evaluation has been replaced or is stale.
        """
        if not (path := self.path / "metrics.json").is_file():
            raise StageMissing(f"{path} is not there: {self._remedy('evaluation')}")
        noted = self._metrics_source  # a folder that was copied without it, or an older one, may hold anything
        if not noted.is_file() or read_mapping(noted, {}).get("evaluation") != self._evaluated():
            fact = "is of an earlier state of the run, before its stages changed"
            raise StageMissing(f"{path} {fact}: {self._remedy('evaluation')}")
        return read_json(path)

    @property
    def described(self) -> str:
        """The run in a sentence about its lock."""
        return f"The run {self.name!r} ({self.path})"

    @property
    def _metrics_source(self) -> Path:
        """File that names the evaluation of ``metrics.json``, whose bytes depend on the results only."""
        return self.path / ".metrics-source.json"

    @property
    def _digests(self) -> Path:
        """Digests of large files, so that each is read once; see :func:`e2llm.app.records.is_whole`."""
        return self.path / DIGESTS

    def _evaluated(self) -> str | None:
        record = self.finished("evaluation")
        return None if record is None else fingerprint(record)

    def write_predictions(self, predictions: pd.DataFrame) -> Path:
        """Write ``predictions.csv``: one row per prediction, numbers unrounded."""
        with replacing(self.path / "predictions.csv") as partial:
            predictions.to_csv(partial, index=False, lineterminator="\n")
        return self.path / "predictions.csv"

    def figure(self, figure: Figure, name: str) -> Path:
        """Save a figure as ``figures/<name>.png`` of the run; equal figures give equal bytes.

        The state of the stages that were asked for since the run was opened is noted with it: see
        :meth:`current_figures`.

        Parameters
        ----------
        figure : Figure
            To save.
        name : str
            Of the file; the report makes a caption of it.
        """
        path = self.path / "figures" / f"{check_name(name, 'figure')}.png"
        with replacing(path) as partial:
            figure.savefig(partial, dpi=90, metadata={"Software": None})
        shown = {stage: fingerprint(record) for stage in sorted(self._used)
                 if (record := self.finished(stage)) is not None}
        write_json(self._figure_sources, {**self._figures_of(), name: shown})
        return path

    def current_figures(self) -> dict[str, Path]:
        """Figures of the run by name, without those that show a stage which has changed since."""
        sources, state = self._figures_of(), {}

        def is_current(name: str) -> bool:
            for stage, noted in sources.get(name, {}).items():
                if stage not in state:
                    record = self.finished(stage)
                    state[stage] = None if record is None else fingerprint(record)
                if state[stage] != noted:
                    return False
            return True

        found = {path.stem: path for path in sorted((self.path / "figures").glob("[!.]*.png"))}
        return {name: path for name, path in found.items() if is_current(name)}

    def _figures_of(self) -> dict[str, dict[str, str]]:
        """Figures that were noted, each with the stages that it shows; those of older versions were not."""
        return read_mapping(self._figure_sources, {}) if self._figure_sources.is_file() else {}

    @property
    def _figure_sources(self) -> Path:
        return self.path / "figures" / ".sources.json"

    def publish_figures(self, also: Sequence[str] = ()) -> list[Path]:
        """Copy figures of the run over those of the same names in ``figures/`` of the project, which README shows.

        Parameters
        ----------
        also : sequence of str
            Names of further figures, to be published for the first time.

        Returns
        -------
        list of Path
            The written files.

        Raises
        ------
        FileNotFoundError
            If the run has no figure of a name in ``also``, or none that is published. One that shows a stage which has
            changed since does not count.
        """
        made = self.current_figures()
        if lost := sorted(set(also) - set(made)):
            raise FileNotFoundError(f"The run {self.name!r} has no figure {', '.join(lost)}; it has "
                                    f"{', '.join(made) or 'none'}.")
        shown = {path.stem for path in (self.root / "figures").glob("*.png")} | set(also)
        if not (chosen := [path for name, path in made.items() if name in shown]):
            raise FileNotFoundError(f"The run {self.name!r} has none of the figures in {self.root / 'figures'}: run "
                                    "the lessons first.")
        for path in chosen:
            with replacing(self.root / "figures" / path.name) as partial:
                shutil.copyfile(path, partial)
        return [self.root / "figures" / path.name for path in chosen]


@dataclass
class Stage:
    """One step of a run; make it by :meth:`Run.stage`."""

    run: Run
    name: str
    params: dict
    inputs: dict
    needs: dict[str, str]  # needed stage: its fingerprint
    code: dict  # version and constants of the code that decides its result
    _begun: float | None = field(default=None, repr=False)

    @property
    def path(self) -> Path:
        """Folder of the stage; between :meth:`begin` and :meth:`finish` the work folder."""
        return self.run.path / (self.name if self._begun is None else f".{self.name}.part-{self.key[:8]}")

    @property
    def key(self) -> str:
        """Hash of everything that this stage is made from."""
        made_from = {"stage": self.name, "params": self.params, "inputs": self.inputs, "needs": self.needs}
        return digest({**made_from, "code": self.code})

    @property
    def done(self) -> bool:
        """Whether the stage was finished with exactly these parameters and inputs, and has all its files.

        In a sweep a stage of another run with the same key counts, and is linked here (:mod:`e2llm.app.sharing`).
        """
        return self._finished_here or (sharing.is_shared(self) and sharing.take(self))

    @property
    def _finished_here(self) -> bool:
        record = self.run.finished(self.name)
        return record is not None and record["key"] == self.key

    @property
    def metrics(self) -> dict:
        """Unrounded metrics of the finished stage."""
        if not self._finished_here:
            raise StageMissing(f"The stage {self.name!r} in {self.path} is not finished: it has no metrics yet.")
        return self.run.require(self.name)["metrics"]

    def begin(self) -> Stage:
        """Prepare the work folder; checkpoints of an interrupted stage stay if its key is the same.

        Raises
        ------
        RunBusy
            If another process makes a stage of this run.
        RuntimeError
            If the stage is finished.
        """
        hold(self.run, self.name)
        self.run._recover()
        if self._finished_here:
            release(self.run, self.name)
            raise RuntimeError(f"{self.path} is finished: use it, or remove the folder to make it again.")
        self._begun = time.perf_counter()
        part = self.path / "stage.part.json"
        begun = read_mapping(part, {"key": str, "attempts": int}) if part.is_file() else {}
        attempts = begun.get("attempts", 0) if begun.get("key") == self.key else 0
        for work in self.run.path.glob(f".{self.name}.part-*"):
            if attempts == 0 or work != self.path:
                # The note first: an interrupted removal must not look like work to continue.
                (work / "stage.part.json").unlink(missing_ok=True)
                shutil.rmtree(work)
        self.path.mkdir(exist_ok=True)
        write_json(part, {"key": self.key, "params": self.params, "attempts": attempts + 1})
        return self

    def finish(self, metrics: Mapping | None = None, **facts: Any) -> Stage:
        """Complete the stage: hash its files, write ``stage.json``, remove checkpoints, rename the folder.

        Parameters
        ----------
        metrics : mapping, optional
            Kept unrounded; NaN becomes null.
        **facts
            Other facts to keep, such as recordings that could not be used.

        Raises
        ------
        RuntimeError
            If :meth:`begin` was not called.
        """
        if self._begun is None:
            raise RuntimeError(f"finish() before begin() for {self.path}.")
        hold(self.run, self.name)  # the lock was released if the notebook's cell ended since
        files = {}
        for name, path in visible_files(self.path):
            if not re.fullmatch(r"stage[^/]*\.json|checkpoints/.*", name):
                files[name] = {"sha256": checksum(path), "size": path.stat().st_size}
        record = {
            "stage": self.name, "key": self.key, "params": self.params, "inputs": self.inputs, "needs": self.needs,
            "code": self.code, "files": files,
            "metrics": _plain(metrics or {}, "metrics"), "facts": _plain(facts, "facts"),
            "versions": versions(), "attempts": read_json(self.path / "stage.part.json")["attempts"],
            "seconds": round(time.perf_counter() - self._begun, 3),  # of the last attempt
        }  # fmt: skip
        write_json(self.path / "stage.json", record)
        for name, facts in files.items():
            remember(self.path / name, facts["sha256"], self.run._digests)
        self.run.put_stage(self.name, self.path)
        self._begun = None
        self.run.refresh_manifest()
        release(self.run, self.name)
        sharing.give(self)
        return self

    def figure(self, figure: Figure, name: str) -> Path:
        """Save a figure of the run (:meth:`Run.figure`).

        Parameters
        ----------
        figure : Figure
            To save.
        name : str
            Of the file.
        """
        return self.run.figure(figure, name)


class Progress(AbstractContextManager):
    """Progress of a long step: ``progress.json`` in the run's folder, and a bar in an interactive session.

    Of processes that train together, the first one reports.

    Parameters
    ----------
    run : Run
        The run.
    total : int
        Number of steps.
    label : str
        Name of the work. ``with Progress(...)`` closes it at the end.
    """

    def __init__(self, run: Run, total: int, label: str) -> None:
        self._path, self._total, self._label, self._written = run.path / "progress.json", total, label, -math.inf
        self._bar, self._reports = None, is_first_process()
        if self._reports and is_watched():
            from tqdm.auto import tqdm

            self._bar = tqdm(total=total, desc=label)

    def update(self, step: int, **facts: Any) -> None:
        """Report progress.

        Parameters
        ----------
        step : int
            Steps that are done.
        **facts
            Shown beside the bar, such as ``loss=0.7``.
        """
        if self._bar is not None:
            self._bar.set_postfix(facts, refresh=False)
            self._bar.update(step - self._bar.n)
        if self._reports and (time.monotonic() - self._written >= 0.5 or step >= self._total):
            state = {"label": self._label, "step": step, "total": self._total, "facts": _plain(facts, "facts")}
            with suppress(OSError):  # it only informs: a full disk, or a reader on Windows, ends no training
                write_json(self._path, state)
            self._written = time.monotonic()

    def close(self, *_: object) -> None:
        """End the bar and remove the file."""
        if self._bar is not None:
            self._bar.close()
        if self._reports:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)

    __exit__ = close
