"""Exercises of lesson 08, the size of the language model."""

from ..judging import Exercise, Letters, Mistake, Number

SETUP = ""

EXERCISES = (
    Exercise(
        "08-kappa", "A model that always says *happy*",
        "A model gives the same answer to every window. All its wordings agree. What is Fleiss' kappa?\n\n"
        "- A: 1\n- B: 0\n- C: not defined",
        Letters("ABC"), "C", 'answer = "C"',
        "Chance agreement is 1 as well, so kappa is zero divided by zero. Agreement alone would look perfect.",
        (Mistake("A", ("How large is the agreement that chance alone gives here?",
                       "Kappa divides by one minus chance agreement.")),
         Mistake("B", ("Observed agreement and chance agreement are equal. What is below the fraction?",
                       "Kappa divides by one minus chance agreement."))),
        ("Kappa is (observed - chance) / (1 - chance).", "Put in 1 for both."),
        before="815f32be"),
    Exercise(
        "08-rate", "Scale a learning rate",
        "A model of width 96 is trained with the learning rate 0.004. Which rate does the rule of this lesson give to "
        "a model of width 256?",
        Number("", 1e-6), 0.0015, "answer = 0.004 * 96 / 256",
        "Rates are proportional to one over the width.",
        (Mistake(0.004 * 256 / 96, ("A wider model would get a larger rate.", "The rule says one *over* the width.")),
         Mistake(0.004 * (96 / 256) ** 0.5, ("The square root belongs to the initial weights.",
                                             "For rates the rule has no root.")),
         Mistake(0.004, ("The width differs.", "Multiply by the ratio of widths."))),
        ("Read the two rules of the section *Only the language model changes*.", "Rate times width stays the same.")),
    Exercise(
        "08-paired", "A paired difference",
        "Three people score 80, 40 and 60 % with one model, and 75, 35 and 56 % with another. What is the mean "
        "**paired** difference, first minus second, in points?",
        Number("points", 0.01), 14 / 3, "answer = np.mean([80 - 75, 40 - 35, 60 - 56])",
        "People differ by 40 points, but each gains 4 or 5. A paired interval does not contain what people share.",
        (Mistake(14, ("That is the sum.", "Take the mean over people.")),
         Mistake(5, ("That is the gain of a single person, or the median.", "Take the mean over people.")),
         Mistake(-14 / 3, ("Which model is subtracted from which?", "The first one scores more."))),
        ("Subtract within each person.", "Then take the mean over the three people.")),
    Exercise(
        "08-many", "Thirteen differences",
        "Thirteen differences are tested at 5 %, and in truth all are zero. How many do you expect to look "
        "*significant*? The expected number need not be whole.",
        Number("", 0.01), 0.65, "answer = 13 * 0.05",
        "More than one half. So one significant difference among thirteen is weak evidence.",
        (Mistake(0.05, ("That is a single test.", "Add over all tests.")),
         Mistake(0, ("Luck alone gives some.", "Each test has a chance of one in twenty.")),
         Mistake(1 - 0.95**13, ("That is the probability of at least one.", "Expected numbers simply add up."))),
        ("Each test has a chance of 5 %.", "Expected numbers add up.")),
)
