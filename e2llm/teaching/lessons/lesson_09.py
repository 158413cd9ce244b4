"""Exercises of lesson 09, pretraining an encoder."""

from ..judging import Exercise, Letters, Mistake, Number

SETUP = """results = e2llm.project_root() / "notebooks" / "results"
gain = pd.read_csv(results / "pretraining_eegmat_differences.csv")"""


def _beyond_zero(gain) -> int:
    return int(((gain["low"] > 0) | (gain["high"] < 0)).sum())


EXERCISES = (
    Exercise(
        "09-where", "Which patches can be reconstructed?",
        "Some hidden patches stand beside shown channels of the same moment. Others lie where the whole quarter of a "
        "second is hidden. Which are reconstructed better?\n\n"
        "- A: beside shown channels\n- B: where the moment is hidden\n- C: both alike",
        Letters("ABC"), "A", 'answer = "A"',
        "Neighboring electrodes record the same sources at the same moment. Across time the phase of a rhythm changes.",
        (Mistake("B", ("What does the model know about that moment?", "Think of the phase of a rhythm.")),
         Mistake("C", ("In one case another electrode records the same moment.", "Think of the phase of a rhythm."))),
        ("Which of them is closer to something that is shown?", "Neighboring electrodes share sources."),
        before="fe5dbbce"),
    Exercise(
        "09-hidden", "How much is shown?",
        "A quarter of the time patches is hidden completely. In the others a fifth of the channels is shown. Which "
        "part of the window does the encoder see?",
        Number("percent", 0.1), 15, "answer = 100 * 0.75 * 0.2",
        "Three quarters of the moments, and a fifth of the channels in each.",
        (Mistake(5, ("That is a fifth of what is hidden.", "Which moments are shown at all?")),
         Mistake(20, ("That forgets the hidden moments.", "Only some moments are shown.")),
         Mistake(95, ("That adds up shares of different things.", "Multiply the two shares that are shown."))),
        ("Multiply two shares.", "The share of moments that are shown, and of channels inside them.")),
    Exercise(
        "09-explained", "What does an error mean?",
        "Hidden patches have mean 0 and variance 1. The mean squared error of the reconstruction is 0.7. Which share "
        "of the variance is explained?",
        Number("percent", 0.1), 30, "answer = 100 * (1 - 0.7)",
        "An error of 1 means that nothing is known.",
        (Mistake(70, ("That is what is *not* explained.", "An error of 0 would be a perfect reconstruction.")),
         Mistake(49, ("The error is squared already.", "Use it as it is."))),
        ("What would an error of 1 mean?", "Read the first of the two tasks once more.")),
    Exercise(
        "09-beyond", "How many differences are clear?",
        "The table `gain` holds differences with 95 % intervals that are not corrected. How many rows have "
        "an interval wholly above or wholly below zero? A row that stands twice counts twice.",
        Number(), _beyond_zero, 'answer = int(((gain["low"] > 0) | (gain["high"] < 0)).sum())',
        "Count rows whose interval does not contain zero. Remember that none is corrected for their number.",
        (Mistake(lambda gain: len(gain) - _beyond_zero(gain), ("Those contain zero.", "You want the others.")),
         Mistake(lambda gain: len(gain), ("That is every row.", "Keep the rows whose interval leaves zero out."))),
        ("An interval leaves zero out if both ends have the same sign.", "Compare `low` with 0, and `high` with 0."),
        given=("gain",)),
)
