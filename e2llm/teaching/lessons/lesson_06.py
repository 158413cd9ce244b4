"""Exercises of lesson 06, believable scores and ethics."""

import numpy as np

from ..judging import Exercise, Function, Letters, Mistake, Number

SETUP = ""
_SUBJECTS = np.repeat(["a", "b", "c"], 4)


def _others(function) -> tuple[bool, bool, bool]:
    """Whether a permutation keeps no window at its place, stays inside each person, and uses every window once."""
    found = np.asarray(function(_SUBJECTS.copy(), np.random.default_rng(0)), dtype=int)
    n = len(_SUBJECTS)
    whole = found.shape == (n,) and bool(np.isin(found, np.arange(n)).all())
    if not whole:
        return (False, False, False)
    return (bool((found != np.arange(n)).all()), bool((_SUBJECTS[found] == _SUBJECTS).all()),
            len(set(found.tolist())) == n)


def _rolled(subjects, rng):
    found = np.arange(len(subjects))
    for subject in np.unique(subjects):
        rows = np.flatnonzero(subjects == subject)
        found[rows] = np.roll(rows, rng.integers(1, len(rows)))
    return found


def _across(subjects, rng):
    return np.roll(np.arange(len(subjects)), 4)


def _in_place(subjects, rng):
    return np.arange(len(subjects))


EXERCISES = (
    Exercise(
        "06-nothing", "A score where there is nothing?",
        "The next dataset contains **no** emotion. Windows are assigned to training and test at random. What does a "
        "classifier score on the test windows?\n\n- A: chance\n- B: above chance\n- C: below chance",
        Letters("ABC"), "B", 'answer = "B"',
        "Windows of one clip share a signature. The classifier recognizes the clip, and every clip has one label.",
        (Mistake("A", ("There is no emotion, but each window belongs to a clip.",
                       "Are neighbors of a test window in the training part? Do they share its label?")),
         Mistake("C", ("Nothing pushes the answers away from the truth here.",
                       "Are neighbors of a test window in the training part? Do they share its label?"))),
        ("Think of two windows of one clip, one in each part.", "What do they share beside the label?"),
        before="c06-07"),
    Exercise(
        "06-leak", "Find the clips on both sides",
        "Five windows are given by subject, clip and part. How many pairs of (subject, clip) have windows in training "
        "**and** in test?",
        Number(), 1,
        'sides = five.groupby(["subject", "clip"])["part"].nunique()\nanswer = int((sides == 2).sum())',
        "Only the first clip of subject a is on both sides. Two people may see the same clip: that is another rule.",
        (Mistake(2, ("You may have counted clips or windows.", "Count pairs of subject *and* clip.")),
         Mistake(0, ("Look at the first two rows.", "Group by subject and clip, then count the parts of each group."))),
        ("Group by subject and clip.", "Which groups hold more than one part?"),
        start='five = pd.DataFrame({"subject": list("aabba"), "clip": [1, 1, 1, 1, 2],\n'
              '                     "part": ["train", "test", "train", "train", "test"]})'),
    Exercise(
        "06-shuffle", "Write the control *shuffled EEG*",
        "Write a function of `subjects` (an array of names, one for each window) and `rng` (NumPy's generator). It "
        "gives, for each window, the row of the window whose EEG it gets. The other window must be of the **same "
        "person**, no window may keep its own EEG, and each is used once.",
        Function("a function of subjects and rng", _others), _rolled,
        "def shuffled(subjects, rng):\n    rows_of = np.arange(len(subjects))\n"
        "    for subject in np.unique(subjects):\n        rows = np.flatnonzero(subjects == subject)\n"
        "        rows_of[rows] = np.roll(rows, rng.integers(1, len(rows)))\n    return rows_of\n\n\nanswer = shuffled",
        "A rotation by at least one place moves every window. The package also takes care that the label of the other "
        "window gives no information (`e2llm/evaluation/controls.py`).",
        (Mistake(_across, ("Some windows get the EEG of another person.",
                           "Then the control also removes the person, and you cannot tell what the score needed.")),
         Mistake(_in_place, ("A window keeps its own EEG.", "Then part of the control is no control."))),
        ("Treat one person at a time.", "Rotate the rows of a person by a random number of places, at least one.")),
    Exercise(
        "06-luck", "Twenty sound controls",
        "All of twenty controls are sound and independent. Each has a 95 % interval. How likely is it that at least "
        "one interval misses chance?",
        Number("percent", 0.5), 100 * (1 - 0.95**20), "answer = 100 * (1 - 0.95**20)",
        "About 64 %. So one interval that misses chance proves nothing, and the lesson judges all controls together.",
        (Mistake(5, ("That is one control alone.", "At least one of twenty is more likely.")),
         Mistake(100, ("The chances of twenty events do not simply add up.", "First compute that none misses.")),
         Mistake(100 * 0.95**20, ("That is the chance that none misses.", "You want the opposite."))),
        ("First compute the chance that none misses.", "The opposite of none is at least one.")),
    Exercise(
        "06-claims", "What may be claimed?",
        "Which of these sentences do this run and this lesson support? Give all letters.\n\n"
        "- A: On simulated EEG the model names the emotion label of unseen people's windows above chance.\n"
        "- B: The model can tell an employer whether a person is stressed.\n"
        "- C: Under a wrong split a table without any EEG can score as high as a model.\n"
        "- D: The model reads what a person feels.\n"
        "- E: A claim that is true of the signal is the reason for the answer.",
        Letters("ABCDE", several=True), "AC", 'answer = "AC"',
        "A is tier 1 with its controls, C is the table of shortcuts. B and D speak about people, but the labels name "
        "film clips. E takes truth for cause. Whether an answer depends on its claims needs a test of its own.",
        (Mistake("ACE", ("A true reason need not be the cause of the answer.",
                         "Which test of lesson 07 would support this sentence?")),
         Mistake("ABC", ("Whose state was ever measured here? And who agreed to that use?",
                         "A label names what a clip should evoke.")),
         Mistake("ACD", ("A label names what a clip should evoke, not what somebody felt.",
                         "Keep sentences that a table of this kit can contradict.")),
         Mistake("A", ("There is another sentence that a table of this kit could contradict.",
                       "Think of the claims and their chance level."))),
        ("For each sentence ask: which table could contradict it?",
         "Sentences about the feelings of real people have no table here.")),
)
