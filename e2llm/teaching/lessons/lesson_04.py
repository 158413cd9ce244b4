"""Exercises of lesson 04, instruction tuning."""

from ..judging import Exercise, Letters, Mistake, Number, Values

SETUP = ""

EXERCISES = (
    Exercise(
        "04-logits", "Does a placeholder keep its own embedding?",
        "The placeholder `<|eeg|>` has a row in the table of word embeddings, like any other token. At its end the "
        "next cell changes this row. What happens to the logits of all other words of the vocabulary, in a prompt with "
        "EEG?\n\n"
        "- A: nothing\n- B: they change a little\n- C: they change as much as with other EEG",
        Letters("ABC"), "A", 'answer = "A"',
        "Every placeholder's embedding is replaced before the language model reads anything. Only the logit of "
        "`<|eeg|>` itself moves, for the table of embeddings is also the last layer.",
        (Mistake("B", ("Follow the embedding of a placeholder. Does the language model ever see it?",
                       "Look at `by_hand[at]` in the next cell: what happens to the old values?")),
         Mistake("C", ("The projected EEG does not depend on that row.",
                       "Look at `by_hand[at]` in the next cell: what happens to the old values?"))),
        ("What does the language model read at a placeholder?", "Its row of the table is overwritten."),
        before="hand-04-placeholders"),
    Exercise(
        "04-mask", "Mask the labels",
        "A prompt has the ids 5, 6, 7. The answer has the ids 8, 9. The model is trained on the answer only. Write the "
        "list of labels, one a token, each at the place of its own token. This answer has no end mark.",
        Values("a list of five numbers"), [-100, -100, -100, 8, 9], "answer = [-100, -100, -100, 8, 9]",
        "A label of -100 has no loss. The shift by one happens inside the loss, not in the labels.",
        (Mistake([-100, -100, 8, 9, -100], ("You shifted the labels.", "The loss shifts. Labels stand at their ids.")),
         Mistake([5, 6, 7, -100, -100], ("This trains on the question.", "Which part should the model learn?")),
         Mistake([0, 0, 0, 8, 9], ("0 is the id of a token, so it would be learned.",
                                   "Use the number that the loss ignores. It is printed in the section by hand.")),
         Mistake([5, 6, 7, 8, 9], ("This has a loss everywhere.", "The prompt must not be learned."))),
        ("Labels have the length of the ids.", "The prompt gets the number that the loss ignores.")),
    Exercise(
        "04-rank", "Count LoRA's numbers",
        "A weight has the shape (6, 8): eight inputs, six outputs. LoRA of rank 2 adds two matrices. How many numbers "
        "does it train?",
        Number(), 28, "answer = 2 * 8 + 6 * 2",
        "A has the shape (rank, inputs), B has the shape (outputs, rank).",
        (Mistake(48, ("That is the full weight, which stays frozen.", "Write down the shapes of A and B.")),
         Mistake(14, ("That is rank 1.", "Every rank adds one column and one row.")),
         Mistake(96, ("You multiplied. The two matrices are stored separately.", "Add their sizes."))),
        ("Write down the shapes of both matrices.", "A maps the inputs to the rank, B maps the rank to the outputs."),
        before="hand-04-lora"),
    Exercise(
        "04-scale", "Apply LoRA by hand",
        "W is the 2 x 2 identity. A = [[1, 1]], B = [[1], [0]], rank 1, alpha 2. What is the output for the input "
        "x = (1, 2)?",
        Values("two numbers, such as (0, 0)"), (7, 2),
        "x, w, a, b = np.array([1, 2]), np.eye(2), np.array([[1, 1]]), np.array([[1], [0]])\n"
        "answer = w @ x + 2 / 1 * b @ (a @ x)",
        "The frozen weight gives (1, 2). A maps x to 3, B puts it into the first output, and alpha / rank doubles it.",
        (Mistake((4, 2), ("The correction is not scaled.", "Multiply it by alpha / rank.")),
         Mistake((6, 0), ("That is the correction alone.", "The frozen weight takes part as well.")),
         Mistake((1, 2), ("That is the frozen weight alone.", "Add the product of B, A and x, scaled."))),
        ("Compute A x first. It is one number.", "Output = W x + (alpha / rank) B (A x).")),
    Exercise(
        "04-chance", "Chance of a new task",
        "You add the task *Which of the two segments has more occipital alpha?* Which accuracy does a guess reach, if "
        "A and B are drawn at random?",
        Number("percent", 0.5), 50, "answer = 100 / 2",
        "Two options are equally often right. The number of emotions plays no role here.",
        (Mistake(100 / 7, ("Emotions are not the options here.", "Count the answers that this question allows.")),
         Mistake(100 / 3, ("A *typical* level is no option of this question.", "Count the segments."))),
        ("Count the possible answers.", "One over the number of answers, in percent.")),
)
