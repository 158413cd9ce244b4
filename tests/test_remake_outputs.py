"""Committed outputs are made again: a lesson takes its new outputs and keeps all else, other files keep their form."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import nbformat
import pytest
from asked import made_up_corpus, random_model
from toy_project import toy_project, write_notebook

from e2llm.app.pipeline import PipelineError
from e2llm.core.chat import END_THINK, THINK
from e2llm.viz import answer_view

ROOT = Path(__file__).resolve().parents[1]
LESSONS = sorted((ROOT / "notebooks").glob("0*.ipynb"))
PARAMETERS = 'run_name = "tiny"  # of the run\n'
FIGURE = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()"
CLAIMS = {"frontal theta high": 2.25, "central theta high": 1.6, "parietal beta low": -1.7, "occipital alpha low": -2.5}
THOUGHT = f"Measured: {', '.join(CLAIMS)}. This is unpleasant and activated. This points to fear."


def script(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


remake = script("remake_outputs")


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    return toy_project(tmp_path, monkeypatch)


def lesson(project: Path, *cells: str) -> Path:
    """A lesson with outputs of an earlier run, and metadata of its own, in the form of the committed ones."""
    path = write_notebook(project / "notebooks" / "07_toy.ipynb", PARAMETERS, *cells)
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata["language_info"] = {"name": "python", "version": "3.0.0"}
    notebook.cells.insert(0, nbformat.v4.new_markdown_cell("# Prose — “quoted”"))
    notebook.cells[-1].metadata["tags"] = ["nbval-ignore-output"]
    notebook.cells[-1].outputs = [nbformat.v4.new_output("stream", text="of an earlier run\n")]
    nbformat.write(notebook, path)
    return path


def without_outputs(path: Path) -> dict:
    content = json.loads(path.read_text(encoding="utf-8"))
    for cell in content["cells"]:
        cell.pop("outputs", None), cell.pop("execution_count", None)
    return content


def test_a_lesson_takes_its_new_outputs_and_keeps_everything_else(project):
    path = lesson(project, FIGURE, 'print(f"{run_name} ✓")\n6 * 7')
    before, target = without_outputs(path), project / "runs" / "tiny" / "notebooks" / path.name
    remake.refresh_lesson(path, target)
    assert without_outputs(path) == before
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == [1, 2, 3]
    assert [[output.output_type for output in cell.outputs] for cell in cells] == \
        [[], ["display_data"], ["stream", "execute_result"]]
    assert "image/png" in cells[1].outputs[0].data  # though the tests draw with Agg
    assert cells[2].outputs[0].text == "tiny ✓\n" and cells[2].outputs[1].execution_count == 3

    made = path.read_bytes()
    remake.refresh_lesson(path, target)
    assert path.read_bytes() == made
    assert made.decode() == json.dumps(json.loads(made), indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    assert {file.name for file in path.parent.glob("*07*")} == {path.name}

    remake.refresh_lesson(path, target, {"run_name": "other"})
    assert path.read_bytes() == made.replace("tiny ✓".encode(), "other ✓".encode())


def test_a_text_that_was_printed_in_pieces_is_one_output():
    """Where a kernel cuts it depends on the moment, so outputs would differ from run to run."""
    def printed(text, name="stdout"):
        return nbformat.v4.new_output("stream", name=name, text=text)

    figure = nbformat.v4.new_output("display_data", data={"text/plain": "<Figure>"})
    pieces = [printed("a\n"), printed("b\n"), printed("!\n", "stderr"), printed("c\n"), figure, printed("d\n"),
              printed("e")]
    found = remake.whole_streams(pieces)
    assert [output.get("text", "figure") for output in found] == ["a\nb\n", "!\n", "c\n", "figure", "d\ne"]


def test_an_error_names_lesson_and_cell_and_leaves_the_lesson_alone(project):
    path = lesson(project, "print('new')", "1 / 0")
    before, target = path.read_bytes(), project / "executed.ipynb"
    with pytest.raises(PipelineError, match=r"07_toy.ipynb failed: cell \[3\] raised ZeroDivisionError"):
        remake.refresh_lesson(path, target)
    assert path.read_bytes() == before and target.is_file()
    assert {file.name for file in path.parent.glob("*07*")} == {path.name}


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_committed_lesson_that_is_read_and_written_has_the_same_bytes(path, tmp_path):
    nbformat.write(nbformat.read(path, as_version=4), tmp_path / path.name)
    assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_expected_scores_keep_their_form():
    path = ROOT / "tests" / "expected_tiny.json"
    old = json.loads(path.read_text(encoding="utf-8"))
    tables = {table: [{"name": name, "score": score, "low": 0.0} | ({"group": group} if group else {})
                      for name, group, score in rows] for table, rows in old["tables"].items()}
    assert remake.expected_scores({"tables": {"another": [], **tables}}, old) == old
    tables["tier_1"][0]["score"] = 0.5
    new = remake.expected_scores({"tables": tables}, old)
    assert new["tables"].pop("tier_1")[0] == ["oracle", None, 0.5] and old["tables"].pop("tier_1")
    assert new == old


def test_the_example_of_the_picture_keeps_its_form():
    text = (ROOT / "docs" / "pipeline_example.json").read_text(encoding="utf-8")
    assert remake.as_text(json.loads(text)) + "\n" == text


@pytest.fixture(scope="module")
def chat() -> SimpleNamespace:
    """A model whose answer about window 0 is right, with four true claims; it says one claim less about window 1."""
    corpus = made_up_corpus()
    corpus.split.test = [5, 1, 0]
    for claim, z in CLAIMS.items():
        corpus.z[:2, corpus.evidence_names.columns.index(claim.rsplit(" ", 1)[0])] = z
    model = random_model(corpus, [THOUGHT])
    said = {0: THOUGHT, 1: THOUGHT.replace(", occipital alpha low", ""), 5: THOUGHT}  # false of window 5
    answers = {row: model.explain(row, remake.QUESTION, THOUGHT).most_probable for row in said}
    for row, answer in answers.items():
        corpus.windows.index.loc[row, "label"] = answer

    def ask(row: int, question: str) -> answer_view.Explained:
        return model.explain(row, question, f"{THINK}\n{said[row]}\n{END_THINK}\n\n{answers[row]}")

    return SimpleNamespace(corpus=corpus, ask=ask)


def test_the_answer_in_the_picture_is_right_with_true_claims_about_bands(chat):
    found = remake.example(chat)
    committed = json.loads((ROOT / "docs" / "pipeline_example.json").read_text(encoding="utf-8"))
    assert ["run", *found] == list(committed)
    assert (found["window"], found["subject"], found["clip"], found["thought"]) == (0, "1", 1, THOUGHT)
    assert [(claim["claim"], claim["verdict"], claim["z"]) for claim in found["claims"]] == \
        [(claim, "true", z) for claim, z in CLAIMS.items()]
    assert found["more"] == 0
    assert list(found["channel_z"]) == ["theta", "alpha"]  # two claims; one, before beta
    assert {name: len(values) for name, values in found["signal_uv"].items()} == \
        {name: len(values) for name, values in committed["signal_uv"].items()}
    for name in ("ch_names", "frequencies", "sfreq"):
        assert found[name] == committed[name], name
    assert found["reference"] == "mean of subject 1 (n = 4)"
    assert [len(found[name]) for name in ("spectrum_db", "reference_db")] == [len(found["frequencies"])] * 2
    figure = script("draw_pipeline").pipeline(json.loads(remake.as_text(found)))
    assert THOUGHT.split(". ", 1)[1].replace(". ", ".\n") in [text.get_text() for text in figure.axes[0].texts]
    plt.close(figure)


def test_without_such_an_answer_there_is_no_picture(chat, monkeypatch):
    monkeypatch.setattr(chat.corpus.split, "test", [5, 1])
    with pytest.raises(ValueError, match="4 claims about bands and no false one"):
        remake.example(chat)


def test_steps_are_taken_in_their_order_and_a_stop_says_how_to_go_on(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)  # the command goes to the project
    taken: list[tuple[str, str]] = []

    def stop(name: str) -> None:
        raise PipelineError("bad luck")

    for step in remake.STEPS:
        monkeypatch.setitem(remake.STEPS, step, lambda name, step=step: taken.append((step, name)))
    remake.main(["--only", "publish", "lessons", "run"])
    assert [step for step, _ in taken] == ["run", *(path.name[:2] for path in LESSONS), "publish"]
    assert "docs/explanations.md" in capsys.readouterr().out

    monkeypatch.setitem(remake.STEPS, "08", stop)
    taken.clear()
    with pytest.raises(PipelineError, match="bad luck"):
        remake.main(["--only", "07", "08", "numbers", "--run", "other"])
    assert taken == [("07", "other")]
    assert "python docs/remake_outputs.py --only 08 numbers --run other\n" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        remake.main(["--only", "everything"])
