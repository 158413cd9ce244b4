"""E²-LLM: from EEG to an emotion, with reasons that can be checked against the signal (arXiv 2601.07877).

An encoder turns four seconds of EEG into tokens. A small projector maps these tokens into the space of a language
model. The language model first states measured evidence ("occipital alpha low"), then names an emotion. Every such
claim is compared with the signal, and every score stands beside its chance level and its controls.

The whole pipeline, on simulated EEG. It needs no download and takes about eight minutes on two cores::

    import e2llm

    run = e2llm.Run.open("first")  # all that is made lies in runs/first/; a finished stage is not made again
    e2llm.preprocess(run, "seed-vii", e2llm.simulate("data/twin"))  # recordings -> windows of 4 s
    split_settings = {"protocol": "joint"}  # the test part has subjects and clips that no training sees
    e2llm.train_encoder(run, e2llm.open_dataset(run, split_settings), split_settings)  # stage 1
    dataset = e2llm.open_dataset(run)  # now with the evidence that the encoder predicts
    e2llm.make_language_model(run, dataset)  # loads e2llm-tiny, which was taught from text alone
    e2llm.align(run, dataset)  # stage 2: the projector
    e2llm.instruct(run, dataset)  # stage 3: the adapter; the model learns to give reasons
    e2llm.instruct_second_pass(run, dataset)  # answers from the stated reasons alone
    print(e2llm.readable(e2llm.evaluate(run, dataset)["tier_1"]))  # scores, intervals, baselines, controls
    print(e2llm.E2LLM.of_run(run, dataset).ask(0, "Which emotion does this segment show?"))

Without arguments each function uses the defaults of the command line: ``e2llm run`` executes the same stages as
lessons (``notebooks/``), and ``e2llm run --help`` lists every parameter. For your own recordings give
:func:`e2llm.preprocess` another kind of source ("folder", "bids", "faced", ...) and its folder.

Where things lie (a folder imports only from folders above it):

============== =====================================================================================
``core``       bands, channels, labels; claims, their thresholds and verdicts; files
``data``       recordings -> windows -> a dataset with its split; simulation, normalization, audit
``models``     EEG encoder, projector, language model, inference; tensors in, tensors out
``tasks``      questions and their wordings, scenarios, thoughts; the parser of thoughts
``training``   one file a stage, losses, augmentation, the training loop
``evaluation`` predictions in, tables out: tiers, baselines, controls, checks of the explanations
``viz``        figures, HTML and widgets
``app``        run folders, the stages as functions, command line, sharing of models, the conversation
``teaching``   exercises that check an answer, quizzes, toy models for lessons
============== =====================================================================================

The names below are imported when they are first used, so ``import e2llm`` is fast. ``help(e2llm.align)`` explains one.
"""

import importlib
import sys

from .core.environment import end_with_parent, wait_politely

wait_politely()  # before torch is loaded
end_with_parent()  # where the command line started this process
__version__ = "0.1.0"

_NAMES = {  # module: what stands at the front door
    "app.runs": "Progress Run StageMissing",
    "app.stages": "align instruct load_encoder load_tokens make_language_model open_aligned open_dataset "
    "open_instructed open_language preprocess train_encoder",
    "app.evaluation_stage": "evaluate",
    "app.second_pass_stage": "instruct_second_pass",
    "app.reasoning_stage": "ReasoningParams evaluate_reasoning",
    "app.fold_reasons": "reasons_over_folds",
    "app.pretraining_stage": "pretrain",
    "app.chat_session": "E2LLM",
    "app.thought_session": "E2LLMFromThought",
    "app.pipeline": "run_pipeline",
    "core.files": "project_root",
    "core.tables": "read_predictions",
    "core.verdicts": "verdicts",
    "data.audit": "LeakError",
    "data.checks": "read_quality",
    "data.gate": "first_trial",
    "data.preprocess_params": "PreprocessParams",
    "data.preprocessing": "Windows",
    "data.simulation": "TwinParams simulate truth_folder",
    "data.sources": "open_source parse_options",
    "data.splits": "make_split",
    "evaluation.from_thought": "price_table",
    "evaluation.tiers": "readable score_of",
    "models.device": "use_device",
    "models.inference": "InferenceEngine",
    "models.language": "ScratchParams",
    "tasks.items": "ItemBuilder",
    "teaching.exercises": "check",
    "teaching.quiz_panel": "quiz",
    "teaching.toys": "toy_adapter toy_item toy_model",
    "training.feedback": "FeedbackParams",
    "training.pretraining": "PretrainParams",
    "training.losses": "HeadParams supervised_contrastive_loss",
    "training.second_pass": "SecondPassParams",
    "training.stage3_instruction": "AdapterParams",
    "training.trainer": "FitParams",
    "viz.plots": "plots",
    "viz.plots_evidence": "plots_evidence",
    "viz.plots_explore": "plots_explore",
    "viz.plots_ideas": "plots_ideas",
    "viz.plots_lessons": "plots_lessons",
    "viz.plots_model_size": "plots_model_size",
    "viz.plots_pretraining": "plots_pretraining",
    "viz.plots_quality": "plots_quality",
    "viz.style": "use_style",
    "viz.widgets": "widgets",
}
_HOME = {name: module for module, names in _NAMES.items() for name in names.split()}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    """Import a name of the front door when it is first used (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'e2llm' has no attribute {name!r}: dir(e2llm) lists what it has.")
    # The Tab key makes jedi ask for every value, and to import all takes longer than JupyterLab waits for names.
    asked_by_tab = sys._getframe(1).f_globals.get("__name__", "").startswith("jedi.")
    if asked_by_tab and f"{__name__}.{_HOME[name]}" not in sys.modules:
        raise AttributeError(f"e2llm.{name} is not loaded yet.")
    module = importlib.import_module(f".{_HOME[name]}", __name__)
    globals()[name] = found = module if _HOME[name].endswith(f".{name}") else getattr(module, name)
    return found


def __dir__() -> list[str]:
    """Names of the front door, for completion and ``help``."""
    return sorted({*globals(), *__all__})
