"""Exercises of lesson 02, the encoder."""

import numpy as np

from ..judging import Exercise, Letters, Mistake, Number, Values

SETUP = """run = e2llm.Run.open(run_name)
corpus = e2llm.open_dataset(run)"""


def _patches(corpus) -> int:
    return round(4 * corpus.windows.window_s)


EXERCISES = (
    Exercise(
        "02-shapes", "How many patch tokens?",
        "A window has 16 time patches of 250 ms. The cell above prints the number of its channels. Inside each time "
        "patch every channel is a token. How many *patch tokens* has one window?",
        Number(), lambda corpus: _patches(corpus) * len(corpus.windows.ch_names),
        "answer = 16 * len(corpus.windows.ch_names)",
        "Each pair of time patch and channel is a token. The shape (window, time patch, channel, width) shows it.",
        (Mistake(lambda corpus: _patches(corpus), ("That counts time patches. Each holds more than one token.",
                                                   "Multiply by what is a token inside a time patch.")),
         Mistake(lambda corpus: 4 * _patches(corpus), ("Those are the summary tokens, which leave the encoder.",
                                                       "The question is about tokens that enter attention.")),
         Mistake(lambda corpus: len(corpus.windows.ch_names), ("Those are the tokens of one time patch.",
                                                               "How many time patches has the window?"))),
        ("Each channel is a token inside each time patch.", "Multiply channels and time patches."),
        given=("corpus",), before="02-05"),
    Exercise(
        "02-temperature", "What does the temperature do?",
        "The next cell computes the contrastive loss of another toy batch, with temperature 0.5 and 0.1. In this batch "
        "the nearest window of each anchor is its positive. What happens to the loss at 0.1?\n\n"
        "- A: it rises\n- B: it stays the same\n- C: it falls",
        Letters("ABC"), "C", 'answer = "C"',
        "A small temperature stretches the similarities. Where the positive is already the nearest, its share of "
        "the softmax grows, so the loss falls. Where a negative is nearest, the loss rises instead.",
        (Mistake("A", ("That would happen if a negative were nearest.",
                       "Divide by a smaller number: does the largest similarity win by more or by less?")),
         Mistake("B", ("The temperature divides every similarity before the exponential.",
                       "Differences between similarities grow. What does that do to the softmax?"))),
        ("Smaller is sharper: the softmax prefers the nearest window more.",
         "Who is nearest here, a positive or a negative?"),
        before="hand-02-temperature"),
    Exercise(
        "02-loss", "Compute a loss by hand",
        "Three windows have the embeddings (1, 0), (1, 0) and (-1, 0), and the emotions happy, happy and sad. The "
        "temperature is 0.5. What is the supervised contrastive loss? The third window has no positive, so it is no "
        "anchor. Give three decimals.",
        Number("", 1e-3), np.log1p(np.exp(-4)),
        "positive, negative = np.exp(1 / 0.5), np.exp(-1 / 0.5)\nanswer = -np.log(positive / (positive + negative))",
        "Both anchors see one positive with cosine 1 and one negative with cosine -1. The window itself is left out.",
        (Mistake(np.log1p(np.exp(-2)), ("Did every similarity go through the temperature?",
                                        "Divide both cosines by the temperature before the exponential.")),
         Mistake(np.log(2 + np.exp(-4)), ("An anchor is not compared with itself.",
                                          "The sum below the fraction has two terms here, not three.")),
         Mistake(-np.log1p(np.exp(-4)), ("A loss of this kind is never negative.", "Look at the formula's sign."))),
        ("Write down the share of the positive among all others, then take minus its logarithm.",
         "Cosines here are 1 and -1. Divide them by the temperature, then use the exponential.")),
    Exercise(
        "02-pairs", "Count anchors and pairs",
        "A batch has the emotions 0, 0, 0, 1, 1, 2. How many windows are anchors with at least one positive? How many "
        "pairs (anchor, positive) are there? Give both numbers, in this order.",
        Values("two numbers, such as (3, 3)"), (5, 8),
        "labels = np.array([0, 0, 0, 1, 1, 2])\n"
        "positive = (labels[:, None] == labels) & ~np.eye(6, dtype=bool)\n"
        "answer = (positive.any(axis=1).sum(), positive.sum())",
        "Emotion 0 gives three anchors with two positives each, emotion 1 gives two with one each. Emotion 2 stands "
        "alone and gives none.",
        (Mistake((6, 8), ("One window has no other window of its emotion.", "Such a window is no anchor.")),
         Mistake((5, 4), ("You counted each two windows once.",
                          "Of two windows of one emotion each is the anchor of the other: two pairs.")),
         Mistake((6, 14), ("You counted each window as its own positive.", "Leave the diagonal out."))),
        ("Write the matrix: which window has the same emotion as which?",
         "Leave the diagonal out. An anchor is a row with at least one entry.")),
    Exercise(
        "02-unseen", "What does the split test?",
        "A model is trained on windows of all people, and tested on other windows of the *same people and clips*. Its "
        "score is high. Which conclusion is safe?\n\n"
        "- A: it can name emotions of new people\n- B: it can name emotions for new clips\n"
        "- C: it knows windows from the clips and people of the training",
        Letters("ABC"), "C", 'answer = "C"',
        "Neighboring windows of a clip are alike for many reasons. Only held-out people *and* clips test the emotion.",
        (Mistake("A", ("No new person was tested.", "Name what was new in the test part.")),
         Mistake("B", ("No new clip was tested.", "Name what was new in the test part."))),
        ("A test speaks about what was new in it.", "Were people new? Were clips new?")),
)
