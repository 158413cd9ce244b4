"""The notebooks as a pipeline: parameters checked before any kernel starts, then papermill, one after the other.

A profile (``notebooks/profiles/*.yaml``) is only parameters; each notebook declares its own in the cell tagged
``parameters``, as literals with a trailing comment. Parameters given by hand (``overrides``) go over the profile's.
"""

from __future__ import annotations

import ast
import difflib
import io
import json
import os
import re
import sys
import threading
import tokenize
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from . import report
from .fetch import CATALOGUE, Packaged, require
from .locks import held
from .runs import Run, project_root, replacing, runs_folder

CELL_TIMEOUT_S = 24 * 3600  # of one cell; a hanging kernel must end some time


class PipelineError(Exception):
    """A notebook failed; the message is one paragraph: which, why, and where its executed part lies."""


class Parameter(NamedTuple):
    """One assignment of a notebook's ``parameters`` cell."""

    default: Any
    help: str


# ---------------------------------------------------------------- parameters


def find_notebooks(folder: Path | None = None, also: Sequence[str] = ()) -> list[Path]:
    """The lessons that make up the pipeline, ``01_…`` to ``05_…``, in order, and further ones by their numbers (``"07"``)."""
    folder = folder or project_root() / "notebooks"
    found = sorted(folder.glob("0[1-5]_*.ipynb"))
    if not found:
        raise FileNotFoundError(f"No notebook 01_*.ipynb to 05_*.ipynb in {folder}: start inside the project.")
    for number in also:
        more = sorted(folder.glob(f"{number}_*.ipynb"))
        if len(more) != 1:
            known = ", ".join(path.name[:2] for path in sorted(folder.glob("[0-9][0-9]_*.ipynb")))
            raise ValueError(f"There is no lesson {number!r} in {folder}: known are {known}.")
        found += [path for path in more if path not in found]
    return sorted(found)


def load_profile(name_or_path: str | Path) -> dict[str, Any]:
    """Parameters of a profile, by its name or the path of a YAML file; the key ``description`` is left out."""
    path, folder = Path(name_or_path), project_root() / "notebooks" / "profiles"
    if path.suffix not in (".yaml", ".yml"):
        path = folder / f"{name_or_path}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.yaml"))) or "none"
        raise ValueError(f"There is no profile {str(name_or_path)!r} ({path}). Known profiles: {known}.")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {error}") from error
    if not isinstance(content, dict) or any(isinstance(value, dict) for value in content.values()):
        raise ValueError(f"{path} must be a flat mapping, one line 'parameter: value' each.")
    return {str(key): value for key, value in content.items() if key != "description"}


def parse_assignments(texts: Iterable[str]) -> dict[str, Any]:
    """``["epochs=3", "subjects=[1, 2]"]`` to a mapping; values are read as YAML."""
    values = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip().isidentifier():
            raise ValueError(f"{text!r} is no parameter: write key=value.")
        try:
            values[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ValueError(f"The value in {text!r} is not YAML ({error}): quote it.") from error
    return values


def notebook_parameters(path: str | Path) -> dict[str, Parameter]:
    """Name to default and help of what a notebook's ``parameters`` cell declares; the cell is read, not run.

    Raises
    ------
    ValueError
        If there is not exactly one such cell, or a line of it is no literal. A value computed from others would go
        stale when papermill replaces them below the cell.
    """
    cells = json.loads(Path(path).read_text(encoding="utf-8"))["cells"]
    tagged = [cell for cell in cells if "parameters" in cell.get("metadata", {}).get("tags", ())]
    if len(tagged) != 1:
        raise ValueError(f"{path} has {len(tagged)} cells tagged 'parameters': tag exactly one.")
    source = "".join(tagged[0]["source"])
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}
    found = {}
    for node in ast.parse(source).body:
        line = ast.get_source_segment(source, node)
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        try:
            (target,) = targets
            found[target.id] = Parameter(ast.literal_eval(node.value), comments.get(node.end_lineno, ""))
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}, parameters cell: {line!r} is not 'name = literal'; compute it below.") from error
    return found


def _checked(name: str, value: Any, default: Any) -> Any:
    """``value`` as the type of ``default``; raises ValueError if it is of another one."""
    if default is None or type(value) is type(default):
        return value
    if isinstance(default, float) and type(value) is int:
        return float(value)  # 1 and 1.0 must make equal stages
    if isinstance(default, tuple) and isinstance(value, list):
        return tuple(value)
    hint = ""
    if isinstance(value, str) and isinstance(default, (bool, int, float)):
        hint = {bool: " Write true or false.", int: " Write a whole number."}.get(
            type(default), " YAML reads 1e-3 as text: write 1.0e-3."
        )
    wanted, got = type(default).__name__, "nothing" if value is None else type(value).__name__
    raise ValueError(f"{name} = {value!r} is {got}, but its default {default!r} is {wanted}.{hint}")


def validate(profile: Mapping, overrides: Mapping, notebooks: Sequence[Path]) -> dict[Path, dict[str, Any]]:
    """Check names and types of parameters against what the notebooks declare.

    Parameters
    ----------
    profile, overrides : mapping
        Parameter to value; the second wins.
    notebooks : sequence of path

    Returns
    -------
    dict
        Notebook to the value of every parameter it declares, but for ``run_name``.
    """
    declared = {path: notebook_parameters(path) for path in notebooks}
    defaults: dict[str, tuple[Any, Path]] = {}
    for path, parameters in declared.items():
        if "run_name" not in parameters:
            raise ValueError(f"{path} does not declare the parameter run_name: it could not find its run.")
        for name, parameter in parameters.items():
            default, first = defaults.setdefault(name, (parameter.default, path))
            if (type(default), default) != (type(parameter.default), parameter.default):
                both = f"{default!r} in {first.name} but {parameter.default!r} in {path.name}"
                raise ValueError(f"The parameter {name} defaults to {both}: give it one default.")
    values = {**profile, **overrides}
    if "run_name" in values:
        raise ValueError("run_name is no parameter of a profile: give the run's name by --name.")
    for name in values:
        if name not in defaults:
            close = difflib.get_close_matches(name, defaults, n=3, cutoff=0.5)
            near = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(sorted(defaults))}."
            raise ValueError(f"No notebook declares the parameter {name!r}: {near}")
    effective = {name: default for name, (default, _) in defaults.items()}
    effective |= {name: _checked(name, value, defaults[name][0]) for name, value in values.items()}
    return {path: {name: effective[name] for name in declared[path] if name != "run_name"} for path in declared}


def run_name(profile: str | Path, overrides: Mapping) -> str:
    """Name of a run that was given none: the profile's, then each changed parameter (``tiny-epochs3-seed1``)."""
    return "-".join([Path(profile).stem, *(f"{key}{_slug(value)}" for key, value in overrides.items())])


def _slug(value: Any) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "_", str(value)).strip("_")[:40]


# ---------------------------------------------------------------- execution


@contextmanager
def _batch_environment() -> Iterator[None]:
    """What kernels started here inherit: no live widgets, one place for runs wherever they stand."""
    before = dict(os.environ)
    os.environ.update(E2LLM_BATCH="1", E2LLM_RUNS=str(runs_folder()))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _terminal_bar(run: Run, total: int) -> Iterator[Any]:
    """A bar over notebooks that also shows what the running one writes to ``progress.json``."""
    from tqdm import tqdm

    bar, over = tqdm(total=total, desc=run.name, unit="notebook", disable=None, file=sys.stderr), threading.Event()

    def poll() -> None:
        while not over.wait(0.5):
            try:
                state = json.loads((run.path / "progress.json").read_text(encoding="utf-8"))
            except FileNotFoundError:
                continue  # nothing long is going on
            facts = " ".join(f"{key}={_short(value)}" for key, value in state["facts"].items())
            bar.set_postfix_str(f"{state['label']} {state['step']}/{state['total']} {facts}".rstrip())

    thread = threading.Thread(target=poll, daemon=True)
    if not bar.disable:
        thread.start()
    try:
        yield bar
    finally:
        over.set()
        if thread.is_alive():
            thread.join()
        bar.close()


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _execute(notebook: Path, target: Path, parameters: Mapping, cell_timeout: float) -> None:
    """Execute one notebook; what it printed until then is kept if it fails or is cut off."""
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    try:
        papermill.execute_notebook(
            notebook, target, parameters=dict(parameters), cwd=notebook.parent, progress_bar=False, log_output=False,
            autosave_cell_every=5, execution_timeout=cell_timeout,
            extra_arguments=["--log-level=50"],  # the kernel's own log; what cells say comes as messages
        )  # fmt: skip
    except PapermillExecutionError as error:
        fact = f"cell [{error.exec_count}] raised {error.ename}: {' '.join(str(error.evalue).split())}"
    except CellTimeoutError:
        fact = f"a cell ran for longer than {cell_timeout:g} s"
    except DeadKernelError:
        fact = "its kernel died, most often for lack of memory"
    else:
        return
    raise PipelineError(f"The notebook {notebook.name} failed: {fact}. What it did until then is in {target}.")


def run_pipeline(
    profile: str | Path = "tiny",
    overrides: Mapping | None = None,
    name: str | None = None,
    notebooks: Sequence[Path] | None = None,
    cell_timeout: float = CELL_TIMEOUT_S,
) -> Run:
    """Run the notebooks one after the other into ``runs/<name>/notebooks/``, then write the report.

    Parameters
    ----------
    profile : str or path
        See :func:`load_profile`.
    overrides : mapping, optional
        Parameters that replace the profile's.
    name : str, optional
        Of the run; by default made of the profile and the overrides, so that a changed run has a folder of its own.
    notebooks : sequence of path, optional
        Default: :func:`find_notebooks`.
    cell_timeout : float
        Seconds that one cell may take.

    Returns
    -------
    Run

    Raises
    ------
    ValueError
        If a parameter is unknown or of the wrong type, or the language model has to be fetched first; before any kernel starts.
    PipelineError
        If a notebook fails. Stages finished by then stay, and are skipped the next time.
    """
    overrides = dict(overrides or {})
    notebooks = [Path(path).resolve() for path in notebooks or find_notebooks()]
    wanted = validate(load_profile(profile), overrides, notebooks)
    everything = {key: value for parameters in wanted.values() for key, value in parameters.items()}
    if isinstance(CATALOGUE.get(wanted_model := everything.get("language_model")), Packaged):
        require(wanted_model)  # before any work, not after half an hour
    run = Run.open(name or run_name(profile, overrides))
    # A lock of its own: the kernels started here take the one of stages.
    with held(run, "the pipeline", "pipeline"), _batch_environment(), _terminal_bar(run, len(wanted)) as bar:
        (run.path / "progress.json").unlink(missing_ok=True)  # of a run that was killed
        (run.path / "notebooks").mkdir(exist_ok=True)
        for path, parameters in wanted.items():
            bar.set_description(f"{run.name}: {path.stem}")
            _execute(path, run.path / "notebooks" / path.name, {**parameters, "run_name": run.name}, cell_timeout)
            bar.set_postfix_str("")
            bar.update()
            if bar.disable:  # a log file gets a line a notebook instead of a bar
                print(f"{run.name}: {path.stem} done", file=sys.stderr, flush=True)
        # Until here the results of the last finished run stay; metrics know by themselves which evaluation they are of.
        with replacing(run.path / "params.yaml") as partial:
            partial.write_text(yaml.safe_dump(everything, allow_unicode=True), encoding="utf-8")
        report.build(run)
    return run
