"""Interactive views in JupyterLab, and their static versions in a batch run.

A live widget can block a batch run and cannot be compared with a stored output. Each function therefore asks
:func:`e2llm.core.environment.is_interactive` first, and returns one static result in a batch run. Make the call the
last line of its cell.

============================= ========================================================================================
``signal_browser``            one window: signal before and after cleaning, maps, spectrum, evidence
``preprocessing_playground``  what filter edges, reference and threshold change
``token_explorer``            EEG tokens of a segment and their nearest words, before and after alignment
``reasoning_panel``           ask the model about one to four segments, and change what it states
``scenario_playground``       segments, ranked by how well they fit a text
``confusion_explorer``        windows behind a cell of a confusion matrix, and the model's reasons
``split_explorer``            who stands where under a protocol, and what is reached without EEG
============================= ========================================================================================

State goes in and a view comes out: the figures are plain functions in :mod:`e2llm.viz.plots_explore` and
:mod:`e2llm.viz.answer_view`. All controls are reached by the Tab key and changed by the arrow keys.
"""

from .ask import reasoning_panel as reasoning_panel
from .confusion import confusion_explorer as confusion_explorer
from .controls import WindowPicker as WindowPicker
from .controls import window_name as window_name
from .preprocessing import preprocessing_playground as preprocessing_playground
from .scenarios import scenario_playground as scenario_playground
from .signals import signal_browser as signal_browser
from .split import split_explorer as split_explorer
from .tokens import token_explorer as token_explorer
