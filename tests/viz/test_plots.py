"""Every figure says what it shows: titles, units and names, and the numbers stand where they belong."""


import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from e2llm.core.bands import BANDS
from e2llm.core.montage import SEED_CHANNELS, eegpt_channels
from e2llm.data.spectrum_summary import SpectrumSummary, eegmat_reference
from e2llm.viz import plots, plots_explore, style

CHANNELS = eegpt_channels(list(SEED_CHANNELS))
LABELS = ["happy", "surprise", "neutral", "disgust", "fear", "sad", "anger"]
SFREQ = 256.0


pytestmark = pytest.mark.usefixtures("careful_figures")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def windows(rng, n, alpha):
    """Noise of 5 µV, and 10 Hz of the amplitude that ``alpha`` gives each channel."""
    rhythm = np.sin(2 * np.pi * 10 * np.arange(1024) / SFREQ)
    return rng.normal(0, 5, (n, len(alpha), 1024)) + np.asarray(alpha)[:, None] * rhythm


def title_of(figure: Figure) -> str:
    return figure.get_suptitle() or figure.axes[0].get_title()


def texts(ax) -> list[str]:
    return [text.get_text() for text in ax.texts]


def legend(ax) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def color_bars(figure: Figure) -> list:
    return [ax for ax in figure.axes if ax.get_label() == "<colorbar>"]


def maps(figure: Figure) -> list:
    return [ax for ax in figure.axes if ax.images and ax.get_label() != "<colorbar>"]


def test_use_style_sets_the_resolution():
    with plt.rc_context():
        style.use_style()
        # labels of nine points are 11 pixels high below a cell
        assert plt.rcParams["figure.dpi"] == 90 and plt.rcParams["savefig.dpi"] == 80
        style.use_style(90)
        assert plt.rcParams["figure.dpi"] == 90


def test_raw_and_clean_share_one_scale_and_the_same_seconds(rng):
    raw, cleaned = rng.normal(0, 20, (62, 2000)), rng.normal(0, 5, (62, 2560))
    figure = plots_explore.cleaning(raw, 200.0, cleaned, cleaned / 2, 256.0, SEED_CHANNELS, ["FP1"], "as set")
    left, right, spectrum = figure.axes
    assert legend(spectrum) == ["raw", "settings at the start", "cleaned"]
    assert title_of(figure) == "as set; interpolated*: FP1"
    assert (left.get_title(), right.get_title()) == ("raw, 200 Hz", "cleaned, 256 Hz")
    assert left.get_xlim() == right.get_xlim() == (0, 4) and left.get_xlabel() == "time (s)"
    assert left.get_ylim() == right.get_ylim()
    assert texts(left) == texts(right) == ["100 µV"]
    names = [label.get_text() for label in left.get_yticklabels()]
    assert names == ["FP1*", *plots.SHOWN_CHANNELS[1:]]
    # The first trace is that channel's own signal, in microvolts.
    drawn, own = left.lines[0].get_ydata(), raw[SEED_CHANNELS.index("FP1"), :800]
    np.testing.assert_allclose(drawn, own - np.median(own))
    # The scale bar is as long as it says.
    assert np.ptp(left.lines[-1].get_ydata()) == pytest.approx(100)


def test_traces_of_a_small_cap_with_other_channels(rng):
    raw, cleaned = rng.normal(size=(3, 800)), rng.normal(size=(3, 1024))
    figure = plots_explore.cleaning(raw, 200.0, cleaned, cleaned, 256.0, ["PZ", "Fp1", "CZ"], [], "as set")
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["PZ", "Fp1", "CZ"]


def test_a_flat_signal_can_be_drawn():
    zeros = np.zeros((len(CHANNELS), 1024))
    assert title_of(plots.window_view(zeros, SFREQ, CHANNELS, "flat")) == "flat"


def test_spectra_show_the_rhythm_that_is_there(rng):
    groups = {"rest": windows(rng, 6, alpha=[0] * 8), "eyes closed": windows(rng, 6, alpha=[20] * 8)}
    figure = plots.spectra(groups, SFREQ, "Rest")
    ax = figure.axes[0]
    assert title_of(figure) == "Rest"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("frequency (Hz)", "power (dB re 1 µV²/Hz)")
    assert legend(ax) == ["rest (n = 6)", "eyes closed (n = 6)"]
    assert texts(ax) == list("δθαβγ")
    rest, closed = ax.lines
    assert closed.get_xdata()[np.argmax(closed.get_ydata())] == pytest.approx(10)
    # 5 µV white noise has 25 µV² spread evenly over 128 Hz.
    assert np.median(rest.get_ydata()) == pytest.approx(10 * np.log10(25 / 128), abs=0.5)
    band = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert band.min() < rest.get_ydata().min() and band.max() > rest.get_ydata().max()


def test_groups_of_people_are_drawn_beside_each_other():
    rising = SpectrumSummary([1.0, 10.0, 45.0], [[5.0, 7.0, -10.0], [7.0, 9.0, -12.0]], ["FZ", "CZ", "PZ", "OZ"],
                             [-2.0, -1.0, 0.0, 3.0])
    figure = plots.beside_each_other({"twin": rising, "EEGMAT": eegmat_reference()}, "Like EEG?")
    spectrum = figure.axes[0]
    assert title_of(figure) == "Like EEG?" and legend(spectrum) == ["twin (n = 2)", "EEGMAT (n = 10)"]
    np.testing.assert_allclose(spectrum.lines[0].get_ydata(), [6.114, 8.114, -10.886], atol=0.001)  # means of power
    assert [ax.get_title() for ax in maps(figure)] == ["twin", "EEGMAT"]
    assert len({image.get_clim() for ax in maps(figure) for image in ax.images}) == 1  # one scale


def drawn_maps(values: dict[str, np.ndarray], ch_names: list[str], unit: str, vlim=None) -> Figure:
    figure, axes = style.panels((8, 3), 1, len(values))
    plots.scalp_maps(figure, list(np.ravel(axes)), values, ch_names, unit, vlim)
    return figure


def test_scalp_maps_share_one_color_bar(rng):
    figure = drawn_maps({band: rng.normal(size=len(CHANNELS)) for band in BANDS}, CHANNELS, "dB")
    assert [ax.get_title() for ax in maps(figure)] == list(BANDS)
    (bar,) = color_bars(figure)
    assert bar.get_ylabel() == "dB"
    limits = {image.get_clim() for ax in maps(figure) for image in ax.images}
    assert len(limits) == 1  # one scale for all
    low, high = limits.pop()
    assert -low == high and bar.get_ylim() == (low, high)  # symmetric about zero


def test_amounts_get_a_sequential_map_and_limits_can_be_given(rng):
    values = {"alpha": np.linspace(1, 4, len(CHANNELS))}
    assert maps(drawn_maps(values, CHANNELS, "µV"))[0].images[0].get_cmap().name == "viridis"
    plt.close("all")
    figure = drawn_maps(values, CHANNELS, "µV", (-2, 5))
    image = maps(figure)[0].images[0]
    assert image.get_clim() == (-2, 5) and image.get_cmap().name == "RdBu_r"


def test_a_map_puts_channels_where_they_are():
    at = dict(zip(CHANNELS, plots._map_positions(CHANNELS), strict=True))
    assert np.hypot(*at["CZ"]) < 0.15
    for name, (x, y) in {"FPZ": (0, 1), "OZ": (0, -1), "T7": (-1, 0), "T8": (1, 0)}.items():
        np.testing.assert_allclose(at[name], (x, y), atol=0.2)


def test_emotion_topographies_are_a_grid_of_label_and_band(rng):
    values = rng.normal(size=(len(LABELS), len(BANDS), len(CHANNELS)))
    figure = plots.emotion_topographies(values, LABELS, CHANNELS, "dB re mean over labels")
    grid = maps(figure)
    assert len(grid) == 35
    assert [ax.get_title().split("\n")[0] for ax in grid[:5]] == list(BANDS) and grid[0].get_title() == "delta\n1-4 Hz"
    assert [texts(ax)[0] for ax in grid[::5]] == LABELS
    assert [bar.get_ylabel() for bar in color_bars(figure)] == ["dB re mean over labels"]
    assert title_of(figure)


def test_bar_of_counts_writes_every_count():
    table = pd.DataFrame({"train": [30, 20], "test": [7, 9]}, index=["happy", "sad"])
    ax = plots.bar_of_counts(table, "Windows").axes[0]
    assert ax.get_title() == "Windows" and ax.get_ylabel() == "windows (count)"
    assert [label.get_text() for label in ax.get_xticklabels()] == ["happy", "sad"]
    assert legend(ax) == ["train", "test"]
    assert [bar.get_height() for bar in ax.patches] == [30, 20, 7, 9]
    assert texts(ax) == ["30", "20", "7", "9"]


def test_loss_curves_draw_what_was_measured():
    history = pd.DataFrame({"step": [1, 2, 3], "loss": [3.0, 2.0, 1.0], "validation": [np.nan, 2.5, np.nan]})
    ax = plots.loss_curves(history).axes[0]
    assert ax.get_title() and ax.get_xlabel() == "step" and ax.get_ylabel() == "loss (log scale)"
    assert ax.get_yscale() == "log" and legend(ax) == ["loss", "validation"]
    loss, validation = ax.lines
    np.testing.assert_array_equal(loss.get_xydata(), [[1, 3], [2, 2], [3, 1]])
    np.testing.assert_array_equal(validation.get_xydata(), [[2, 2.5]])
    assert validation.get_marker() and not loss.get_marker()  # a single point is visible


def test_a_loss_that_reaches_zero_is_drawn_on_a_linear_axis():
    ax = plots.loss_curves(pd.DataFrame({"step": [1, 2], "loss": [1.0, 0.0]})).axes[0]
    assert ax.get_yscale() == "linear" and ax.get_ylabel() == "loss (linear scale)"


def test_confusion_is_in_percent_of_each_row():
    figure = plots.confusion([[3, 1, 0], [5, 5, 0], [0, 0, 0]], ["happy", "sad", "fear"], "Test")
    ax = figure.axes[0]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("answer", "true label")
    assert ax.get_title() == "Test\nlargest mistake: sad, answered happy", "of two rows, the larger share"
    cells = {tuple(map(int, text.get_position()[::-1])): text.get_text() for text in ax.texts}
    assert cells == {(0, 0): "75", (0, 1): "25", (0, 2): "0", (1, 0): "50", (1, 1): "50", (1, 2): "0"}
    assert [label.get_text() for label in ax.get_yticklabels()] == ["happy (n = 4)", "sad (n = 10)", "fear (n = 0)"]
    assert color_bars(figure)[0].get_ylabel() == "share of the true label (%)"


def test_text_on_a_heat_map_contrasts_with_its_cell():
    ax = plots.confusion([[1, 0], [0, 1]], ["a", "b"], "t").axes[0]
    assert ax.get_title() == "t", "there is no mistake"
    shades = {text.get_text(): to_rgb(text.get_color()) for text in ax.texts}
    assert shades == {"100": (0, 0, 0), "0": (1, 1, 1)}  # cividis: yellow for 100, dark blue for 0


def test_token_similarity_is_symmetric_about_zero():
    figure = plots.token_similarity([[0.5, -0.25], [0.1, 0.0]], ["happy", "sad"], "Tokens")
    ax = figure.axes[0]
    assert ax.images[0].get_clim() == (-0.5, 0.5)
    assert texts(ax) == ["0.50", "-0.25", "0.10", "0.00"]
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title()) == ("label word", "EEG token", "Tokens")
    assert color_bars(figure)[0].get_ylabel() == "cosine similarity"


def test_rows_of_mean_tokens_are_named_by_their_labels():
    ax = plots.token_similarity([[0.5, -0.25]] * 2, ["happy", "sad"], "Means", ["happy", "sad"]).axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["happy", "sad"]
    assert ax.get_ylabel() == "mean EEG token of"


def test_many_tokens_are_drawn_without_cell_text(rng):
    ax = plots.token_similarity(rng.normal(size=(64, 7)), LABELS, "Tokens").axes[0]
    assert not ax.texts and ax.get_yticklabels()[5].get_text() == "5" and ax.get_yticklabels()[6].get_text() == ""


def test_embeddings_show_every_window_in_its_color(rng):
    subject = [LABELS[i % 7] for i in range(70)]
    after = 10 * np.eye(7)[[LABELS.index(name) for name in subject]][:, :2] + rng.normal(size=(70, 2)) * 1e-3
    figure = plots.embeddings(rng.normal(size=(70, 12)), after, subject, "Windows")
    left, right = figure.axes
    assert title_of(figure) == "Windows" and (left.get_title(), right.get_title()) == ("before", "after")
    assert right.get_xlabel().startswith("PC 1 (") and right.get_ylabel().endswith("% of variance)")
    assert legend(right) == LABELS
    assert [len(points.get_offsets()) for points in right.collections] == [10] * 7
    assert right.collections[0].get_offsets().std(axis=0).max() < 0.01  # a tight class stays tight
    assert len({tuple(points.get_facecolor()[0]) for points in right.collections}) == 7


def test_an_emotion_has_one_color_whatever_is_drawn_beside_it(rng):
    def colors(names: list[str]) -> dict:
        figure = plots.embeddings(np.eye(len(names)), np.eye(len(names)), names, "Windows")
        points = figure.axes[1].collections
        plt.close(figure)
        return {dot.get_label(): tuple(dot.get_facecolor()[0][:3]) for dot in points}

    all_seven = colors(LABELS)
    assert colors(["sad", "fear"]) == {name: all_seven[name] for name in ("fear", "sad")}
    figure = plots.spectra({"sad": windows(rng, 2, [0]), "happy": windows(rng, 2, [0])}, SFREQ, "Two")
    assert [tuple(line.get_color()) for line in figure.axes[0].lines[:2]] == [all_seven["sad"], all_seven["happy"]]
    assert len({line.get_linestyle() for line in figure.axes[0].lines[:2]}) == 2  # told apart in grey too
    assert style.label_colors(["sad", "subject 1"]) == style.PALETTE[:2]


def test_scores_put_dots_intervals_and_chance_in_percent():
    table = pd.DataFrame({"name": ["recognition", "valence", "free text"], "score": [0.45, 0.7, 0.2],
                          "low": [0.4, 0.6, np.nan], "high": [0.55, 0.75, np.nan], "chance": [1 / 7, 0.5, np.nan],
                          "group": ["EEG", "EEG", "text"]})
    ax = plots.scores(table, "Scores").axes[0]
    assert ax.figure.get_suptitle() == "Scores" and ax.get_xlabel() == "score (%)" and ax.get_xlim() == (0, 100)
    assert [label.get_text() for label in ax.get_yticklabels()] == list(table["name"])
    assert ax.yaxis_inverted()  # the first row on top
    eeg, text = ax.containers
    np.testing.assert_allclose(eeg.lines[0].get_xydata(), [[45, 0], [70, 1]])
    np.testing.assert_allclose(text.lines[0].get_xydata(), [[20, 2]])
    np.testing.assert_allclose([segment[:, 0] for segment in eeg.lines[2][0].get_segments()], [[40, 55], [60, 75]])
    (chance,) = [marks for marks in ax.collections if marks.get_label() == "chance"]
    np.testing.assert_allclose([segment[0, 0] for segment in chance.get_segments()], [100 / 7, 50])
    assert set(legend(ax)) == {"chance", "EEG", "text"}


def test_scores_without_groups_name_only_chance():
    table = pd.DataFrame({"name": ["a"], "score": [0.5], "low": [0.4], "high": [0.6], "chance": [0.5]}, index=[7])
    ax = plots.scores(table, "Scores").axes[0]
    assert legend(ax) == ["chance"]
    np.testing.assert_allclose(ax.containers[0].lines[0].get_xydata(), [[50, 0]])


PANELS = pd.DataFrame({"name": ["LLM", "head"] * 2, "group": ["leaky"] * 2 + ["strict"] * 2, "chance": [0.25] * 4,
                       "score": [0.35, 0.25, 0.26, 0.22], "low": [0.3, 0.2, 0.2, 0.15], "high": [0.4, 0.3, 0.3, 0.3]})


def test_score_panels_count_the_scores_above_chance_and_show_the_range_in_question():
    figure = plots.score_panels(PANELS, "Only the leaky split is above chance", "group")
    leaky, strict = figure.axes
    assert figure.get_suptitle() == "Only the leaky split is above chance"
    assert [ax.get_title() for ax in figure.axes] == ["leaky\n1 of 2 above chance", "strict\n0 of 2 above chance"]
    assert [label.get_text() for label in leaky.get_yticklabels()] == ["LLM", "head"]
    points = {box.get_label(): box.lines[0].get_xydata().tolist() for box in leaky.containers}
    assert points == {plots.ABOVE: [[35, 0]], plots.NOT_ABOVE: [[25, 1]]}
    assert leaky.get_xlim() == strict.get_xlim() == (10, 45)


def test_score_panels_draw_series_side_by_side_in_one_row():
    (ax,) = plots.score_panels(PANELS, "Two splits", series="group", xlim=(0, 100)).axes
    leaky, strict = (box.lines[0].get_xydata() for box in ax.containers)
    assert leaky[:, 0].tolist() == [35, 25] and strict[:, 0].tolist() == [26, 22] and ax.get_xlim() == (0, 100)
    assert (leaky[:, 1] < strict[:, 1]).all() and np.round([leaky[:, 1], strict[:, 1]]).tolist() == [[0, 1], [0, 1]]
    assert [text.get_text() for text in ax.figure.legends[0].get_texts()] == ["leaky", "strict", "chance"]


def test_probabilities_are_ranked_and_in_percent():
    ax = plots.probabilities({"sad": 0.25, "happy": 0.7, "fear": 0.05}, "Answer").axes[0]
    assert ax.get_title() == "Answer" and ax.get_xlabel() == "probability (%)" and ax.yaxis_inverted()
    assert [label.get_text() for label in ax.get_yticklabels()] == ["happy", "sad", "fear"]
    assert [bar.get_width() for bar in ax.patches] == pytest.approx([70, 25, 5])
    assert texts(ax) == ["70.0", "25.0", "5.0"]


def test_window_view_shows_where_alpha_is_strong(rng):
    occipital = np.array([30.0 if name in ("O1", "OZ", "O2") else 0.0 for name in CHANNELS])
    signal = windows(rng, 1, alpha=occipital)[0]
    figure = plots.window_view(signal, SFREQ, CHANNELS, "subject 1")
    assert title_of(figure) == "subject 1"
    by_title = {ax.get_title(): ax for ax in figure.axes}
    assert {"12 of 58 channels", "alpha power", "beta power", "Spectrum by region"} <= set(by_title)
    assert len(maps(figure)) == 2 and color_bars(figure)[0].get_ylabel() == "dB re mean of channels"
    back, front = np.array_split(by_title["alpha power"].images[0].get_array(), 2)
    assert np.nanmean(back) > np.nanmean(front) + 1  # row 0 of a map is its bottom, the back of the head
    spectra = {line.get_label(): line.get_ydata() for line in by_title["Spectrum by region"].lines}
    assert max(spectra, key=lambda region: spectra[region].max()) == "occipital"


def test_window_view_of_too_few_channels_says_so(rng):
    figure = plots.window_view(windows(rng, 1, alpha=[0, 0])[0], SFREQ, ["C3", "C4"], "two")
    assert not maps(figure) and any("no map of\n2 channels" in texts(ax) for ax in figure.axes)


def test_emotion_topographies_take_a_title(rng):
    values = rng.normal(size=(2, len(BANDS), len(CHANNELS)))
    assert title_of(plots.emotion_topographies(values, LABELS[:2], CHANNELS, "nats",
                                               "What the answer is owed to")) == "What the answer is owed to"


def test_deletion_curves_draw_each_model_against_random_order():
    shares = [0.0, 0.1, 0.5, 1.0]
    values = {("LLM", "deletion"): ([-1, -4, -5, -6], [-1, -2, -3, -6]),
              ("LLM", "insertion"): ([-6, -2, -1, -1], [-6, -5, -3, -1]),
              ("head", "deletion"): ([-2, -5, -6, -7], [-2, -3, -4, -7]),
              ("head", "insertion"): ([-7, -3, -2, -2], [-7, -6, -4, -2])}
    table = pd.concat([pd.DataFrame({"model": model, "kind": kind, "share": shares, "attributed": one, "random": other})
                       for (model, kind), (one, other) in values.items()], ignore_index=True)
    figure = plots.deletion_curves(table, "Taken away and put in")
    assert title_of(figure) == "Taken away and put in"
    assert [ax.get_title() for ax in figure.axes] == ["cells removed (deletion)", "cells put in (insertion)"]
    for ax, kind in zip(figure.axes, ("deletion", "insertion"), strict=True):
        assert ax.get_xlabel() == {"deletion": "cells removed (%)", "insertion": "cells put in (%)"}[kind]
        assert ax.get_ylabel() == "log-probability of the answer (nats)"
        drawn = {line.get_label(): line for line in ax.lines}
        assert set(drawn) == {f"{model}, {order}" for model in ("LLM",
                                                                "head") for order in ("most attributed first",
                                                                                      "at random")}
        for model in ("LLM", "head"):
            one, other = drawn[f"{model}, most attributed first"], drawn[f"{model}, at random"]
            for line, heights in zip((one, other), values[model, kind], strict=True):
                np.testing.assert_allclose(line.get_xydata(), np.column_stack([[0, 10, 50, 100], heights]))
            assert one.get_color() == other.get_color() and one.get_linestyle() != other.get_linestyle()
        assert drawn["LLM, at random"].get_color() != drawn["head, at random"].get_color()
    assert set(legend(figure.axes[1])) == {line.get_label() for line in figure.axes[1].lines}


def test_reliability_shows_bins_that_hold_windows():
    table = pd.DataFrame({"confidence": [np.nan, 0.5, 0.9], "accuracy": [np.nan, 0.25, 1.0], "n": [0, 30, 10]})
    ax = plots.reliability(table, "Model").axes[0]
    (dots,) = ax.collections
    assert np.asarray(dots.get_offsets()).tolist() == [[50.0, 25.0], [90.0, 100.0]]
    large, small = dots.get_sizes()
    assert large > small and ax.get_title() == "Model"
    assert ax.lines[0].get_xydata().tolist() == [[0, 0], [100, 100]]  # where both are equal
