"""What all widgets share: the choice of a window, and views that say when they are being made.

A callback never ends in a traceback, which only the server's log would show: an error becomes a sentence in the view,
and an interrupt leaves the last view as it was.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import ipywidgets
import matplotlib.pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ...data.preprocessing import Windows

INTERRUPTED = "interrupted; choose again to go on"
# A picture is white: on a dark page it is dimmed. An outline shows which control the keyboard has.
_STYLE = """<style>
.e2llm-picture { width: auto; max-width: calc(100% - 4px) !important; height: auto !important; align-self: flex-start; }
.e2llm-panel .widget-html-content { overflow-wrap: anywhere; }
body[data-jp-theme-light="false"] .e2llm-picture { filter: brightness(0.85); }
.e2llm-panel :focus-visible { outline: 2px solid #2f8fd8; outline-offset: 1px; }
</style>"""


def field(width: str = "300px", label_width: str = "82px") -> dict:
    """Layout of a control with its label: it wraps to the next line before it shrinks.

    Parameters
    ----------
    width, label_width : str
        CSS width of label and control together, and of the label.
    """
    return {"layout": ipywidgets.Layout(width=width, min_width=width, max_width="100%"),
            "style": {"description_width": label_width}}


def row_of(*controls: ipywidgets.Widget) -> ipywidgets.HBox:
    """Controls side by side, in as many lines as the page needs."""
    return ipywidgets.HBox(controls, layout=ipywidgets.Layout(flex_flow="row wrap", align_items="center"))


def panel(*parts: ipywidgets.Widget) -> ipywidgets.VBox:
    """A widget from its parts, with the style of all widgets."""
    box = ipywidgets.VBox([*parts, ipywidgets.HTML(_STYLE, layout=ipywidgets.Layout(display="none"))])
    box.add_class("e2llm-panel")
    return box


def png(figure: Figure) -> bytes:
    """The figure as PNG; closes it."""
    figure.set_dpi(plt.rcParams["savefig.dpi"] if plt.rcParams["savefig.dpi"] != "figure" else figure.dpi)
    with io.BytesIO() as picture:
        # Draws once (savefig draws twice), and packs quickly: a picture goes to a browser, not to a disk.
        FigureCanvasAgg(figure).print_png(picture, pil_kwargs={"compress_level": 1})
        plt.close(figure)
        return picture.getvalue()


def in_words(figure: Figure) -> str:
    """What a figure shows, for readers who do not see it: its title, and those of its panels.

    Parameters
    ----------
    figure : Figure
        With a title, or panels with titles.

    Raises
    ------
    ValueError
        If it has neither.
    """
    titles = [figure.get_suptitle(), *(ax.get_title() for ax in figure.axes)]
    said = [" ".join(title.replace(r"\$", "$").split()) for title in titles if title.strip()]
    if not said:
        raise ValueError("This figure has no title, so nothing can be read out for it: give it one, or its panels.")
    return ". ".join(dict.fromkeys(said))


def picture(figure: Figure) -> str:
    """The figure as an HTML image with a text in its place (:func:`in_words`); closes it.

    ``ipywidgets.Image`` has no such text, and its tooltip stops the view with an error.
    """
    said = html.escape(in_words(figure))
    data = base64.b64encode(png(figure)).decode()
    return f'<img class="e2llm-picture" alt="{said}" src="data:image/png;base64,{data}">'


def static(figure: Figure) -> Figure:
    """The figure, closed in pyplot, so that a notebook shows it once, as the value of its cell."""
    plt.close(figure)
    return figure


def failure(error: BaseException) -> str:
    """An error as HTML, escaped."""
    return f"<b>{html.escape(f'{type(error).__name__}: {error}')}</b>"


class Status:
    """One line below the controls that says what is being made, or what went wrong."""

    def __init__(self) -> None:
        self.line = ipywidgets.HTML(layout=ipywidgets.Layout(min_height="28px"))

    @contextmanager
    def says(self, what: str) -> Iterator[None]:
        """Show ``what`` while the block runs; an error or an interrupt of the block is shown and ends there.

        Parameters
        ----------
        what : str
            "drawing …".
        """
        self.line.value = f"<i>{html.escape(what)}</i>"
        try:
            yield
        except KeyboardInterrupt:
            self.line.value = f"<i>{INTERRUPTED}</i>"
        except Exception as error:  # the traceback of a callback would only reach the server's log
            self.line.value = failure(error)
        else:
            self.line.value = ""


class Picture:
    """A figure that follows the controls.

    Parameters
    ----------
    draw : callable
        Makes the figure from the state of the controls.
    """

    def __init__(self, draw: Callable[..., Figure]) -> None:
        self._draw, self.status = draw, Status()
        self.image = ipywidgets.HTML(layout=ipywidgets.Layout(max_width="100%"))

    def show(self, *state: object) -> None:
        """Draw one state; the line above the picture says so until it is there.

        Parameters
        ----------
        *state
            Given to ``draw``.
        """
        # No axis of these figures has ticks above it, so titles need not look for room.
        with self.status.says("drawing …"), plt.rc_context({"axes.titley": 1.0}):
            self.image.value = picture(self._draw(*state))
            self.image.layout.display = ""

    def follow(self, *controls: ipywidgets.Widget) -> None:
        """Draw the values of controls, now and whenever one of them changes.

        Parameters
        ----------
        *controls
            Their values, in this order, are the state.
        """
        def changed(_: dict | None = None) -> None:
            self.show(*(control.value for control in controls))

        for control in controls:
            control.observe(changed, "value")
        changed()


class WindowPicker:
    """Controls that choose one row of the windows: subject, session if there are several, clip and window.

    Parameters
    ----------
    windows : Windows
        Windows to choose from.
    start : int
        Row chosen at the start.
    on_change : callable, optional
        ``on_change(row)``, called once for every other row that is chosen.
    """

    def __init__(self, windows: Windows, start: int = 0, on_change: Callable[[int], None] | None = None) -> None:
        self._index, self._on_change, self._reported = windows.index, on_change, start
        self._sessions = "session" in windows.index and windows.index["session"].nunique() > 1
        first = windows.index.iloc[start]
        self.subject = ipywidgets.Dropdown(options=list(windows.index["subject"].unique()), value=first["subject"],
                                           description="subject", **field("200px"))
        self.session = ipywidgets.Dropdown(options=self._sessions_of(first["subject"]),
                                           value=first["session"] if self._sessions else 0, description="session",
                                           **field("170px"))
        self.clip = ipywidgets.Dropdown(options=self._clips(), value=first["clip"], description="clip",
                                        **field("240px"))
        rows = self._rows()
        self.window = ipywidgets.IntSlider(value=rows.index(start), min=0, max=len(rows) - 1, description="window",
                                           continuous_update=False, **field("300px"))
        self.subject.observe(self._subject_changed, "value")
        self.session.observe(self._session_changed, "value")
        self.clip.observe(self._clip_changed, "value")
        self.window.observe(self._report, "value")
        self.box = row_of(*([self.subject, self.session] if self._sessions else [self.subject]), self.clip, self.window)

    @property
    def row(self) -> int:
        """The chosen row of the windows."""
        return self._rows()[self.window.value]

    def _of_session(self) -> Sequence[bool]:
        own = self._index["subject"] == self.subject.value
        return own & (self._index["session"] == self.session.value) if self._sessions else own

    def _rows(self) -> list[int]:
        chosen = self._of_session() & (self._index["clip"] == self.clip.value)
        return chosen.to_numpy().nonzero()[0].tolist()

    def _sessions_of(self, subject: str) -> list[int]:
        return sorted(self._index["session"][self._index["subject"] == subject].unique()) if self._sessions else [0]

    def _clips(self) -> list[tuple[str, int]]:
        """Clips of a subject and session, each named with its label."""
        clips = self._index[self._of_session()].drop_duplicates("clip")
        return [(f"{clip} ({label})" if label else str(clip), clip)
                for clip, label in zip(clips["clip"], clips["label"], strict=True)]

    def _subject_changed(self, _: dict) -> None:
        with self.session.hold_trait_notifications():
            self.session.options = self._sessions_of(self.subject.value)
        self._session_changed()

    def _session_changed(self, _: dict | None = None) -> None:
        self.clip.options = self._clips()
        self._clip_changed()  # the new subject's first clip may have the old one's number: then nothing was observed

    def _clip_changed(self, _: dict | None = None) -> None:
        if not (rows := self._rows()):  # in between: the session has changed, and its clips are yet to be listed
            return
        self.window.value = 0  # before the maximum shrinks, or the slider would stop at a window in between
        self.window.max = len(rows) - 1
        self._report()

    def _report(self, _: dict | None = None) -> None:
        if not self._rows():
            return
        if self._on_change is not None and self.row != self._reported:
            self._reported = self.row
            self._on_change(self.row)


def check_row(windows: Windows, row: int) -> None:
    """Refuse a row that is not there (IndexError)."""
    if not 0 <= row < len(windows):
        raise IndexError(f"There is no window {row}: start must be from 0 to {len(windows) - 1}.")


def window_name(windows: Windows, row: int) -> str:
    """Subject, clip, label and time of a window in words.

    Parameters
    ----------
    windows : Windows
        All windows.
    row : int
        The one to name.
    """
    it = windows.index.iloc[row]
    if "file" in it:  # of a new subject: no label is known, and the statistics are a choice
        return f"{it['file']}, window {it['window']} from {it['start_s']:g} s, {it['statistics']}"
    return f"subject {it['subject']}, clip {it['clip']} ({it['label']}), window {it['window']} from {it['start_s']:g} s"
