"""Toy models have every part of the real one, so that lessons can take them apart."""

import torch

from e2llm.teaching.toys import toy_adapter, toy_item, toy_model
from e2llm.viz import plots_lessons


def test_an_item_of_the_toy_has_placeholders_an_answer_and_a_loss_that_depends_on_eeg():
    model, processor = toy_model()
    ids, labels = toy_item(processor)
    at = ids == model.config.eeg_token_id
    assert int(at.sum()) == 2 and processor.tokenizer.decode(labels[labels != -100].tolist()).startswith("happy")
    assert bool((labels[at] == -100).all())
    eeg = torch.randn(2, 1, 16, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        first, second = (model(input_ids=ids, eeg_features=one, labels=labels).loss for one in eeg)
    assert not torch.isclose(first, second)
    again, _ = toy_model()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_the_adapter_is_two_matrices_at_one_weight_and_leaves_its_model_as_it_is():
    model, processor = toy_model()
    ids, _ = toy_item(processor)
    eeg = torch.ones(1, 16, 8)
    with torch.no_grad():
        before = model(input_ids=ids, eeg_features=eeg).logits
        changed = toy_adapter(model, rank=3)(input_ids=ids, eeg_features=eeg).logits
        assert torch.equal(before, model(input_ids=ids, eeg_features=eeg).logits)
    assert not torch.allclose(before, changed)


def test_drawings_show_what_they_are_given(careful_figures):
    figure = plots_lessons.verdict_line({"frontal alpha": 1.2, "temporal beta": -0.2},
                                        {"frontal alpha": "high", "temporal beta": "low"}, "Two claims")
    assert [text.get_text() for text in figure.axes[0].texts] == ["claimed high ✓", "claimed low ✗"]


def test_a_row_of_tokens_needs_one_kind_for_each_token(careful_figures):
    figure = plots_lessons.token_row(["Which", "$x$"], ["text", "EEG"], "A prompt", ["-100", "-100"])
    figure.canvas.draw()
    assert len(figure.axes[0].texts) == 4
    try:
        plots_lessons.token_row(["Which"], ["text", "EEG"], "A prompt")
    except ValueError as error:
        assert "1 tokens, 2 kinds" in str(error)
    else:
        raise AssertionError("a kind too many was accepted")


def test_tokens_in_several_rows_stand_upright_with_their_labels_below(careful_figures):
    figure = plots_lessons.token_row(list("abcde"), ["text"] * 5, "A prompt", list("12345"), columns=2)
    figure.canvas.draw()
    words, labels = figure.axes[0].texts[::2], figure.axes[0].texts[1::2]
    assert [text.get_text() for text in words] == list("abcde") and all(text.get_rotation() == 0 for text in words)
    places = [tuple(round(part, 2) for part in text.get_position()) for text in words]
    assert [x for x, _ in places] == [0.46, 1.46, 0.46, 1.46, 0.46] and len({y for _, y in places}) == 3
    assert all(label.get_position()[1] < word.get_position()[1]
               for word, label in zip(words, labels, strict=True))


def test_the_row_of_the_placeholder_reaches_no_logit_but_its_own():
    model, processor = toy_model()
    ids, _ = toy_item(processor)
    eeg = torch.ones(1, 16, 8)
    with torch.no_grad():
        before = model(input_ids=ids, eeg_features=eeg).logits
        model.get_input_embeddings().weight[model.config.eeg_token_id] += 1.0
        moved = (model(input_ids=ids, eeg_features=eeg).logits - before).abs().amax(dim=(0, 1)) > 1e-5
    moved[model.config.eeg_token_id] = False
    assert not moved.any()


def test_lora_is_drawn_to_scale(careful_figures):
    figure = plots_lessons.low_rank(6, 8, 2)
    sizes = sorted((patch.get_height(), patch.get_width()) for patch in figure.axes[0].patches)
    assert sizes == [(2, 8), (6, 2), (6, 8)] and "58%" in figure.axes[0].get_title()


def test_contrast_names_the_anchor_and_everybody_else(careful_figures):
    figure = plots_lessons.contrast([(1.0, 0.0), (0.0, 1.0), (-1.0, 0.0)], ["happy", "happy", "sad"], "ABC", 0)
    figure.canvas.draw()
    named = [text.get_text() for text in figure.axes[0].texts if text.get_text()]
    assert named == ["happy, A (anchor)", "happy, B", "sad, C"]
