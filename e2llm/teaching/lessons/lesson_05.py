"""Exercises of lesson 05, evaluation."""

from ..judging import Exercise, Letters, Mistake, Number, Values

SETUP = ""

EXERCISES = (
    Exercise(
        "05-majority", "What does the majority reach?",
        "Suppose that 30 % of the windows are *happy*, and a classifier always says *happy*. There are seven emotions. "
        "*Balanced accuracy* is the mean over emotions of the share that is answered rightly. What is it here? The "
        "next table has such a row.",
        Number("percent", 0.5), 100 / 7, "answer = (100 + 6 * 0) / 7",
        "It finds all windows of one class and none of six. The mean over classes is one seventh.",
        (Mistake(30, ("That is the plain accuracy.", "Balanced accuracy is a mean over classes, not over windows.")),
         Mistake(0, ("It is right for one class.", "Take the mean over seven classes.")),
         Mistake(100, ("That is the share for one class.", "Take the mean over seven classes."))),
        ("First find the share of right answers for each class.", "Then take the mean over all seven classes."),
        before="98395206"),
    Exercise(
        "05-balanced", "Compute a balanced accuracy",
        "Of ten windows of class 0 a model names 8 correctly. Of two windows of class 1 it names 1 correctly. What is "
        "its balanced accuracy?",
        Number("percent", 0.1), 65, "answer = 100 * (8 / 10 + 1 / 2) / 2",
        "The rare class counts as much as the frequent one.",
        (Mistake(75, ("That is the plain accuracy over all windows.", "Compute one share for each class first.")),
         Mistake(80, ("That is one class alone.", "Take the mean with the other class."))),
        ("Compute the share of right answers for each class.", "Then take the mean of the two shares.")),
    Exercise(
        "05-flaw", "Which flaw would raise *no EEG*?",
        "The row *no EEG* rises far above chance. Which flaw can explain it?\n\n"
        "- A: the training part holds windows of the test people\n"
        "- B: the wording of a question depends on its answer\n- C: the clips of the test part were in training",
        Letters("ABC"), "B", 'answer = "B"',
        "Without EEG the model has the question alone. A and C need the EEG of the window to help.",
        (Mistake("A", ("What does the model get in this control?", "Without EEG it cannot recognize a person.")),
         Mistake("C", ("What does the model get in this control?", "Without EEG it cannot recognize a clip."))),
        ("In this control the model gets a text and nothing else.", "So the information must stand in the text.")),
    Exercise(
        "05-holm", "Correct for several tests",
        "Three tests give p = 0.01, 0.04 and 0.03. Correct them by Holm's method. Give the three corrected values in "
        "the same order.",
        Values("three numbers", 1e-6), (0.03, 0.06, 0.06),
        "from e2llm.evaluation.metrics import holm\n\nanswer = holm(np.array([0.01, 0.04, 0.03]))",
        "The smallest p is multiplied by 3, the next by 2, the largest by 1. No corrected p may be smaller than one "
        "before it, so 0.04 becomes 0.06.",
        (Mistake((0.03, 0.12, 0.09), ("That is Bonferroni: every p times three.",
                                      "Holm multiplies the second smallest by a smaller number.")),
         Mistake((0.03, 0.04, 0.06), ("One larger p now has a smaller corrected value.",
                                      "A corrected p is at least as large as those of smaller p.")),
         Mistake((0.01, 0.04, 0.03), ("These are not corrected.", "Sort them, then multiply by 3, 2 and 1."))),
        ("Sort the three values. The smallest is multiplied by three.",
         "The next by two, the largest by one. They may not fall on the way.")),
)
