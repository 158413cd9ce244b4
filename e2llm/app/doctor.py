"""``e2llm doctor``: what is installed and within reach, on which device, and how long the default run will take here.

Everything beside the standard library is imported late: a package that is missing is what the doctor is asked about.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import shutil
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from .. import __version__

INSTALL = "pip install -c constraints.txt -e ."
LOADED = ("numpy", "pandas", "torch", "transformers", "peft", "mne", "sklearn", "matplotlib", "papermill")
SECONDS = 5.0  # of the measurement
DEFAULT = "tiny"  # profile of the default run
OK, NOTE, STOP = "ok", "note", "STOP"


class Line(NamedTuple):
    """One fact.

    Parameters
    ----------
    mark : str
        :data:`OK`; :data:`NOTE`, if something beside the default run is not within reach; :data:`STOP`, if the
        default run could not work.
    what, fact : str
        What was looked at, and what was found.
    remedy : str
        What to do; empty where there is nothing to do.
    """

    mark: str
    what: str
    fact: str
    remedy: str = ""

    def __str__(self) -> str:
        lines = textwrap.wrap(self.fact, max(40, min(shutil.get_terminal_size().columns, 120) - 28),
                              break_long_words=False, break_on_hyphens=False) or [""]
        lines += [f"-> {line}" for line in self.remedy.splitlines()]
        return "\n".join([f"  {self.mark:<6}{self.what:<20}{lines[0]}", *(f"{'':28}{line}" for line in lines[1:])])


def examine(seconds: float = SECONDS) -> Iterator[str | Line]:
    """Look at this computer: headings, and under each its lines, as they are found.

    Parameters
    ----------
    seconds : float
        Time for measuring the processor.
    """
    try:
        from ..core.files import project_root

        root = project_root()
    except ImportError as error:
        yield Line(STOP, str(error.name), "is not installed", INSTALL)
        return
    except FileNotFoundError as error:
        yield Line(STOP, "project", str(error))
        return
    yield "What is installed"
    installed = [*_python(root), *_packages(root)]
    yield from installed
    if any(line.mark == STOP for line in installed):
        yield "The rest is looked at when these packages are there."
        return
    yield "This computer"
    yield from _computer()
    yield "Profiles: their data and language models"
    yield from _profiles(root)
    yield "What can be fetched"
    yield from _catalogue()
    yield f"The default run (measuring for {seconds:g} s)"
    yield from _default_run(seconds)


def doctor(seconds: float = SECONDS) -> int:
    """Print what :func:`examine` finds; 0, or 1 if the default run could not work."""
    print(f"e2llm {__version__}")
    stops = 0
    for found in examine(seconds):
        print(found if isinstance(found, Line) else f"\n{found}", flush=True)
        stops += isinstance(found, Line) and found.mark == STOP
    print(f"\n{f'The default run cannot work: see {STOP} above.' if stops else 'The default run can work: e2llm run'}")
    return 1 if stops else 0


# ---------------------------------------------------------------- what is installed


def _python(root: Path) -> Iterator[Line]:
    wanted = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]["requires-python"]
    low, high = (tuple(map(int, part.split("."))) for part in re.findall(r"\d+\.\d+", wanted))
    here = ".".join(map(str, sys.version_info[:3]))
    if low <= sys.version_info[:2] < high:
        yield Line(OK, "python", here)
    else:
        yield Line(STOP, "python", f"{here}, needed is {wanted}", "conda env create -f environment.yml")


def _packages(root: Path) -> Iterator[Line]:
    """Required packages with their versions, then what further groups of packages lack."""
    try:
        from packaging.requirements import Requirement
    except ImportError:
        yield Line(STOP, "packaging", "is not installed", INSTALL)
        return
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    pins = dict(line.split("==") for line in (root / "constraints.txt").read_text("utf-8").lower().split())
    as_tested: list[str] = []
    for one in map(Requirement, project["dependencies"]):
        version, tested = _version(one.name), pins[one.name.replace("-", "_") if one.name not in pins else one.name]
        if version is None:
            yield Line(STOP, one.name, "is not installed", INSTALL)
        elif not one.specifier.contains(version, prereleases=True):
            yield Line(STOP, one.name, f"{version}, needed is {one.specifier}", INSTALL)
        elif version.partition("+")[0] == tested:
            as_tested.append(f"{one.name} {version}")
        else:
            yield Line(NOTE, one.name, f"{version}; the outputs in the notebooks were made with {tested}", INSTALL)
    if as_tested:
        yield Line(OK, f"{len(as_tested)} packages", f"as in constraints.txt: {', '.join(as_tested)}")
    for name in LOADED:
        try:
            importlib.import_module(name)
        except Exception as error:  # of a library that is not there, or of any kind within a damaged package
            yield Line(STOP, name, f"cannot be imported: {' '.join(str(error).split())[:300]}",
                       f"{INSTALL} --force-reinstall")
    for extra, texts in project["optional-dependencies"].items():
        lacking = [one.name for one in map(Requirement, texts) if _version(one.name) is None]
        if lacking:
            yield Line(NOTE, f"group {extra!r}", f"not installed: {', '.join(lacking)}",
                       f'pip install -c constraints.txt -e ".[{extra}]"')
        else:
            yield Line(OK, f"group {extra!r}", f"all {len(texts)} packages")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


# ---------------------------------------------------------------- this computer


def _computer() -> Iterator[Line]:
    import psutil
    import torch

    from ..core.space import free_above
    from ..models.device import DeviceError, find_device
    from .plan_devices import GB
    from .runs import runs_folder

    device = find_device("auto")
    name = f" ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else ""
    other = "" if device.type == "cuda" else "; PyTorch finds no GPU of NVIDIA"
    yield Line(OK, "device", f"{device}{name}{other}")
    with contextlib.suppress(DeviceError):
        find_device("mps")
        yield Line(NOTE, "GPU of Apple", "is there, and not used unless it is asked for", "e2llm run -p device=mps")
    memory = psutil.virtual_memory()
    yield Line(OK, "processor", f"{os.cpu_count()} cores, {memory.total / GB:.1f} GB of memory, of which "
                                f"{memory.available / GB:.1f} GB are free")
    runs = runs_folder()
    above = next(path for path in (runs, *runs.parents) if path.exists())
    if os.access(above, os.W_OK):
        yield Line(OK, "folder of runs", f"{runs}, {free_above(runs) / GB:.1f} GB free")
    else:
        yield Line(STOP, "folder of runs", f"{runs} cannot be written", "export E2LLM_RUNS=a/folder/of/yours")


# ---------------------------------------------------------------- models and data


def _profiles(root: Path) -> Iterator[Line]:
    """Data and language model of every profile; those of the default run decide."""
    from ..models.catalogue import FetchError
    from ..models.lookup import ask_for_model
    from .parameters import checked
    from .pipeline import load_profile, profile_path

    for path in sorted(profile_path(DEFAULT).parent.glob("*.yaml"), key=lambda path: (path.stem != DEFAULT, path.stem)):
        try:
            values = checked(load_profile(path.stem))
        except ValueError as error:
            yield Line(STOP if path.stem == DEFAULT else NOTE, path.stem, str(error), f"mend {path}")
            continue
        facts, lacking = [], []
        data = _data(values.source, values.source_options, root, values.data_root, values.twin_preset)
        (facts if data.mark == OK else lacking).append(data.fact)
        try:
            ask_for_model(values.language_model)
            facts.append(f"{values.language_model} is within reach")
        except FetchError as error:
            lacking.append(str(error))
        weights = values.encoder_weights
        if weights and not (root / weights).exists():
            lacking.append(f"{weights} is not there: e2llm fetch eegpt says where it is.")
        mark = OK if not lacking else STOP if path.stem == DEFAULT else NOTE
        yield Line(mark, path.stem, "; ".join([*facts, *lacking]), data.remedy)


def _data(source: str, options: str, root: Path, folder: str, preset: str) -> Line:
    """Whether a folder of recordings can be read.

    Parameters
    ----------
    source, options, folder, preset : str
        The parameters ``source``, ``source_options``, ``data_root`` and ``twin_preset``.
    root : Path
        Of the project.
    """
    from ..data.sources import open_source, parse_options
    from ..data.sources.base import RecordingError, SourceError

    place = root / Path(folder).expanduser()
    if not place.exists():
        if preset:
            return Line(OK, source, f"data are simulated into {folder}")
        return Line(NOTE, source, f"{folder} is not there", "docs/own_data.md says where these recordings come from")
    try:
        open_source(source, place, **parse_options(source, options))
    except (ValueError, OSError, RecordingError, SourceError) as error:
        return Line(NOTE, source, f"{folder} cannot be read: {error}", f"e2llm check {folder} --source {source}")
    return Line(OK, source, f"{folder} is there")


def _catalogue() -> Iterator[Line]:
    from ..models.catalogue import CATALOGUE, Bundled, Elsewhere, FetchError, card, fetched

    for name, asset in CATALOGUE.items():
        if isinstance(asset, Bundled):
            try:
                card(name)
                yield Line(OK, name, "comes with the kit, and its files are whole")
            except FetchError as error:
                yield Line(STOP, name, str(error))
        elif isinstance(asset, Elsewhere):
            yield Line(NOTE, name, f"{asset.about}; not downloaded for you", f"e2llm fetch {name}  says how")
        elif folder := fetched(name):
            yield Line(OK, name, f"is in {folder}")
        else:
            yield Line(NOTE, name, f"not fetched: {asset.about}", f"e2llm fetch {name}")


# ---------------------------------------------------------------- the default run


def _default_run(seconds: float) -> Iterator[Line]:
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    from ..core.space import free_above
    from .pipeline import find_notebooks, load_profile, validate
    from .plan import plan, remedy, time_in_words
    from .plan_devices import this_cpu
    from .runs import runs_folder

    profile = {}  # of a profile that cannot be used, the time of the defaults is said
    try:
        read, lessons = load_profile(DEFAULT), find_notebooks()
        validate(read, {}, lessons)
        profile = read
        yield Line(OK, "lessons", f"{len(lessons)} notebooks, their parameters fit")
    except (OSError, ValueError) as error:
        yield Line(STOP, "lessons", str(error), "git checkout notebooks")
    try:
        KernelSpecManager().get_kernel_spec("python3")
        yield Line(OK, "kernel", "python3 is known to Jupyter")
    except NoSuchKernel:
        yield Line(STOP, "kernel", "Jupyter knows no kernel python3", "python -m ipykernel install --sys-prefix")
    device = this_cpu(seconds)
    found = plan(profile, device=device, disk_free=free_above(runs_folder()))
    for fault in found.faults:
        yield Line(STOP, "room", fault, remedy(profile, found))
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    beside = f" {busy:.0f} processes share the cores now: that makes it longer." if busy > 1.5 else ""  # 1 is this one
    yield Line(OK, "time", f"about {time_in_words(found.seconds)} on the processor (measured: "
                           f"{device.rate['float32'] / 1e9:.0f} Gflop/s on one core), {found.disk / 1e9:.1f} GB on the "
                           f"disk.{beside}",
               "e2llm plan  says it for each stage, and for other profiles")
