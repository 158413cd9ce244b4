"""Exercises of lesson 07, reasoning."""

from ..judging import Exercise, Letters, Mistake, Number

SETUP = ""

EXERCISES = (
    Exercise(
        "07-read", "Which sentences are read?",
        "The next cell gives sentences to the parser. Which of these four become a claim? Give all letters.\n\n"
        "- A: Occipital alpha is low.\n- B: Occipital alpha may be low.\n"
        "- C: A drop in alpha over the occipital region.\n- D: Occipital alpha is not low.",
        Letters("ABCD", several=True), "AC", 'answer = "AC"',
        "B is hedged and D is negated. Neither says which level holds, so neither can be true or false.",
        (Mistake("ABC", ("One of them says what may be, not what is.", "Such a sentence can never be false.")),
         Mistake("ACD", ("One of them says only what does not hold.", "Is *not low* typical, or high?")),
         Mistake("A", ("One more sentence names a region, a band and a level.",
                       "A noun can state a level too, as *a rise* does."))),
        ("A claim names region, band and level.", "Hedged and negated sentences give no claim."),
        before="c07-05"),
    Exercise(
        "07-chance", "How often is a random claim true?",
        "A text says *occipital alpha clearly high*. It is compared with a random window of the same person. Its z is "
        "normal, with mean 0 and standard deviation 1. How likely is the claim to be true? It may be one level off. "
        "*Rather high* begins at z = 0.7. Of such a z, 75.8 % lie below 0.7, and 93.3 % below 1.5.",
        Number("percent", 1.5), 24.2,
        "from scipy.stats import norm\n\nanswer = 100 * norm.sf(0.7)",
        "*Clearly high* is true of *rather*, *clearly* and *very* high: from z = 0.7 on, in about 24 % of windows. "
        "*Rather high* is also true of *typical*: from -0.7 to 2.5, in about 75 %. *Very high* is true from 1.5 on, in "
        "about 7 %. The chance level in the figure is a mean over all claims of the texts.",
        (Mistake(50, ("A claim is not a choice between low and high alone.", "A feature can also be typical.")),
         Mistake(100 / 3, ("Low, typical and high are not equally frequent.",
                           "How much of a normal curve lies above 0.7?")),
         Mistake(48.4, ("That counts both sides.", "The text says on which side.")),
         Mistake(75.8, ("That is the part below the threshold.", "The claim is true above it.")),
         Mistake(6.7, ("That begins at *clearly high*.", "One level off is *rather high*. Where does that begin?"))),
        ("Sketch a normal curve and mark 0.7.", "Take the area above it, on one side."),
        before="c07-09",
        then="Most claims say *rather*, which is true more often. The next section says what that does to chance."),
    Exercise(
        "07-precision", "Judge a thought by hand",
        "z of a window: frontal alpha +1.2, occipital alpha -0.5, temporal beta -2.3. The thought says: *frontal alpha "
        "high, occipital alpha low, temporal beta high*. How large is its precision, in percent? The levels are "
        "plain, so none may be one off.",
        Number("percent", 0.5), 100 / 3, "answer = 100 * 1 / 3",
        "Frontal alpha is true. Occipital alpha is typical, because -0.5 lies between the thresholds. Temporal beta is "
        "low.",
        (Mistake(200 / 3, ("Is -0.5 low already?", "Low begins at -0.7.")),
         Mistake(100, ("Look at each sign.", "Temporal beta is far below zero.")),
         Mistake(0, ("Compare each z with -0.7 and +0.7.", "A claim is true beyond the threshold on its own side."))),
        ("Write the level of each feature first: low, typical or high.", "Then count the claims that agree.")),
    Exercise(
        "07-recall", "And its recall?",
        "*Salient* evidence has |z| of at least 2. z of another window: frontal beta -3.7, temporal beta -3.2, frontal "
        "alpha +2.3, parietal theta +1.1. The thought says: *frontal beta low, parietal theta high*. How large is its "
        "recall, in percent?",
        Number("percent", 0.5), 100 / 3, "answer = 100 * 1 / 3",
        "Three features are salient and one of them is mentioned. Parietal theta is true but not salient.",
        (Mistake(50, ("You divided by the number of claims or of all features.", "Divide by the salient features.")),
         Mistake(200 / 3, ("One of the two claims is about a feature that is not salient.",
                           "Count salient features that are mentioned.")),
         Mistake(100, ("That is the precision.", "Recall asks what is missing."))),
        ("First find the salient features.", "Which share of them does the thought mention?")),
    Exercise(
        "07-cause", "True, but a cause?",
        "Every claim of a thought is true and the answer is right. Then the claims are turned round, and the answer "
        "stays. What follows?\n\n- A: the claims caused the answer\n"
        "- B: the claims are true, but the answer does not depend on them\n- C: the claims were false",
        Letters("ABC"), "B", 'answer = "B"',
        "Truth compares claims with the signal. Dependence compares the answer with changed claims. They are two "
        "questions with two tests.",
        (Mistake("A", ("If a cause is changed, what should happen to its effect?", "The answer stayed.")),
         Mistake("C", ("The signal said that they are true.", "A change of the text does not change the signal."))),
        ("Two things were tested: truth and dependence.", "Which test was passed, and which was not?")),
)
