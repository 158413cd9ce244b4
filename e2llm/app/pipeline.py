"""The notebooks as a pipeline: parameters are checked before any kernel starts, then papermill runs the notebooks.

Defaults, types and bounds are those of :class:`e2llm.app.parameters.Parameters`. A profile
(``notebooks/profiles/*.yaml``) replaces defaults, and ``overrides`` replace values of the profile. The cell tagged
``parameters`` of a notebook says which parameters it takes; the values in this cell are not used here.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import sys
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ..core.environment import children_end_with_this, keep_freed_memory
from ..core.files import parse_yaml, project_root, read_yaml, replacing
from ..core.space import full_disk, require_space
from ..models.device import ask_for_device, ask_for_processes
from ..models.lookup import ask_for_model, from_here
from . import parameters, report
from .locks import held
from .runs import Run, runs_folder
from .sharing import SHARE
from .spreading import SCHEDULER, check_cluster

if TYPE_CHECKING:
    from jupyter_client import KernelManager

CELL_TIMEOUT_S = 24 * 3600  # of one cell; a kernel that hangs must end
KERNEL_TIMEOUT_S = 600  # until a kernel answers: it imports first, which takes long from a cold network disk
LEAST_SPACE = 256 << 20  # bytes that are free before a run starts; the default run needs some 130 MB beside its windows
LONGEST_NAME = 100  # letters of a run's name, before its hash
# What a stage of a lesson loads when it is reached; a kernel that waits for its turn has it loaded by then.
STAGES_LOAD = "import e2llm.training.stage_trainer, e2llm.training.stage3_instruction"


class PipelineError(Exception):
    """A notebook failed; the message names it, the reason, and the file with its executed part."""


# ---------------------------------------------------------------- parameters


def find_notebooks(folder: Path | None = None, also: Sequence[str] = ()) -> list[Path]:
    """The lessons of the pipeline, ``01_…`` to ``05_…``, and further ones, in order.

    Parameters
    ----------
    folder : Path, optional
        Default: ``notebooks`` of the project.
    also : sequence of str
        Numbers of further lessons, such as "07".

    Raises
    ------
    FileNotFoundError
        If the folder has no lessons.
    ValueError
        If there is no lesson of a number.
    """
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


def profile_path(name_or_path: str | Path) -> Path:
    """Path of a profile, which may be missing: a YAML file, or a name in ``notebooks/profiles``."""
    path = Path(name_or_path)
    return path if path.suffix in (".yaml", ".yml") else _profiles() / f"{name_or_path}.yaml"


def _profiles() -> Path:
    return project_root() / "notebooks" / "profiles"


def load_profile(name_or_path: str | Path) -> dict[str, Any]:
    """Parameters of a profile, given by name or YAML file; the key ``description`` is left out.

    Raises
    ------
    ValueError
        If the profile is missing, or is not a flat mapping in YAML.
    """
    path = profile_path(name_or_path)
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in _profiles().glob("*.yaml"))) or "none"
        raise ValueError(f"There is no profile {str(name_or_path)!r} ({path}). Known profiles: {known}.")
    content, written = read_yaml(path)
    content = {} if content is None else content
    if not isinstance(content, dict) or any(isinstance(value, dict) for value in content.values()):
        raise ValueError(f"{path} must be a flat mapping, one line 'parameter: value' each.")
    return {str(key): text_kept(key, value,
                                 written.get(key)) for key, value in content.items() if key != "description"}


def parse_assignments(texts: Iterable[str]) -> dict[str, Any]:
    """Parse ``["seed=3", "size_seeds=[1, 2]"]``; values are YAML, those of text parameters stay text.

    Raises
    ------
    ValueError
        If a text is not ``key=value``, or the value is not YAML.
    """
    values = {}
    for text in texts:
        key, equals, value = text.partition("=")
        key = key.strip()
        if not equals or not key.isidentifier():
            raise ValueError(f"{text!r} is no parameter: write key=value.")
        values[key] = text_kept(key, *parse_yaml(value, f"The value in {text!r:.100}"))
    return values


def text_kept(name: str, value: Any, written: Any) -> Any:
    """The value that YAML read, or for a text parameter the text itself: ``01`` stays "01".

    Parameters
    ----------
    name : str
        Of a parameter.
    value : object
        As YAML read it.
    written : object
        As it was written.
    """
    if not parameters.is_text(name):
        return value
    return "" if value is None else written


def declared_parameters(path: str | Path) -> set[str]:
    """Names that the ``parameters`` cell of a notebook assigns; the cell is parsed, not run.

    Raises
    ------
    ValueError
        If there is not exactly one such cell, or it is not Python.
    """
    cells = json.loads(Path(path).read_text(encoding="utf-8"))["cells"]
    tagged = [cell for cell in cells if "parameters" in cell.get("metadata", {}).get("tags", ())]
    if len(tagged) != 1:
        raise ValueError(f"{path} has {len(tagged)} cells tagged 'parameters': tag exactly one.")
    try:
        body = ast.parse("".join(tagged[0]["source"])).body
    except SyntaxError as error:
        raise ValueError(f"{path}, parameters cell: {error.msg} in line {error.lineno}.") from error
    targets = [target for node in body if isinstance(node, ast.Assign) for target in node.targets]
    targets += [node.target for node in body if isinstance(node, ast.AnnAssign)]
    named = [node for target in targets for node in ast.walk(target)]
    return {node.id for node in named if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


def validate(profile: Mapping, overrides: Mapping, notebooks: Sequence[Path]) -> dict[Path, dict[str, Any]]:
    """Check names, types and bounds of parameters, and that the notebooks take them.

    Parameters
    ----------
    profile, overrides : mapping
        Parameter to value; ``overrides`` replace values of the profile.
    notebooks : sequence of path
        Notebooks that would run.

    Returns
    -------
    dict
        Notebook to the value of every parameter it declares, without ``run_name``.

    Raises
    ------
    ValueError
        If a value is refused (:func:`e2llm.app.parameters.checked`), no notebook takes an override, it contradicts the
        simulated data that exist already, or a notebook declares an unknown parameter.
    """
    declared = {path: declared_parameters(path) for path in notebooks}
    for path, names in declared.items():
        if "run_name" not in names:
            raise ValueError(f"{path} does not declare the parameter run_name: it cannot find its run.")
        names.remove("run_name")
        for name in sorted(names - parameters.FIELDS.keys()):
            raise ValueError(f"{path}, parameters cell: {parameters.unknown(name)} Compute other values in a cell "
                             "below.")
    values = {**profile, **overrides}
    if "run_name" in values:
        raise ValueError("run_name is no parameter of a profile: give the run's name by --name.")
    effective = parameters.checked(values).model_dump()
    for name in overrides:  # a profile may also hold those of lessons that do not run
        if not any(name in names for names in declared.values()):
            running = ", ".join(path.stem for path in declared)
            raise ValueError(f"{name} is a parameter of none of the lessons that would run ({running}): leave it out, "
                             "or add its lesson.")
    _check_twins(values, effective)
    return {path: {name: value for name, value in effective.items() if name in names}
            for path, names in declared.items()}


def _check_twins(given: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Refuse parameters of a simulated twin if other data exist already, because they would be ignored."""
    null = {"preset": "no_emotion", **{name: values[f"null_{name}"] for name in ("subjects", "seed")}}
    for prefix, root, wanted in (("twin_", values["data_root"], {name: values[f"twin_{name}"] for name in
                                                                 ("preset", "subjects", "seed")}),
                                 ("null_", values["null_root"], null)):
        named = [name.removeprefix(prefix) for name in given if name.startswith(prefix) and name != "null_root"]
        if named and wanted["preset"] and (project_root() / root).exists():
            _check_twin(prefix, "data_root" if prefix == "twin_" else "null_root", project_root() / root, named, wanted)


def _check_twin(prefix: str, parameter: str, root: Path, given: Sequence[str], wanted: Mapping[str, Any]) -> None:
    """Refuse parameters of one twin that are not those of the data in its folder."""
    description = root.with_name(f"{root.name}-truth") / "twin.yaml"
    names = [prefix + name for name in given]
    if not description.is_file():
        raise ValueError(f"{', '.join(names)} given, but {root} is there already and is no finished twin: leave them "
                         f"out, or give another {parameter}.")
    there, _ = read_yaml(description)
    for name in given:
        found = there.get(name) if isinstance(there, dict) else None
        if found != wanted[name]:
            raise ValueError(f"{prefix}{name} = {wanted[name]!r}, but the twin that is in {root} already has "
                             f"{found!r:.40}: give another {parameter}, or remove that folder.")


def run_name(profile: str | Path, overrides: Mapping, base: str = "") -> str:
    """Default name of a run: the profile, then each changed parameter (``tiny-seed1-fold1``).

    The name ends in a short hash if it is ambiguous without it: a value was changed or shortened to fit a folder name,
    has capital letters (which some file systems ignore) or looks like another parameter, the name is long, or the
    profile is a file outside ``notebooks/profiles``.

    Parameters
    ----------
    profile : str or path
        See :func:`load_profile`.
    overrides : mapping
        Parameter to value.
    base : str, optional
        Replaces the name of the profile.

    Returns
    -------
    str
        At most ``LONGEST_NAME`` + 9 letters.
    """
    path = profile_path(profile).resolve()
    stem = base or path.stem
    source = stem if base or path == (_profiles() / f"{stem}.yaml").resolve() else str(path)
    exact = [source, *(f"{key}{value.lower() if isinstance(value, str) else value}"
                       for key, value in overrides.items())]
    readable = [_slug(stem) or "run", *(f"{key}{_slug(value)}" for key, value in overrides.items())]
    name = "-".join(readable)
    parts = re.split(rf"-(?={'|'.join(parameters.FIELDS)})", name)
    if parts == readable == exact and len(name) <= LONGEST_NAME and not re.search(r"-[0-9a-f]{8}$", name):
        return name
    requested = json.dumps([source, list(overrides.items())], default=str)
    return f"{name[:LONGEST_NAME]}-{hashlib.sha256(requested.encode()).hexdigest()[:8]}"


def _slug(value: Any) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "_", str(value))[:40].strip("_.-")


def _ask_for_files(values: Mapping[str, Any]) -> None:
    """Refuse devices, models and weights that are not there, and options that a source lacks, before any work.

    Parameters
    ----------
    values : mapping
        Every parameter that the lessons take.
    """
    if options := values.get("source_options"):
        from ..data.sources import parse_options  # here: it loads MNE

        if "subjects" in parse_options(values["source"], options):
            raise ValueError(f"source_options = {options!r} has subjects, which is a parameter of its own: give it so.")
    ask_for_device(*(values.get(name, "auto") for name in ("device", "dtype", "attention")))
    ask_for_processes(values.get("processes", 1), values.get("device", "auto"))
    named = [values.get("language_model"), *(name for name in values.get("sizes", ()) if "/" in name)]
    for name in filter(None, named):
        ask_for_model(name)
    for parameter in ("encoder_weights", "start"):
        weights = values.get(parameter) or ""
        path = Path(weights) if Path(weights).is_absolute() else project_root() / weights
        if Path(weights).suffix and not path.exists():
            raise ValueError(f"{parameter} = {weights!r}: {path} is missing. Give the path of a checkpoint, or leave "
                             "the parameter out.")


def _ask_for_data(values: Mapping[str, Any]) -> None:
    """Open the folder of recordings, where none would be simulated: what it lacks is said before a kernel starts."""
    if {"source", "source_options", "data_root", "twin_preset"} <= values.keys() and not values["twin_preset"]:
        from ..data.sources import open_source, parse_options  # takes seconds to import

        options = parse_options(values["source"], values["source_options"])
        open_source(values["source"], project_root() / Path(values["data_root"]).expanduser(), **options)


# ---------------------------------------------------------------- execution


@contextmanager
def _batch_environment(share: bool, scheduler: str = "") -> Iterator[None]:
    """Environment of the kernels: no live widgets, and one folder of runs whatever their working directory."""
    before = dict(os.environ)
    os.environ.update(E2LLM_BATCH="1", E2LLM_RUNS=str(runs_folder()), **({SHARE: "1"} if share else {}),
                      **({SCHEDULER: scheduler} if scheduler else {}))
    keep_freed_memory()
    try:
        with children_end_with_this():
            yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _terminal_bar(run: Run, total: int) -> Iterator[Any]:
    """A progress bar over notebooks that also shows ``progress.json`` of the running one."""
    from tqdm import tqdm

    bar, over = tqdm(total=total, desc=run.name, unit="notebook", disable=None, file=sys.stderr), threading.Event()

    def poll() -> None:
        while not over.wait(0.5):
            try:
                state = json.loads((run.path / "progress.json").read_text(encoding="utf-8"))
                facts = " ".join(f"{key}={_short(value)}" for key, value in state["facts"].items())
                bar.set_postfix_str(f"{state['label']} {state['step']}/{state['total']} {facts}".rstrip())
            except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):
                continue  # no long step is running, or the file is damaged: a bar stops nothing

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


def _imports(notebook: Path) -> str:
    """Import statements at the top level of a lesson, and what its stages load if it imports the whole of e2llm."""
    found = []
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        try:
            body = ast.parse("".join(cell["source"])).body if cell["cell_type"] == "code" else []
        except SyntaxError:  # a cell for IPython alone
            continue
        found += [ast.unparse(node) for node in body if isinstance(node, ast.Import | ast.ImportFrom)]
    return "\n".join(["import e2llm", *found, *([STAGES_LOAD] if "import e2llm" in found else [])])


_LONGEST_FOLDER = 50  # letters; with the name of a kernel's socket some 100, and a system allows 103 or 107


def _connection() -> dict[str, str]:
    """Socket files carry the messages of kernels where a system has them: two kernels may draw one port."""
    from jupyter_core.paths import jupyter_runtime_dir

    folder = Path(jupyter_runtime_dir())
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Named here: sockets are named after this file, and would else be those of every kernel.
    place = {"connection_file": str(folder / f"kernel-{uuid.uuid4()}.json")}
    return {**place, "transport": "ipc"} if os.name == "posix" and len(str(folder)) <= _LONGEST_FOLDER else place


def _start_kernel(notebook: Path, ahead: bool) -> KernelManager:
    """A kernel in the folder of a notebook; one that is started ahead of its turn loads what the notebook imports.

    Each loads this package before its first cell, and so ends with this process
    (:func:`~e2llm.core.environment.end_with_parent`). The kernel's own watch is off: it ends the kernel and leaves its
    workers.
    """
    from jupyter_client import KernelManager
    from jupyter_client.kernelspec import NoSuchKernel

    name = json.loads(notebook.read_text(encoding="utf-8"))["metadata"].get("kernelspec", {}).get("name", "python3")
    kernel = KernelManager(kernel_name=name, client_class="jupyter_client.asynchronous.AsyncKernelClient",
                           **_connection())
    loaded = _imports(notebook) if ahead else "import e2llm"
    # The log is the kernel's own; output of cells comes as messages.
    try:
        kernel.start_kernel(cwd=str(notebook.parent),
                            extra_arguments=["--log-level=50", "--HistoryManager.hist_file=:memory:",
                                             "--IPKernelApp.parent_handle=0",
                                             f"--IPKernelApp.exec_lines=exec({loaded!r}, {{}})"])
    except NoSuchKernel as error:
        raise PipelineError(f"The notebook {notebook.name} asks for the kernel {name!r}, which is not installed: "
                            "choose another one in JupyterLab and save it, or install that one.") from error
    return kernel


def _kernels(notebooks: Sequence[Path]) -> Iterator[tuple[Path, KernelManager]]:
    """Notebooks with their kernels, each started while the one before works; closed, it leaves none."""
    running: dict[Path, KernelManager] = {}
    try:
        for path, following in zip_longest(notebooks, notebooks[1:]):
            for wanted in filter(None, (path, following)):
                if wanted not in running:
                    running[wanted] = _start_kernel(wanted, ahead=wanted == following)
            yield path, running[path]
            running.pop(path).shutdown_kernel(now=True)
    finally:
        for kernel in running.values():
            kernel.shutdown_kernel(now=True)


def _execute(notebook: Path, target: Path, parameters: Mapping, cell_timeout: float, kernel: KernelManager) -> None:
    """Execute one notebook; its output is kept if it fails or is interrupted."""
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    # Papermill writes a tuple as the text of a tuple, a list as a list.
    given = {name: list(value) if isinstance(value, tuple) else value for name, value in parameters.items()}
    try:
        papermill.execute_notebook(
            notebook, target, parameters=given, cwd=notebook.parent, progress_bar=False, log_output=False,
            autosave_cell_every=5, execution_timeout=cell_timeout, start_timeout=KERNEL_TIMEOUT_S, km=kernel,
        )  # fmt: skip
    except PapermillExecutionError as error:
        fact = f"cell [{error.exec_count}] raised {error.ename}: {' '.join(str(error.evalue).split())}"
    except CellTimeoutError:
        fact = f"a cell ran for longer than {cell_timeout:g} s"
    except DeadKernelError:
        fact = "its kernel died, most often for lack of memory"
    except RuntimeError as error:  # of a kernel that has not answered yet
        fact = f"its kernel did not start ({' '.join(str(error).split())})"
    except OSError as error:  # the notebook itself could not be written
        fact = f"{type(error).__name__}: {error}"
    else:
        return
    if room := full_disk(target.parent, fact):
        raise PipelineError(f"The notebook {notebook.name} stopped: {room}")
    raise PipelineError(f"The notebook {notebook.name} failed: {fact}. Its output is in {target}.")


def execute_notebook(notebook: Path, target: Path, parameters: Mapping | None = None) -> None:
    """Execute one lesson in a kernel of its own, in the environment of a pipeline, whatever the caller's figures use.

    Parameters
    ----------
    notebook, target : Path
        The lesson, which stays as it is, and the file for the executed one.
    parameters : mapping, optional
        Values in place of those in its ``parameters`` cell; they are not checked.

    Raises
    ------
    PipelineError
        If a cell fails; the message names the notebook and the cell.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with _batch_environment(share=False), closing(_kernels([notebook.resolve()])) as kernels:
        os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"  # a figure is an output of its cell
        for path, kernel in kernels:
            _execute(path, target, parameters or {}, CELL_TIMEOUT_S, kernel)


def run_pipeline(
    profile: str | Path = "tiny",
    overrides: Mapping | None = None,
    name: str | None = None,
    notebooks: Sequence[Path] | None = None,
    cell_timeout: float = CELL_TIMEOUT_S,
    wait: bool = False,
    share: bool = False,
    scheduler: str = "",
    scheduler_file: str | Path | None = None,
) -> Run:
    """Run the notebooks one after the other into ``runs/<name>/notebooks/``, then write the report.

    Parameters
    ----------
    profile : str or path
        See :func:`load_profile`.
    overrides : mapping, optional
        Parameters that replace the profile's.
    name : str, optional
        Of the run; default: :func:`run_name`, so that a run with other parameters has its own folder.
    notebooks : sequence of path, optional
        Default: :func:`find_notebooks`.
    cell_timeout : float
        Seconds that one cell may take.
    wait : bool
        Wait for another process that runs the pipeline of this run; otherwise that is an error.
    share : bool
        Take stages that other runs have made from the same parameters and inputs (:mod:`e2llm.app.sharing`).
    scheduler, scheduler_file : str, path, optional
        Address of a Dask scheduler, or the file that it wrote: its workers preprocess the recordings. The windows are
        the same, so neither is a parameter of the run.

    Raises
    ------
    ValueError
        If a parameter is refused (:func:`validate`), or the language model has to be fetched first; no kernel starts.
    SourceError
        If the recordings cannot be used at all; no kernel starts.
    RunBusy
        If another process runs the pipeline of this run.
    PipelineError
        If a notebook fails. Finished stages stay, and are skipped the next time.
    OSError
        If the scheduler or its workers cannot be used (:class:`e2llm.app.cluster.ClusterError`); no kernel starts.
    """
    overrides = dict(overrides or {})
    notebooks = [Path(path).resolve() for path in notebooks or find_notebooks()]
    wanted = validate(load_profile(profile), overrides, notebooks)
    everything = {key: value for values in wanted.values() for key, value in values.items()}
    _ask_for_files(everything)
    _ask_for_data(everything)
    address = check_cluster(runs_folder(), scheduler, scheduler_file)
    for values in wanted.values():
        if "language_model" in values:
            values["language_model"] = from_here(values["language_model"])
    run = Run.open(name or run_name(profile, overrides))
    require_space(run.path, LEAST_SPACE, f"the run {run.name!r}")
    # A separate lock: the kernels take the one of stages.
    with held(run, "the pipeline", "pipeline", wait), _batch_environment(share, address), \
            _terminal_bar(run, len(wanted)) as bar:  # fmt: skip
        (run.path / "progress.json").unlink(missing_ok=True)  # of a run that was killed
        (run.path / "notebooks").mkdir(exist_ok=True)
        with closing(_kernels(list(wanted))) as kernels:
            for path, kernel in kernels:
                bar.set_description(f"{run.name}: {path.stem}")
                given = {**wanted[path], "run_name": run.name}
                _execute(path, run.path / "notebooks" / path.name, given, cell_timeout, kernel)
                bar.set_postfix_str("")
                bar.update()
                if bar.disable:  # a log file gets one line per notebook instead of a bar
                    print(f"{run.name}: {path.stem} done", file=sys.stderr, flush=True)
        # Results of the last finished run stay until here; metrics.json is tied to its evaluation.
        with replacing(run.path / "params.yaml") as partial:
            partial.write_text(yaml.safe_dump(everything, allow_unicode=True), encoding="utf-8")
        report.build(run)
    return run
