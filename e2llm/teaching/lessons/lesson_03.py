"""Exercises of lesson 03, alignment."""

import numpy as np

from ...core.claims import SCALES
from ..judging import Exercise, Letters, Mistake, Number, Values

SETUP = 'eeg_tokens, evidence_slots, levels = 2, 20, "graded"  # as in the lesson'


def _words(levels: str) -> int:
    return 2 + SCALES[levels].level_words


EXERCISES = (
    Exercise(
        "03-placeholders", "How many placeholders?",
        "A segment takes `eeg_tokens` state tokens. Each of its `evidence_slots` takes two tokens for the name of the "
        "feature, and one for its level (two if `levels` is `graded`). How many placeholders does one segment take?",
        Number(), lambda eeg_tokens, evidence_slots, levels: eeg_tokens + evidence_slots * _words(levels),
        "answer = eeg_tokens + evidence_slots * (3 if levels == \"low_high\" else 4)",
        "The prompt has one placeholder for each token, and each is replaced by one projected vector.",
        (Mistake(lambda eeg_tokens, evidence_slots, levels: eeg_tokens + evidence_slots,
                 ("A slot takes more than one token.", "Count the words of \"occipital alpha low\".")),
         Mistake(lambda eeg_tokens, evidence_slots, levels: evidence_slots * _words(levels),
                 ("The slots are right. Something else stands in front of them.", "Add the state tokens."))),
        ("A segment has two kinds of tokens. Add both.", "State tokens, plus the tokens of all slots."),
        given=("eeg_tokens", "evidence_slots", "levels"), before="idea-03",
        then="The prompt of a real item, some cells below, holds as many `<|eeg|>`."),
    Exercise(
        "03-gradient", "Who learns in stage 2?",
        "The loss of stage 2 is computed from the probabilities that the language model gives to the expected words. "
        "Which weights change?\n\n"
        "- A: encoder, projector and language model\n- B: the projector\n- C: projector and language model",
        Letters("ABC"), "B", 'answer = "B"',
        "The gradient passes *through* the language model, but its weights are frozen. So is the encoder. The check "
        "of this lesson asserts that only the projector is saved.",
        (Mistake("C", ("The gradient passes through the language model. Do its weights change?",
                       "Read the second sentence of the promise.")),
         Mistake("A", ("Two of these parts are frozen.", "Read the second sentence of the promise."))),
        ("Read the promise of this lesson.", "Frozen weights pass a gradient on, but do not change.")),
    Exercise(
        "03-cosine", "Cosines after centering",
        "Two mean EEG tokens are (2, 1) and (0, 1). Two words are (3, 0) and (1, 0). Subtract the mean of the EEG "
        "tokens from both tokens, and the mean of the words from both words. Give the 2 x 2 matrix of cosines: a row "
        "for each EEG token, a column for each word.",
        Values("a list of two lists of two numbers", 1e-3), [[1, -1], [-1, 1]],
        "eeg, words = np.array([[2.0, 1], [0, 1]]), np.array([[3.0, 0], [1, 0]])\n"
        "eeg, words = eeg - eeg.mean(axis=0), words - words.mean(axis=0)\n"
        "length = np.linalg.norm\n"
        "answer = eeg @ words.T / np.outer(length(eeg, axis=1), length(words, axis=1))",
        "What all tokens share says nothing about a label. Centering removes it, and the diagonal becomes red.",
        (Mistake([[2 / np.sqrt(5), 2 / np.sqrt(5)], [0, 0]],
                 ("These are cosines without centering.", "Subtract each set's own mean first.")),
         Mistake([[4, -4], [-4, 4]], ("This is not yet a cosine.", "Divide by the lengths of both vectors.")),
         Mistake([[-1, 1], [1, -1]], ("The signs are turned round.", "Row 1 belongs to the EEG token (2, 1)."))),
        ("Subtract the mean over the two rows, separately for EEG and words.",
         "A cosine is a scalar product divided by both lengths.")),
    Exercise(
        "03-patches", "What does a state token average?",
        "A window of four seconds has 16 time patches, and takes 2 state tokens. How many milliseconds of signal does "
        "one state token average?",
        Number("milliseconds", 1.0), 2000, "answer = 16 / 2 * 250",
        "The projector averages neighboring time patches: eight patches of 250 ms for each of two tokens.",
        (Mistake(8, ("That is a number of patches.", "How long is one patch?")),
         Mistake(250, ("That is one patch.", "How many patches share a token?")),
         Mistake(4000, ("That is the whole window.", "It is divided among the state tokens."))),
        ("Divide the patches among the tokens.", "Each patch is 250 ms long.")),
)
