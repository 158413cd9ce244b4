"""The explorers: a figure in batch, a live panel that follows its controls, errors and interrupts in words."""

import matplotlib

matplotlib.use("Agg")

import base64
import re
from types import SimpleNamespace

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from asked import NAMES, N, made_up_corpus, random_model
from matplotlib.figure import Figure

from e2llm.core.labels import SEED_VII
from e2llm.core.montage import SEED_CHANNELS
from e2llm.data.preprocess_params import PreprocessParams
from e2llm.data.sources.base import Recording, Trial
from e2llm.data.splits import make_split
from e2llm.evaluation.shortcuts import probe
from e2llm.models.inference import nearest_words
from e2llm.viz import plots_explore, widgets
from e2llm.viz.widgets.controls import Picture, in_words, png
from e2llm.viz.widgets.controls import picture as as_html
from e2llm.viz.widgets.preprocessing import cleaned


@pytest.fixture(autouse=True)
def closed():
    yield
    assert not plt.get_fignums()  # a figure of a widget is no longer pyplot's


@pytest.fixture(scope="module")
def corpus() -> SimpleNamespace:
    made = made_up_corpus()
    made.labels = np.full(N, SEED_VII.index("fear"))
    return made


@pytest.fixture(scope="module")
def model(corpus):
    return random_model(corpus)


@pytest.fixture(scope="module")
def trial() -> Trial:
    """Eight seconds of noise with mains, and one channel that is far too large."""
    rng, times = np.random.default_rng(0), np.arange(8 * 200) / 200
    signal = rng.normal(0, 10, (62, 1600)) + 20 * np.sin(2 * np.pi * 50 * times)
    signal[10] *= 50
    return Trial("1", 1, 2, "fear", signal.astype(np.float32), 200.0, SEED_CHANNELS)


@pytest.fixture
def live(monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "lesson.ipynb")
    monkeypatch.delenv("E2LLM_BATCH", raising=False)


def source_of(trial: Trial) -> SimpleNamespace:
    return SimpleNamespace(recordings=[Recording("one", None, "1")], trials=lambda recording: iter([trial]))


def calls(corpus, model, trial) -> dict:
    return {"signals": lambda: widgets.signal_browser(corpus.windows),
            "preprocessing": lambda: widgets.preprocessing_playground(trial),
            "tokens": lambda: widgets.token_explorer(model.engine, corpus.windows),
            "scenarios": lambda: widgets.scenario_playground(model, range(8), "A dog jumps at a child."),
            "confusion": lambda: widgets.confusion_explorer(model, np.arange(8), np.array([4, 4, 4, 1, 1, 1, 2, 4])),
            "split": lambda: widgets.split_explorer(split_index())}


def split_index():
    """Six people, who saw six clips of each label."""
    labels = ("happy", "surprise", "neutral", "disgust", "fear", "sad", "anger")
    return pd.DataFrame([{"id": i, "subject": str(subject), "session": 1 + (clip > 20), "clip": clip,
                          "label": labels[clip % 7], "window": window, "start_s": 4.0 * window}
                         for i, (subject, clip, window) in enumerate(np.ndindex(6, 42, 2))])


def parts(panel) -> list:
    """All widgets of a panel, in order."""
    found = []
    for one in panel.children:
        found += [one, *(parts(one) if hasattr(one, "children") else [])]
    return found


def of_kind(panel, kind, description: str = ""):
    return next(one for one in parts(panel) if isinstance(one, kind) and one.description == description)


def picture(panel) -> bytes:
    """The first picture of a panel as PNG."""
    return base64.b64decode(re.search(r'src="data:image/png;base64,([^"]+)"', drawn(panel)[0])[1])


def drawn(panel) -> list[str]:
    """Pictures of a panel as HTML."""
    return [one.value for one in parts(panel) if isinstance(one, ipywidgets.HTML) and "<img " in one.value]


def status(panel) -> ipywidgets.HTML:
    return next(one for one in parts(panel) if isinstance(one, ipywidgets.HTML) and one.layout.min_height)


EXPLORERS = ["signals", "preprocessing", "tokens", "scenarios", "confusion", "split"]


@pytest.mark.parametrize("name", EXPLORERS)
def test_in_batch_there_is_one_figure_and_no_widget(name, corpus, model, trial, monkeypatch):
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)

    def refuse(*args, **kwargs):
        raise AssertionError("a widget was made in a batch run")

    monkeypatch.setattr(ipywidgets.Widget, "__init__", refuse)
    first, again = (calls(corpus, model, trial)[name]() for _ in range(2))
    assert isinstance(first, Figure) and first.get_suptitle()
    assert png(first) == png(again)


@pytest.mark.parametrize("name", EXPLORERS)
def test_every_control_of_a_panel_has_a_label_and_a_picture(name, live, corpus, model, trial):
    panel = calls(corpus, model, trial)[name]()
    assert picture(panel).startswith(b"\x89PNG") and status(panel).value == ""
    for image in drawn(panel):
        said = re.search(r'alt="([^"]+)"', image)[1]
        assert len(said.split()) >= 3 and 'class="e2llm-picture"' in image
    shown = (ipywidgets.HTML, ipywidgets.Label)
    controls = [one for one in parts(panel) if hasattr(one, "description") and not isinstance(one, shown)]
    assert controls and all(one.description for one in controls)
    assert all(one.tooltip for one in controls if isinstance(one, ipywidgets.Button))


# --- signals


def test_the_evidence_of_a_window_is_against_the_own_windows(corpus):
    view = widgets.signals._WindowView(corpus.windows, None)
    own = (corpus.windows.index["subject"] == "1").to_numpy()
    assert view.z[own].mean(axis=0) == pytest.approx(0, abs=1e-4)
    assert view.z[own][:, 0].std() == pytest.approx(1)


def test_before_and_after_shows_the_same_seconds_as_recorded(live, corpus, trial):
    recorded = SimpleNamespace(**{**vars(trial), "clip": 1})
    view = widgets.signals._WindowView(corpus.windows, source_of(recorded))
    signal, sfreq, names = view.raw(1)  # from 4 s
    assert (signal.shape, sfreq) == ((62, 800), 200.0)
    assert np.array_equal(signal, trial.signal[:, 800:1600]) and names == tuple(SEED_CHANNELS)
    panel = widgets.signal_browser(corpus.windows, 1, source_of(recorded))
    before = picture(panel)
    of_kind(panel, ipywidgets.ToggleButtons, "signal").value = "before and after"
    assert picture(panel) != before
    lost = widgets.signal_browser(corpus.windows, 1, source_of(trial))  # its clip has another number
    before = picture(lost)
    of_kind(lost, ipywidgets.ToggleButtons, "signal").value = "before and after"
    assert "The source has no clip 1 of subject 1" in status(lost).value and picture(lost) == before


# --- preprocessing


def test_a_reference_is_subtracted_and_the_threshold_finds_the_large_channel(trial):
    params = PreprocessParams()
    average, bad = cleaned(trial, params)
    assert bad == [SEED_CHANNELS[10]] and np.abs(average.mean(axis=0)).max() < 1e-3
    cz = SEED_CHANNELS.index("CZ")
    against, _ = cleaned(trial, params, "CZ")
    assert np.abs(against[cz]).max() == 0 and against[0] == pytest.approx(average[0] - average[cz])


def test_the_playground_says_what_was_set_and_what_cannot_be(live, trial):
    panel = widgets.preprocessing_playground(trial)
    before = picture(panel)
    of_kind(panel, ipywidgets.FloatSlider, "high edge, Hz").value = 30
    assert picture(panel) != before
    before = picture(panel)
    of_kind(panel, ipywidgets.FloatSlider, "threshold").value = 1.0  # nearly all channels are unlike the others then
    assert "too many to repair" in status(panel).value and picture(panel) == before


# --- tokens


def test_the_nearest_word_of_a_word_is_itself(model):
    engine, words = model.engine, model.engine.model.get_input_embeddings().weight
    ids = [i for i in engine.processor.ids("Which segment is more pleasant")
           if engine.processor.tokenizer.decode([i]).strip().isprintable()]
    fake = SimpleNamespace(get_input_embeddings=engine.model.get_input_embeddings, device=words.device,
                           projector=lambda features: words[ids][None].detach())
    found = nearest_words(fake, engine.processor, engine.features[0], 2)
    assert [token[0][0] for token in found] == [engine.processor.tokenizer.decode([i]).strip() for i in ids]
    assert all(token[0][1] == pytest.approx(1, abs=1e-5) and token[1][1] < token[0][1] for token in found)


def test_a_segment_without_tokens_is_said_to_have_none(live, model, corpus):
    panel = widgets.token_explorer(model.engine, corpus.windows)
    before = picture(panel)
    of_kind(panel, ipywidgets.Dropdown, "subject").value = "2"
    of_kind(panel, ipywidgets.IntSlider, "window").value = 5
    assert "Window 11 has no tokens" in status(panel).value and picture(panel) != before  # that of window 6


# --- scenarios


def test_a_typed_scenario_is_ranked_and_an_empty_one_is_refused(live, model):
    panel = widgets.scenario_playground(model, range(8), "A dog jumps at a child.")
    text, button = of_kind(panel, ipywidgets.Textarea, "scenario"), of_kind(panel, ipywidgets.Button, "Rank")
    before, text.value = picture(panel), "A friend comes."
    assert picture(panel) == before
    button.click()
    assert picture(panel) != before
    text.value = " "
    button.click()
    assert "empty" in status(panel).value and not button.disabled


# --- confusion


def test_a_cell_lists_its_windows_and_asks_about_one(live, model):
    predicted = np.array([4, 4, 4, 1, 1, 1, 2, 4])
    panel = widgets.confusion_explorer(model, np.arange(8), predicted)
    chosen, ask = of_kind(panel, ipywidgets.Dropdown, "window"), of_kind(panel, ipywidgets.Button, "Reasons")
    assert [row for _, row in chosen.options] == [3, 4, 5]  # fear, most often mistaken for surprise
    cells = [one for one in parts(panel) if isinstance(one, ipywidgets.Button) and one.tooltip.startswith("fear, ")]
    assert [one.description for one in cells] == ["0", "3", "1", "0", "4", "0", "0"]
    cells[2].click()
    assert [row for _, row in chosen.options] == [6] and "3px" in cells[2].layout.border
    ask.click()
    shown = [one for one in parts(panel) if isinstance(one, ipywidgets.HTML)][1:]
    assert any("Probability of each answer" in one.value for one in shown)
    cells[0].click()
    assert ask.disabled and chosen.options == ()
    with pytest.raises(ValueError, match="one answer a window"):
        widgets.confusion_explorer(model, np.arange(8), predicted[:3])


# --- splits


def test_a_clip_on_both_sides_is_black_and_its_leak_is_stated():
    index = split_index()
    parts_of = make_split(index, "random_windows", "calibration", True)
    figure = plots_explore.split(index, parts_of, probe(index, parts_of), parts_of.statement)
    plt.close(figure)
    grid = figure.axes[0].images[0].get_array()
    code = list(plots_explore.PARTS).index("on both sides")
    part = parts_of.part_of(len(index))
    for i, subject in enumerate(index["subject"].unique()):
        for j, clip in enumerate(index["clip"].unique()):
            own = set(part[((index["subject"] == subject) & (index["clip"] == clip)).to_numpy()])
            assert (grid[i, j] == code) == ("test" in own and len(own) > 1)
    assert "LEAKY" in figure.get_suptitle()


def test_another_protocol_is_drawn_once_and_an_impossible_one_is_explained(live, monkeypatch):
    panel = widgets.split_explorer(split_index())
    protocol, fold = (of_kind(panel, kind, name) for kind, name in ((ipywidgets.Dropdown, "protocol"),
                                                                     (ipywidgets.BoundedIntText, "fold")))
    before, protocol.value = picture(panel), "random_windows"
    assert picture(panel) != before and fold.max == 4
    before, fold.value = picture(panel), 4
    assert picture(panel) != before
    before, protocol.value = picture(panel), "cross_context"
    assert "context" in status(panel).value and picture(panel) == before


# --- what all share


@pytest.mark.parametrize(("error", "said"), [(ValueError("<script>"), "ValueError: &lt;script&gt;"),
                                             (KeyboardInterrupt(), "interrupted")])
def test_an_error_or_an_interrupt_keeps_the_last_picture(error, said):
    def draw(state: int) -> Figure:
        seen.append(shown.status.line.value)
        if state:
            raise error
        return plt.figure().suptitle("A state").figure

    seen, shown = [], Picture(draw)
    shown.show(0)
    before = shown.image.value
    assert seen == ["<i>drawing …</i>"] and not shown.status.line.value
    shown.show(1)
    assert said in shown.status.line.value and shown.image.value == before
    shown.show(0)
    assert not shown.status.line.value


def test_a_picture_says_what_it_shows_also_to_who_does_not_see_it():
    figure, axes = plt.subplots(1, 2)
    figure.suptitle('Costs of "A" <fear>, in \\$')
    axes[0].set_title("before\ntraining")
    axes[1].set_title("after")
    assert in_words(figure) == 'Costs of "A" <fear>, in $. before training. after'
    assert 'alt="Costs of &quot;A&quot; &lt;fear&gt;, in $. before training. after"' in as_html(figure)
    bare = plt.figure()
    with pytest.raises(ValueError, match="no title"):
        in_words(bare)
    plt.close(bare)
    assert not plt.get_fignums()


def test_the_words_of_evidence_stand_beside_the_state_tokens():
    state, slot = [[("sad", 0.9), ("fear", 0.5)]] * 2, ["occipital", "alpha", "rather", "low"]
    for level_words in (1, 2):  # as many as the scale of the model has
        said = slot[: 1 + level_words] + slot[3:]
        words = [*state, *([(word, 1.0)] for word in said), *[[("]", 1.0)]] * len(said)]
        figure = plots_explore.nearest_words(words, words, 2, 2 + level_words, "a window")
        plt.close(figure)
        assert figure.axes[-1].texts[0].get_text() == f"1. {' '.join(said)}\n(1 of 2 slots are empty)"
    assert len(NAMES.columns) > 20 and figure.axes[0].get_title() == "State tokens, before alignment"
