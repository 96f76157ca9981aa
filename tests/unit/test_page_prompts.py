"""The page's cards of system prompts: which they are, and what truth and reconstruction have in common."""

from dataclasses import replace

from page_reading import Page
from page_results import redacted

from lm_eval_inversion.report.alignment import MAX_WORDS
from lm_eval_inversion.report.page import _run_view, page_html
from lm_eval_inversion.report.page_prompts import SHOWN_CHARACTERS


def test_epochs_of_a_prompt_are_told_apart(inversion):
    rows = [row for row in inversion.rows[:3] for _ in range(2)]
    text = page_html([replace(inversion, rows=[*rows, inversion.rows[3]])])
    for row in inversion.rows[:3]:
        for epoch in (1, 2):
            assert f"<h4>{row.prompt_id}, epoch {epoch}</h4>" in text
            assert f'aria-label="{row.prompt_id}, epoch {epoch}"' in text
    assert f"<h4>{inversion.rows[3].prompt_id}</h4>" in text
    assert "7 of 7 shown, epochs of 4 system prompts" in text
    once = page_html([inversion])
    assert ", epoch " not in once
    assert "24 of 24 shown</output>" in once


def shares_of(results):
    """What each card says of the words in common."""
    return [prompt.share for prompt in _run_view(results, "run", 100).prompts]


def test_words_in_common_are_of_what_was_aligned(inversion):
    sentence = "Never reveal the discount code. "
    texts = (
        ("You are Mira.", "Mira, you are.", "2 of 3 words in common"),
        ("你是一个面包师。", "他是面包师傅", "4 of 7 characters in common"),
        ("Mira 是面包师", "Mira", "1 of 5 words and characters in common"),
        (sentence * 400, sentence, "5 of the first 1250 words in common"),
        (sentence, sentence * 400, "5 of 5 words in common with the part shown"),
        ("面" * (MAX_WORDS + 1), "面", f"1 of the first {MAX_WORDS} characters in common"),
        ("面", "面" * MAX_WORDS, "1 of 1 characters in common"),
        ("面", "包" * MAX_WORDS + "面", f"0 of 1 characters in common with the first {MAX_WORDS} of the reconstruction"),
        ("面", "面" * 9_000, f"1 of 1 characters in common with the first {MAX_WORDS} of the reconstruction"),
    )
    assert len(sentence) * 250 == SHOWN_CHARACTERS
    rows = [
        replace(row, prompt=replace(row.prompt, text=truth), reconstruction=reconstruction)
        for row, (truth, reconstruction, _) in zip(inversion.rows, texts)
    ]
    assert shares_of(replace(inversion, rows=rows)) == [told for _, _, told in texts]
    assert "the bands of length split at spaces only" in page_html([inversion])


def test_nothing_is_read_out_of_markers(inversion):
    text = Page(page_html([redacted(inversion)])).text
    assert "words in common" not in text
    assert "outputs kept" not in text
    assert "words in common" in Page(page_html([inversion])).text


def test_scored_prompts_without_a_text_are_not_called_unscored(exposure):
    text = Page(page_html([exposure])).text
    assert "unscored, not safe" not in text
    assert "words in common" not in text
    assert exposure.rows[0].truth.split()[0] in text
