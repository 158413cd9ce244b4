"""Run folders: what a pipeline leaves behind, what is still valid, and what has to be made again.

A run is the folder ``runs/<name>/``; a stage is a folder in it. A stage is made in a hidden work folder
(``.encoder.part-1a2b3c4d``) and takes its place by renaming once it is whole, so an interrupt leaves what was there
before. One process at a time makes stages of a run::

    run = Run.open("tiny")
    stage = run.stage("encoder", {"epochs": 10}, needs=("windows",))
    if not stage.done:
        stage.begin()  # takes up the checkpoints of the same work, if it was cut off earlier
        ...  # write files below stage.path
        stage.finish({"accuracy": accuracy})
    stage.metrics["accuracy"]
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

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
    "evaluation": "05_evaluation",
    "feedback": "07_reasoning",
    "reasoning": "07_reasoning",
    "scaling": "08_scaling",
    "pretraining": "09_pretraining_an_encoder",
}
PUBLISHED_RUN = "tiny"  # the only run whose figures may go into the project's own figures/ folder
PACKAGES = ("numpy", "scipy", "pandas", "scikit-learn", "mne", "torch", "transformers", "peft", "accelerate")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_RESERVED = ("figures", "notebooks")  # folders of a run that are no stages
_SETTLED_S = 2.0  # a file changed less than so long ago may change again within one tick of the disk's clock
_HELD: dict[tuple[int, Path], tuple[FileLock, set[str]]] = {}  # locks of this process, and what each is held for


class StageMissing(Exception):
    """A stage that another one needs is not finished; the message says which notebook makes it."""


class RunBusy(Exception):
    """Another process is at work in the run; the message says which, and what to do."""


def project_root() -> Path:
    """Folder of the ``pyproject.toml`` that names e2llm, looked for upwards from here, then from the package."""
    for start in (Path.cwd(), Path(__file__).resolve().parent):
        for folder in (start, *start.parents):
            project = folder / "pyproject.toml"
            if project.is_file() and re.search(r"""^name\s*=\s*["']e2llm["']""", project.read_text("utf-8"), re.M):
                return folder
    raise FileNotFoundError(f"No pyproject.toml that names e2llm in or above {Path.cwd()}: start inside the project.")


def runs_folder() -> Path:
    """Where runs lie: ``runs/`` of the project, or what ``E2LLM_RUNS`` names (relative to the project)."""
    return project_root() / (os.environ.get("E2LLM_RUNS") or "runs")


def in_kernel() -> bool:
    """True in a notebook's kernel, whoever drives it."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and getattr(ipython.get_ipython(), "kernel", None) is not None


def is_interactive() -> bool:
    """True if somebody sits before this notebook, so that live widgets and bars make sense.

    Jupyter sets ``JPY_SESSION_NAME`` for the kernels it serves; papermill and nbval do not. The pipeline also
    sets ``E2LLM_BATCH``, for kernels started from within a notebook inherit the first.
    """
    return "JPY_SESSION_NAME" in os.environ and "E2LLM_BATCH" not in os.environ


def is_watched() -> bool:
    """True if a progress bar has a reader: a person at a notebook, or a terminal outside any kernel."""
    return is_interactive() or (sys.stderr.isatty() and not in_kernel())


def check_name(name: str, what: str = "run") -> str:
    """Return ``name`` if it can name a folder, raise ValueError otherwise."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} cannot name a {what}: use letters, digits, '.', '_', '-', a letter or digit first.")
    return name


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path that takes the name ``path`` once the block has ended without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{os.getpid()}-{path.name}")  # hidden, same suffix: writers look at suffixes
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _write_json(path: Path, content: Any) -> None:
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    with replacing(path) as partial:
        partial.write_text(text + "\n", encoding="utf-8")


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON ({error}): remove the folder {path.parent} and make it again.") from error


def _plain(value: Any, where: str) -> Any:
    """``value`` with builtin types only; numpy scalars and arrays unwrapped, what JSON cannot say refused."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON has no NaN; null is what other readers expect in its place
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{where} is a {type(value).__name__}: give numbers, text, lists and dictionaries only.")


def _digest(content: Any) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _visible_files(folder: Path) -> list[tuple[str, Path]]:
    """(relative name, path) of the files below ``folder`` in order of name; links are followed, hidden files left out."""
    found, seen = [], set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(parent)) in seen:
            folders.clear()  # a link to a folder above would never end
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(parent, name) for name in files if not name.startswith(".")]
    return sorted((path.relative_to(folder).as_posix(), path) for path in found if path.is_file())


def checksum(path: Path) -> str:
    """sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def data_fingerprint(root: str | Path, inputs: Iterable[Path] | None = None, cache: Path | None = None) -> str:
    """sha256 over the names and contents of input files.

    Every byte is read once: a digest is kept in ``cache`` under the file's inode, size and times, so that later calls
    look at these alone. The first call reads about 1 GB a second, which is little beside preprocessing the same files.

    Parameters
    ----------
    root : path
        Folder of the data. Files in it count by their name relative to it, so that it may be moved.
    inputs : iterable of path, optional
        Files, and folders that count with every file below them, hidden ones left out. One that does not exist counts
        as absent. Default: ``root``.
    cache : path, optional
        JSON file of digests; written anew with the files of this call.

    Returns
    -------
    str

    Raises
    ------
    FileNotFoundError
        If ``root`` is no folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is not a folder: give the folder that holds the data.")
    known = json.loads(cache.read_text("utf-8")) if cache is not None and cache.is_file() else {}
    kept, facts = {}, []
    for place in [root] if inputs is None else inputs:
        name = place.relative_to(root).as_posix() if place.is_relative_to(root) else f"outside/{place.name}"
        below = [(f"{name}/{file}", path) for file, path in _visible_files(place)] if place.is_dir() else [(name, place)]
        facts += [[file, _content_mark(path, known, kept) if path.is_file() else None] for file, path in below]
    if cache is not None and kept != known:
        _write_json(cache, kept)
    return _digest(sorted(facts, key=json.dumps))


def _content_mark(path: Path, known: Mapping[str, str], kept: dict[str, str]) -> str:
    """sha256 of a file, taken from ``known`` where the file has not been touched since; put into ``kept``."""
    now, facts = time.time(), path.stat()
    mark = f"{facts.st_ino} {facts.st_size} {facts.st_mtime_ns} {facts.st_ctime_ns}"
    found = known.get(mark) or checksum(path)
    if now - max(facts.st_mtime, facts.st_ctime) > _SETTLED_S:
        kept[mark] = found
    return found


def versions() -> dict[str, str]:
    """Versions of Python, this package and those that results depend on."""
    from . import __version__

    installed = {"python": platform.python_version(), "e2llm": __version__}
    for package in PACKAGES:
        try:
            installed[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            installed[package] = "not installed"
    return installed


@dataclass(frozen=True)
class Run:
    """A run folder; make it by :meth:`Run.open`."""

    name: str
    path: Path
    root: Path

    @classmethod
    def open(cls, name: str) -> Run:
        """The run called ``name``, its folder made if need be."""
        root, path = project_root(), runs_folder() / check_name(name)
        path.mkdir(parents=True, exist_ok=True)
        run = cls(name, path, root)
        run._recover()
        return run

    def stage(self, name: str, params: Mapping, needs: tuple[str, ...] = (), inputs: Mapping | None = None) -> Stage:
        """One step of the run, told by what it is made from.

        Parameters
        ----------
        name : str
            Its folder in the run.
        params, inputs : mapping
            Everything that shapes its result: settings, and facts such as a :func:`data_fingerprint`. The constants of
            the code that decide it are added here (:mod:`e2llm.stage_code`).
        needs : tuple of str
            Stages it reads. A change of their parameters or files makes this one stale.
            :class:`StageMissing` if one is not finished, or was made from a stage that has changed since.
        """
        if isinstance(needs, str):  # its letters would pass for stages
            raise TypeError(f"needs must be a tuple of stage names, got the text {needs!r}: write ({needs!r},).")
        if check_name(name, "stage") in _RESERVED:
            raise ValueError(f"{name!r} is a folder that every run has: give the stage another name.")
        found = {need: self._needed(need, name) for need in needs}
        return Stage(self, name, _plain(params, "params"), _plain(inputs or {}, "inputs"), found, code_of(name))

    def finished(self, name: str) -> dict | None:
        """The record (``stage.json``) of a stage that is whole and made from what is there now, or None."""
        if not (path := self.path / name / "stage.json").is_file():
            return None
        record = _read_json(path)
        for relative, facts in record["files"].items():
            file = path.parent / relative
            if not file.is_file() or file.stat().st_size != facts["size"]:
                return None
        for need, fingerprint in record["needs"].items():
            upstream = self.finished(need)
            if upstream is None or _fingerprint(upstream) != fingerprint:
                return None
        return record

    def require(self, name: str) -> dict:
        """The record of a finished stage; :class:`StageMissing` says which notebook makes it if it is not there."""
        record = self.finished(name)
        if record is None:
            raise StageMissing(f"The stage {name!r} is not finished in {self.path}: {self._remedy(name)}")
        return record

    def _needed(self, need: str, by: str) -> str:
        record = self.finished(need)
        if record is None:
            stale = (self.path / need / "stage.json").is_file()
            fact = "is out of date (its files or what it was made from have changed)" if stale else "is not finished"
            raise StageMissing(f"The stage {by!r} needs {need!r}, which {fact} in {self.path}: {self._remedy(need)}")
        return _fingerprint(record)

    def _remedy(self, stage: str) -> str:
        notebook = NOTEBOOKS.get(stage)
        return f"run the notebook {notebook} with run_name = {self.name!r} first." if notebook else "make it first."

    def refresh_manifest(self) -> None:
        """Write ``manifest.json``: the records of all finished stages."""
        names = (path.parent.name for path in self.path.glob("[!.]*/stage.json"))
        records = {name: record for name in names if (record := self.finished(name)) is not None}
        _write_json(self.path / "manifest.json", {"run": self.name, "stages": records})

    @contextmanager
    def held(self, what: str, lock: str = "stage") -> Iterator[None]:
        """Keep other processes from work under the same ``lock``; :class:`RunBusy` if one is at it. Of one process, all may enter."""
        _hold(self, what, lock)
        try:
            yield
        finally:
            _release(self, what, lock)

    def put_stage(self, name: str, whole: Path) -> None:
        """Put a folder that holds a whole stage in the place of the old one: old aside, new in, old away.

        A process killed between these steps leaves both; :meth:`open` then goes on.
        """
        place, old = self.path / name, self.path / f".{name}.old"
        (whole / "stage.part.json").unlink(missing_ok=True)
        shutil.rmtree(whole / "checkpoints", ignore_errors=True)
        if place.exists():
            shutil.rmtree(old, ignore_errors=True)
            place.rename(old)
        whole.rename(place)
        shutil.rmtree(old, ignore_errors=True)

    def _recover(self) -> None:
        """Go on with replacements of stages that were cut off between their steps."""
        if not any(self.path.glob(".*.part-*/stage.json")) and not any(self.path.glob(".*.old")):
            return
        try:
            with self.held("recovery"):
                for record in self.path.glob(".*.part-*/stage.json"):
                    self.put_stage(record.parent.name[1:].rpartition(".part-")[0], record.parent)
                for old in self.path.glob(".*.old"):
                    place = self.path / old.name[1:].removesuffix(".old")
                    shutil.rmtree(old) if place.exists() else old.rename(place)
        except RunBusy:
            return  # not cut off: the other process is just doing it

    def write_metrics(self, metrics: Mapping) -> Path:
        """Write ``metrics.json``: results alone, so that equal runs write equal bytes.

        No times, dates or paths belong in it (text that holds the project's path is refused); NaN becomes null.
        """
        metrics, path = _plain(metrics, "metrics"), self.path / "metrics.json"
        if json.dumps(str(self.root))[1:-1] in json.dumps(metrics):
            raise ValueError(f"Metrics hold the path {self.root}: give names relative to the project, for {path}.")
        _write_json(path, metrics)
        _write_json(self._origin, {"evaluation": self._evaluated()})
        return path

    def read_metrics(self) -> dict:
        """What :meth:`write_metrics` wrote; :class:`StageMissing` if the evaluation it was made from has been replaced or is stale."""
        if not (path := self.path / "metrics.json").is_file():
            raise StageMissing(f"{path} is not there: {self._remedy('evaluation')}")
        if (_read_json(self._origin)["evaluation"] if self._origin.is_file() else None) != self._evaluated():
            raise StageMissing(f"{path} is of an earlier state of the run, before its stages changed: {self._remedy('evaluation')}")
        return _read_json(path)

    @property
    def _origin(self) -> Path:
        """File that says which evaluation ``metrics.json`` is of; beside it, so that equal results stay equal bytes."""
        return self.path / ".metrics-origin.json"

    def _evaluated(self) -> str | None:
        record = self.finished("evaluation")
        return None if record is None else _fingerprint(record)

    def write_predictions(self, predictions: pd.DataFrame) -> Path:
        """Write ``predictions.csv``, one row a prediction, floats unrounded."""
        with replacing(self.path / "predictions.csv") as partial:
            predictions.to_csv(partial, index=False, lineterminator="\n")
        return self.path / "predictions.csv"

    def figure(self, figure: Figure, name: str, publish: bool = False) -> Path:
        """Save a figure as ``figures/<name>.png``, equal bytes for equal figures; ``name`` becomes its caption.

        ``publish`` copies it to the project's ``figures/`` too, but only from the default run in the project's own
        ``runs/``: trials and tests never change what the README shows.
        """
        path = self.path / "figures" / f"{check_name(name, 'figure')}.png"
        with replacing(path) as partial:
            figure.savefig(partial, dpi=90, metadata={"Software": None})
        if publish and self.name == PUBLISHED_RUN and self.path.parent == self.root / "runs":
            with replacing(self.root / "figures" / path.name) as partial:
                shutil.copyfile(path, partial)
        return path


def _fingerprint(record: Mapping) -> str:
    """What a stage hands downstream: its key and the content of its files."""
    return _digest([record["key"], {name: facts["sha256"] for name, facts in record["files"].items()}])


def _hold(run: Run, what: str, lock: str) -> None:
    """Take a lock of a run for this process, or add to what it is held for; the disk frees it when the process dies."""
    path = run.path.resolve() / f".{lock}.lock"
    facts, key = path.with_suffix(".json"), (os.getpid(), path)  # by process: a forked one holds nothing
    if key not in _HELD:
        file = FileLock(path, thread_local=False)
        try:
            file.acquire(timeout=0)
        except Timeout:
            owner = _read_json(facts) if facts.is_file() else {"process": "unknown", "host": "unknown", "what": "unknown"}
            raise RunBusy(
                f"The run {run.name!r} ({run.path}) is in use by process {owner['process']} on {owner['host']} (at {owner['what']}): wait until "
                "it has ended, stop it, or give another run name."
            ) from None
        _HELD[key] = file, set()
        _write_json(facts, {"process": os.getpid(), "host": platform.node(), "what": what})
        ipython = sys.modules.get("IPython")
        if ipython is not None and (shell := ipython.get_ipython()) is not None:
            shell.events.register("post_run_cell", _release_all)  # an interrupted cell must not hold its run until the kernel ends
    _HELD[key][1].add(what)


def _release(run: Run, what: str, lock: str) -> None:
    path = run.path.resolve() / f".{lock}.lock"
    file, held_for = _HELD.get((os.getpid(), path), (None, set()))
    held_for.discard(what)
    if file is not None and not held_for:
        path.with_suffix(".json").unlink(missing_ok=True)
        del _HELD[os.getpid(), path]
        file.release()


def _release_all(*_: object) -> None:
    for pid, path in [key for key in _HELD if key[0] == os.getpid()]:
        path.with_suffix(".json").unlink(missing_ok=True)
        _HELD.pop((pid, path))[0].release()


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
        """Hash of everything this stage is made from."""
        made_from = {"stage": self.name, "params": self.params, "inputs": self.inputs, "needs": self.needs, "code": self.code}
        return _digest(made_from)

    @property
    def done(self) -> bool:
        """True if the stage was finished from exactly these parameters and inputs, and its files are all there."""
        record = self.run.finished(self.name)
        return record is not None and record["key"] == self.key

    @property
    def metrics(self) -> dict:
        """Exact metrics of the finished stage."""
        if not self.done:
            raise StageMissing(f"The stage {self.name!r} in {self.path} is not finished: it has no metrics yet.")
        return self.run.require(self.name)["metrics"]

    def begin(self) -> Stage:
        """Make the work folder ready: checkpoints of the same work, cut off earlier, stay; those of other work go.

        Raises
        ------
        RunBusy
            If another process makes a stage of this run.
        RuntimeError
            If the stage is finished.
        """
        _hold(self.run, self.name, "stage")
        if self.done:
            _release(self.run, self.name, "stage")
            raise RuntimeError(f"{self.path} is finished: use it, or remove the folder to make it again.")
        self._begun = time.perf_counter()
        part = self.path / "stage.part.json"
        begun = _read_json(part) if part.is_file() else {}
        attempts = begun.get("attempts", 0) if begun.get("key") == self.key else 0
        for work in self.run.path.glob(f".{self.name}.part-*"):
            if attempts == 0 or work != self.path:
                (work / "stage.part.json").unlink(missing_ok=True)  # first: a removal cut off must not look like work to go on with
                shutil.rmtree(work)
        self.path.mkdir(exist_ok=True)
        _write_json(part, {"key": self.key, "params": self.params, "attempts": attempts + 1})
        return self

    def finish(self, metrics: Mapping | None = None, **facts: Any) -> Stage:
        """Declare the stage whole: hash its files, write ``stage.json``, put it in its place without its checkpoints.

        ``metrics`` are kept unrounded (NaN becomes null); ``facts`` are anything else worth keeping, such as
        recordings that could not be used.
        """
        if self._begun is None:
            raise RuntimeError(f"finish() before begin() for {self.path}.")
        _hold(self.run, self.name, "stage")  # a cell of a notebook that has ended since has let go of it
        files = {}
        for name, path in _visible_files(self.path):
            if not re.fullmatch(r"stage[^/]*\.json|checkpoints/.*", name):
                files[name] = {"sha256": checksum(path), "size": path.stat().st_size}
        record = {
            "stage": self.name, "key": self.key, "params": self.params, "inputs": self.inputs, "needs": self.needs,
            "code": self.code, "files": files, "metrics": _plain(metrics or {}, "metrics"), "facts": _plain(facts, "facts"),
            "versions": versions(), "attempts": _read_json(self.path / "stage.part.json")["attempts"],
            "seconds": round(time.perf_counter() - self._begun, 3),  # of the last attempt
        }  # fmt: skip
        _write_json(self.path / "stage.json", record)
        self.run.put_stage(self.name, self.path)
        self._begun = None
        self.run.refresh_manifest()
        _release(self.run, self.name, "stage")
        return self

    def figure(self, figure: Figure, name: str, publish: bool = False) -> Path:
        """Same as :meth:`Run.figure`."""
        return self.run.figure(figure, name, publish)


class Progress(AbstractContextManager):
    """How far a long step is: ``progress.json`` in the run's folder for others to poll, a bar if somebody watches.

    ``total`` is the number of steps, ``label`` says what they are steps of; ``with Progress(...)`` closes it.
    """

    def __init__(self, run: Run, total: int, label: str) -> None:
        self._path, self._total, self._label, self._written = run.path / "progress.json", total, label, -math.inf
        self._bar = None
        if is_watched():
            from tqdm.auto import tqdm

            self._bar = tqdm(total=total, desc=label)

    def update(self, step: int, **facts: Any) -> None:
        """Tell that ``step`` steps are done, and facts such as ``loss=0.7``."""
        if self._bar is not None:
            self._bar.set_postfix(facts, refresh=False)
            self._bar.update(step - self._bar.n)
        if time.monotonic() - self._written >= 0.5 or step >= self._total:
            state = {"label": self._label, "step": step, "total": self._total, "facts": _plain(facts, "facts")}
            _write_json(self._path, state)
            self._written = time.monotonic()

    def close(self, *_: object) -> None:
        """End the bar and remove the file: what is done is no longer in progress."""
        if self._bar is not None:
            self._bar.close()
        self._path.unlink(missing_ok=True)

    __exit__ = close
