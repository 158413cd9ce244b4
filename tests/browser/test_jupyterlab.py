"""The tour and every widget in JupyterLab, driven in a real browser: select, slide, type, ask, edit.

Needs Chromium (Debian: ``apt-get install chromium``) and playwright (``pip install -c constraints.txt -e ".[test]"``).
A failed test leaves a picture of the page, whose path is in its message.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from micro import linked

from e2llm.app import report

ROOT = Path(__file__).parents[2]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
try:
    from playwright import sync_api
except ImportError:
    sync_api = None
MISSING = [name for name, there in (("Chromium (apt-get install chromium)", CHROMIUM),
                                    ("playwright (in the test extras)", sync_api)) if not there]
pytestmark = pytest.mark.skipif(bool(MISSING), reason="NO BROWSER TEST: there is no " + " and no ".join(MISSING))
PATIENCE_MS = 300_000  # of one wait, on a slow machine that does other work too
SMALLEST_CONTRAST = 4.5  # of text, WCAG 2.2 level AA

SETTINGS = {"notebook-extension/tracker": '{"windowingMode": "none"}',  # all cells are on the page
            "apputils-extension/notification": '{"fetchNews": "false", "checkForUpdates": false}'}
SETUP = """
from dataclasses import replace
from pathlib import Path
import e2llm
from e2llm.app.evaluation_stage import closed_set_answers
from e2llm.core.claims import Claim

e2llm.use_style()
run = e2llm.Run.open("tiny")
corpus = e2llm.open_dataset(run)
model = e2llm.E2LLM.of_run(run, corpus)
test, predicted = corpus.split.test, closed_set_answers(run, corpus)
data = e2llm.open_source("seed-vii", Path("twin"))
trial, _ = e2llm.first_trial(data, e2llm.PreprocessParams())
row = int(test[0])
print("ready")
"""
# Answers from the thought need a second pass, which this run does not have: the panel only needs what it is told.
FROM_THOUGHT = """
class FromThought(e2llm.E2LLM):
    def explain(self, windows, question, text, task=None):
        said = super().explain(windows, question, "Occipital alpha low.")
        return replace(said, from_thought=True, stated=((Claim("occipital alpha", "low"),),), asked=question)

    def with_levels(self, answer, levels, segment="A"):
        (feature, level), = levels.items()
        said = super().explain(answer.rows, answer.asked, f"{feature} {level}.".capitalize())
        return replace(said, from_thought=True, stated=((Claim(feature, level),),), asked=answer.asked)
e2llm.widgets.reasoning_panel(FromThought(model.engine, corpus, run), ["predict"], row)
"""
CELLS = {
    "signal": "e2llm.widgets.signal_browser(corpus.windows, 0, data)",
    "copy": "e2llm.widgets.signal_browser(corpus.windows)",
    "preprocessing": "e2llm.widgets.preprocessing_playground(trial)",
    "tokens": "e2llm.widgets.token_explorer(model.engine, corpus.windows, row)",
    "ask": 'e2llm.widgets.reasoning_panel(model, ["predict", "compare", "describe"], row)',
    "edit": FROM_THOUGHT,
    "scenario": 'e2llm.widgets.scenario_playground(model, test[:8], "A dog jumps at a child.")',
    "confusion": "e2llm.widgets.confusion_explorer(model, test, predicted)",
    "split": "e2llm.widgets.split_explorer(corpus.windows.index)",
}


def _notebook(cells: list[str]) -> nbformat.NotebookNode:
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source.strip()) for source in cells])
    made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return made


@pytest.fixture(scope="module")
def classroom(micro_run, twin, tmp_path_factory) -> Path:
    """A folder with the tour, a notebook with all widgets, a finished small run called "tiny" and its recordings."""
    folder = tmp_path_factory.mktemp("classroom")
    shutil.copytree(micro_run.path, folder / "runs" / "tiny", copy_function=os.link,
                    ignore=shutil.ignore_patterns("*.lock"))
    shutil.copytree(twin, folder / "twin", copy_function=os.link)
    tour = nbformat.read(ROOT / "notebooks" / "00_tour.ipynb", as_version=4)
    for cell in tour.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(tour, folder / "00_tour.ipynb")
    nbformat.write(_notebook([SETUP, *CELLS.values()]), folder / "widgets.ipynb")
    return folder


@pytest.fixture(scope="module")
def server(classroom) -> Iterator[str]:
    """Address of a JupyterLab without a token, on the loopback interface alone."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own = {f"JUPYTER{name}": str(classroom / ".jupyter" / name.strip("_").lower())
           for name in ("_CONFIG_DIR", "_DATA_DIR", "_RUNTIME_DIR", "LAB_SETTINGS_DIR", "LAB_WORKSPACES_DIR")}
    for plugin, wanted in SETTINGS.items():
        file = classroom / ".jupyter" / "lab_settings_dir" / "@jupyterlab" / f"{plugin}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(wanted)
    kept = {key: value for key, value in os.environ.items() if key not in ("E2LLM_BATCH", "MPLBACKEND")}
    kept["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [kept.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--expose-app-in-browser", "--allow-root",
               "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", "--ServerApp.port_retries=0",
               "--IdentityProvider.token=", f"--ServerApp.root_dir={classroom}"]
    with (classroom / "server.log").open("w") as log:
        process = subprocess.Popen(command, cwd=classroom, stdout=log, stderr=log,
                                   env=kept | own | {"IPYTHONDIR": str(classroom / ".ipython"),
                                                     "E2LLM_RUNS": str(classroom / "runs")})
        address = f"http://127.0.0.1:{port}"
        try:
            for _ in range(240):
                try:
                    urllib.request.urlopen(f"{address}/api/status", timeout=2).close()
                    break
                except OSError:
                    assert process.poll() is None, (classroom / "server.log").read_text()[-2000:]
                    time.sleep(0.25)
            yield address
        finally:
            process.terminate()
            process.wait(30)


@pytest.fixture(scope="module")
def browser() -> Iterator[sync_api.Browser]:
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


def _open(browser, server: str, name: str) -> sync_api.Page:
    """A notebook in JupyterLab, all of its cells run, in a page as wide as a projector's."""
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    page.set_default_timeout(PATIENCE_MS)
    page.goto(f"{server}/lab/workspaces/{name.partition('.')[0]}/tree/{name}?reset")
    page.wait_for_selector(".jp-NotebookPanel .jp-CodeCell")
    page.wait_for_function("() => jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'")
    page.evaluate("() => { jupyterapp.commands.execute('notebook:run-all-cells'); }")
    return page


@pytest.fixture(scope="module")
def page(browser, server) -> Iterator[sync_api.Page]:
    """The notebook with all widgets."""
    page = _open(browser, server, "widgets.ipynb")
    page.evaluate("() => jupyterapp.commands.execute('application:toggle-left-area')")
    _finished(page, 1 + len(CELLS))
    yield page
    page.close()


@pytest.fixture
def tour(browser, server) -> Iterator[sync_api.Page]:
    """Lesson 00."""
    page = _open(browser, server, "00_tour.ipynb")
    yield page
    page.evaluate("() => jupyterapp.shell.currentWidget.sessionContext.shutdown()")
    page.close()


@pytest.fixture(autouse=True)
def pictured(request, tmp_path) -> Iterator[None]:
    """Of a failed test the page is kept as a picture."""
    failed = request.session.testsfailed
    # Asked for before the test, so that they are closed after the picture.
    shown = [request.getfixturevalue(name) for name in ("page", "tour") if name in request.fixturenames]
    yield
    if request.session.testsfailed > failed:
        for page in shown:
            page.screenshot(path=(path := tmp_path / "page.png"), full_page=True)
            print(f"picture of the page: {path}")


def _finished(page, n: int) -> None:
    """Wait until as many code cells have run, without an error."""
    page.wait_for_function(
        """n => jupyterapp.shell.currentWidget.content.widgets.filter(
               cell => cell.model.type === 'code' && cell.model.executionCount > 0).length >= n
               || document.querySelector('.jp-RenderedText[data-mime-type="application/vnd.jupyter.error"]')""", arg=n)
    page.wait_for_function("() => jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'idle'")
    errors = page.locator('.jp-RenderedText[data-mime-type="application/vnd.jupyter.error"]')
    assert errors.count() == 0, errors.first.inner_text()


def _panel(page, name: str):
    """The widget of a cell."""
    panel = page.locator(".jp-CodeCell").nth(1 + list(CELLS).index(name)).locator(".e2llm-panel")
    panel.scroll_into_view_if_needed()
    return panel


def _source(panel, which: int = 0) -> str:
    return panel.locator("img.e2llm-picture").nth(which).get_attribute("src")


def _new_picture(panel, do, which: int = 0) -> float:
    """Seconds from an action to another picture; it has to be there, and to have a size."""
    before = _source(panel, which)
    began = time.monotonic()
    do()
    image = panel.locator("img.e2llm-picture").nth(which)
    sync_api.expect(image).not_to_have_attribute("src", before, timeout=PATIENCE_MS)
    seconds = time.monotonic() - began
    assert image.evaluate("img => img.decode().then(() => img.naturalWidth)") > 300
    return seconds


def _idle(page) -> None:
    page.wait_for_function("() => jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'idle'")


def _slide(panel, label: str, key: str = "ArrowRight") -> None:
    """Move a slider by the keyboard."""
    line = panel.locator(".widget-slider", has=panel.page.locator(f'.widget-label:text-is("{label}")')).first
    line.locator(".noUi-handle").focus()
    panel.page.keyboard.press(key)


def test_the_tour_runs_and_shows_its_pictures_and_an_answer(tour):
    code = nbformat.read(ROOT / "notebooks" / "00_tour.ipynb", as_version=4).cells
    _finished(tour, sum(cell.cell_type == "code" for cell in code))
    assert tour.locator(".jp-OutputArea img").count() >= 5
    assert tour.locator("text=true of the signal").count() >= 2


def test_the_signal_browser_follows_every_control(page):
    panel = _panel(page, "signal")
    copy = _source(_panel(page, "copy"))
    seconds = [_new_picture(panel, lambda: panel.get_by_label("subject").select_option(index=1)),
               _new_picture(panel, lambda: panel.get_by_label("session").select_option(index=1)),
               _new_picture(panel, lambda: panel.get_by_label("clip").select_option(index=2)),
               _new_picture(panel, lambda: _slide(panel, "window"))]
    print("seconds from a choice to its picture:", *(f"{found:.2f}" for found in seconds))
    _new_picture(panel, lambda: panel.get_by_role("button", name="before and after").click())
    assert _source(_panel(page, "copy")) == copy  # two widgets on a page have nothing in common


def test_the_preprocessing_playground_changes_with_its_settings(page):
    panel = _panel(page, "preprocessing")
    _new_picture(panel, lambda: _slide(panel, "low edge, Hz", "PageUp"))
    _new_picture(panel, lambda: _slide(panel, "high edge, Hz", "PageDown"))
    _new_picture(panel, lambda: panel.get_by_label("reference").select_option("CZ"))
    _new_picture(panel, lambda: _slide(panel, "threshold", "PageUp"))


def test_the_token_explorer_shows_another_segment_or_says_that_it_has_no_tokens(page):
    panel = _panel(page, "tokens")
    _new_picture(panel, lambda: _slide(panel, "window"))


def test_a_question_is_answered_while_one_reads(page):
    panel = _panel(page, "ask")
    panel.evaluate("""panel => { window.seen = new Set(); new MutationObserver(() => {
        for (const one of panel.querySelectorAll('.widget-html-content > div')) window.seen.add(one.innerText);
    }).observe(panel, {subtree: true, childList: true, characterData: true}); }""")
    panel.get_by_label("question").fill("Which emotion does this segment show?")
    ask = panel.get_by_role("button", name="Ask", exact=True)
    ask.focus()
    page.keyboard.press("Enter")
    sync_api.expect(panel.locator("text=true of the signal")).to_be_visible(timeout=PATIENCE_MS)
    assert page.evaluate("() => window.seen.size") >= 4  # the text grew
    sync_api.expect(panel.locator("img.e2llm-picture").nth(1)).to_be_visible(timeout=PATIENCE_MS)
    _idle(page)
    sync_api.expect(ask).to_be_enabled(timeout=PATIENCE_MS)


def test_a_question_that_was_not_taught_is_declined(page):
    panel = _panel(page, "ask")
    panel.get_by_label("question").fill("Is this person lying?")
    panel.get_by_role("button", name="Ask", exact=True).click()
    sync_api.expect(panel.locator("text=was not taught this question")).to_be_visible(timeout=PATIENCE_MS)
    sync_api.expect(panel.get_by_role("button", name="Ask all the same")).to_be_visible()
    assert panel.locator("text=true of the signal").count() == 0


def test_two_segments_start_apart_and_are_compared(page):
    panel = _panel(page, "ask")
    _slide(panel, "segments")
    sync_api.expect(panel.get_by_label("subject")).to_have_count(2, timeout=PATIENCE_MS)
    chosen = [panel.get_by_label("clip").nth(i).input_value() for i in range(2)]
    assert chosen[0] != chosen[1]
    panel.get_by_label("suggestion").select_option("compare")
    sync_api.expect(panel.get_by_label("question")).to_have_value("compare", timeout=PATIENCE_MS)
    panel.get_by_role("button", name="Ask", exact=True).click()
    sync_api.expect(panel.locator("text=Probability of each answer").first).to_be_visible(timeout=PATIENCE_MS)
    assert "0 true, 0 false" not in panel.inner_text()
    _idle(page)


def test_a_claim_is_edited_and_answered_again(page):
    panel = _panel(page, "edit")
    panel.get_by_role("button", name="Ask", exact=True).click()
    sync_api.expect(panel.get_by_label("evidence")).to_be_visible(timeout=PATIENCE_MS)
    _idle(page)
    panel.get_by_label("evidence").select_option(label="occipital alpha (low)")
    panel.get_by_label("is", exact=True).select_option("high")
    panel.get_by_role("button", name="Answer again").click()
    sync_api.expect(panel.locator("span", has_text="Occipital alpha high")).to_be_visible(timeout=PATIENCE_MS)


def test_a_scenario_is_typed_and_segments_are_ranked(page):
    panel = _panel(page, "scenario")
    panel.get_by_label("scenario").fill("A woman finds a letter of an old friend.")
    _new_picture(panel, lambda: panel.get_by_role("button", name="Rank").click())


def test_a_cell_of_the_confusion_matrix_shows_its_windows_and_reasons(page):
    panel = _panel(page, "confusion")
    cell = panel.locator("button.jupyter-button[title*=answered]:not([title*=' 0 windows'])").last
    _new_picture(panel, cell.click)
    panel.get_by_role("button", name="Reasons").click()
    sync_api.expect(panel.locator("text=Probability of each answer").first).to_be_visible(timeout=PATIENCE_MS)


def test_the_split_explorer_draws_another_protocol(page):
    panel = _panel(page, "split")
    _new_picture(panel, lambda: panel.get_by_label("protocol").select_option("random_windows"))
    _new_picture(panel, lambda: panel.get_by_label("fold").fill("1") or page.keyboard.press("Enter"))


# Text whose contrast with what lies behind it is too low; colors are composed as the page does it.
LOW_CONTRAST = """(panels, smallest) => {
    const parse = text => { const n = text.match(/[\\d.]+/g).map(Number); return [n[0], n[1], n[2], n[3] ?? 1]; };
    const light = ([r, g, b]) => { const [x, y, z] = [r, g, b].map(v => (v /= 255) <= 0.04045 ? v / 12.92
        : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * x + 0.7152 * y + 0.0722 * z; };
    const over = (top, below) => [0, 1, 2].map(i => top[3] * top[i] + (1 - top[3]) * below[i]);
    const behind = element => { if (!element) return [255, 255, 255];
        const own = parse(getComputedStyle(element).backgroundColor);
        return own[3] === 1 ? own.slice(0, 3) : over(own, behind(element.parentElement)); };
    const found = [];
    for (const panel of panels) for (const element of panel.querySelectorAll('*')) {
        const text = [...element.childNodes].filter(n => n.nodeType === 3).map(n => n.textContent).join('').trim();
        if (!text || !element.offsetParent || element.closest('style, [disabled]')) continue;
        const ground = behind(element), color = over(parse(getComputedStyle(element).color), ground);
        const [a, b] = [light(color), light(ground)].sort((x, y) => y - x);
        const contrast = (a + 0.05) / (b + 0.05);
        if (contrast < smallest) found.push(`${contrast.toFixed(2)}: ${text.slice(0, 40)}`);
    }
    return found; }"""
# Controls that reach beyond their widget, labels that are cut, sliders that shrank to their handles.
CUT = """panels => { const found = [];
    for (const panel of panels) { const right = panel.getBoundingClientRect().right + 1;
        for (const element of panel.querySelectorAll('.widget-label, select, textarea, input, button, img')) {
            if (!element.offsetParent || element.closest('.widget-hslider .widget-readout')) continue;
            const box = element.getBoundingClientRect(), name = element.textContent.slice(0, 30) || element.tagName;
            if (box.right > right && !element.closest('[style*=overflow]')) found.push(`beyond the page: ${name}`);
            if (element.matches('.widget-label') && element.scrollWidth > element.clientWidth + 1)
                found.push(`cut: ${name}`); }
        for (const slider of panel.querySelectorAll('.slider-container'))
            if (slider.offsetParent && slider.getBoundingClientRect().width < 80) found.push('a slider has shrunk'); }
    return found; }"""


@pytest.mark.parametrize(("theme", "width"), [("JupyterLab Light", 1280), ("JupyterLab Dark", 1280),
                                              ("JupyterLab Dark", 900)])
def test_all_is_legible_in_every_theme_and_on_a_narrow_page(page, theme, width):
    page.set_viewport_size({"width": width, "height": 1000})
    page.evaluate("theme => jupyterapp.commands.execute('apputils:change-theme', {theme})", theme)
    page.wait_for_function("light => document.body.dataset.jpThemeLight === light",
                           arg=str("Light" in theme).lower())
    page.wait_for_timeout(500)  # the new sheet of styles is applied
    panels = page.locator(".e2llm-panel")
    assert panels.count() == len(CELLS)
    assert panels.evaluate_all(LOW_CONTRAST, SMALLEST_CONTRAST) == []
    assert panels.evaluate_all(CUT) == []
    if folder := os.environ.get("E2LLM_SCREENSHOTS"):  # to look at them
        for name in CELLS:
            _panel(page, name).screenshot(path=Path(folder) / f"{name} {theme} {width}.png")


def test_the_report_fits_a_phone_and_prints(browser, micro_run, tmp_path):
    shown = browser.new_page(viewport={"width": 390, "height": 800})
    shown.goto(report.build(linked(micro_run, tmp_path, "phone")).as_uri())
    assert shown.evaluate("() => document.documentElement.scrollWidth") <= 390
    assert shown.locator("img, svg, table").count() > 3  # it is not fitting because it is empty
    assert shown.pdf().startswith(b"%PDF")
    shown.close()
