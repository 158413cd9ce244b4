"""The wordings of every kind of question; those with ``ZERO`` in their name are never trained on."""

from __future__ import annotations

PREDICT_WORDINGS = ("Which {noun} does this segment show?", "Name the {noun} in this EEG segment.",
                    "What is the {noun} of this person?", "Read the EEG and name the {noun}.",
                    "Look at the segment. Which {noun} is it?", "This is the EEG of a person. What is the {noun}?",
                    "Say which {noun} the EEG shows.", "What {noun} does this EEG show?", "Which {noun} fits this EEG?",
                    "Read this segment. What does the person feel?")
ZERO_SHOT_WORDINGS = ("This EEG segment shows a person. Which {noun} fits?", "Look at this EEG and say the {noun}.",
                      "Which {noun} do you read in this segment?", "Read this segment and say which {noun} it shows.")
DESCRIBE_WORDINGS = ("Describe this segment.", "What does this EEG segment show?", "Describe the state of this person.")
SELECT_WORDINGS = ("Which word fits this segment?", "Choose the word that fits the segment.",
                   "Which of these words does the segment show?")
COMPARE_WORDINGS = ("Which segment is {more}?", "Which of the two segments is {more}?",
                    "Compare the segments. Which is {more}?")
RANK_WORDINGS = ("Order the segments, the one that is {more} first.", "Rank the segments from {more} to less.")
MATCH_WORDINGS = ("Which segment fits this scenario?", "Choose the segment that fits the scenario.",
                   "To which segment does the scenario belong?")
ZERO_MATCH_WORDINGS = ("Read the scenario. Which of the segments shows this person?",
                       "Which segment does this person show?", "Read this. Which of the segments is it?")
CHOOSE_WORDINGS = ("Which scenario fits this segment?", "Choose the scenario that fits the segment.")
ZERO_CHOOSE_WORDINGS = ("Read the scenarios. Which of these does the segment show?",
                         "To which scenario does this segment belong?")
SCENARIO_WORDINGS = ("Which emotion fits this scenario?", "Name the emotion of this scenario.",
                     "What does a person feel here?")
