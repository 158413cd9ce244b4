"""Exercises of lesson 00, the tour."""

from ..judging import Exercise, Letters, Mistake, Number

SETUP = """run = e2llm.Run.open(run_name)
tier_1 = pd.read_csv(run.path / "evaluation" / "tier_1.csv")"""


def _overlapping(tier_1) -> int:
    llm = tier_1.set_index("name").loc["LLM"]
    baselines = tier_1[tier_1["role"] == "baseline"]
    return int(((baselines["low"] <= llm["high"]) & (baselines["high"] >= llm["low"])).sum())


EXERCISES = (
    Exercise(
        "00-guess", "What does a guess reach?",
        "There are seven emotions, and every class counts equally. What balanced accuracy do you expect of the model "
        "**without EEG**?",
        Number("percent", 3.0), 100 / 7, "answer = 100 / 7  # 14.3 percent",
        "Without EEG the model can only guess. A guess names one of seven emotions, so it is right for one window in "
        "seven. The interval of the row *LLM, no EEG* contains this chance level.",
        (Mistake(0, ("To score zero, a model must know the right answer and avoid it.",
                     "Somebody who guesses is right now and then. How often, among seven words?")),
         Mistake(50, ("That is the guess between two answers. Count the answers here.",
                      "One over the number of answers, in percent."))),
        ("A model without EEG guesses. How many words can it choose from?",
         "Chance is one over the number of classes, in percent."),
        before="00-09"),
    Exercise(
        "00-overlap", "Is the model better than the baselines?",
        "Look at the bars of the last figure. How many rows with the role *baseline* have an interval that overlaps "
        "the interval of the row *LLM*? Use the columns `low` and `high` of `tier_1`.",
        Number(), _overlapping,
        'llm = tier_1.set_index("name").loc["LLM"]\n'
        'baselines = tier_1[tier_1["role"] == "baseline"]\n'
        'overlap = (baselines["low"] <= llm["high"]) & (baselines["high"] >= llm["low"])\n'
        "answer = int(overlap.sum())",
        "Two intervals overlap if each begins before the other ends. Where they overlap, this table does not show "
        "that the language model is better. A paired test asks this more exactly (lesson 05).",
        (Mistake(lambda tier_1: _overlapping(tier_1) + int(
            (tier_1["role"] != "baseline").sum()), ("You counted rows of other roles too.",
                                                     "Keep the rows whose `role` is baseline, then compare.")),),
        ("Two intervals overlap if each begins before the other one ends.",
         "Compare `low` of one with `high` of the other, in both directions, and count."),
        given=("tier_1",)),
    Exercise(
        "00-stage", "Which stage changes the language model?",
        "Which stage trains weights **inside** the language model?\n\n"
        "- A: stage 1, emotion-discriminative pretraining\n- B: stage 2, cross-modal alignment\n"
        "- C: stage 3, instruction tuning",
        Letters("ABC"), "C", 'answer = "C"',
        "Stage 1 trains the encoder and stage 2 the projector. Only stage 3 adds an adapter to the language model.",
        (Mistake("B", ("That stage trains the part between encoder and language model.",
                       "Read the column *out* of the table of stages. Which result belongs to the language model?")),
         Mistake("A", ("No language model takes part in that stage.",
                       "Read the column *out* of the table of stages. Which result belongs to the language model?"))),
        ("Look at the column *out* of the table of stages.", "An adapter belongs to the language model.")),
)
