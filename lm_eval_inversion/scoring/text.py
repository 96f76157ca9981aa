"""Text metrics with the definitions of the field, computed by the reference libraries.

Sources: Zhang, Morris, Shmatikov 2024 (token F1, BLEU, exact match); Zhang, Carlini, Ippolito 2024 (ROUGE-L recall).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from lm_eval_inversion.characters import spaced
from lm_eval_inversion.scoring.subsequence import common_length, word_places

MAX_CHARACTERS = 200_000  # read of either text, as in the leak detector: far beyond any prompt, and it bounds the work
KEPT_TEXTS, KEPT_CHARACTERS = 16_384, 10_000  # tokens are kept of so many texts of at most this length: each is also a decoy of others
PART_CHARACTERS = 4_000  # tokenised at once


@lru_cache(maxsize=1)
def _word_tokenizer() -> tuple[Any, Any]:
    """NLTK's sentence and word tokenizers as ``nltk.word_tokenize`` joins them, with no trained data to download."""
    from nltk.tokenize import NLTKWordTokenizer
    from nltk.tokenize.punkt import PunktSentenceTokenizer

    return PunktSentenceTokenizer(), NLTKWordTokenizer()


def word_tokens(text: str) -> list[str]:
    """``nltk.word_tokenize``, case kept; sentences are split by Punkt's rules without its list of abbreviations.

    In scripts without spaces between words every character is a token: NLTK would take a whole text for one word.
    """
    return list(kept_tokens(text) if len(text) <= KEPT_CHARACTERS else _tokenized(text))


def _tokenized(text: str) -> tuple[str, ...]:
    sentences, words = _word_tokenizer()
    # Interned: the words of thousands of texts are few.
    return tuple(
        sys.intern(token) for part in _parts(spaced(text)) for sentence in sentences.tokenize(part) for token in words.tokenize(sentence)
    )


def _parts(text: str) -> Iterator[str]:
    """A text in parts of at most ``PART_CHARACTERS``, cut between words.

    What Punkt takes for a text grows faster than the text, and NLTK gives up by the clock: a hostile output must not end a run.
    """
    while len(text) > PART_CHARACTERS:
        space = text.rfind(" ", 1, PART_CHARACTERS)
        cut = space if space > 0 else PART_CHARACTERS
        yield text[:cut]
        text = text[cut:]
    yield text


kept_tokens = lru_cache(maxsize=KEPT_TEXTS)(_tokenized)


def token_f1(truth: str, reconstruction: str) -> float:
    """F1 of the two **sets** of word tokens, in [0, 1]; 0 when either is empty."""
    wanted, found = set(word_tokens(truth)), set(word_tokens(reconstruction))
    if not wanted or not found:
        return 0.0
    return 2 * len(wanted & found) / (len(wanted) + len(found))


@lru_cache(maxsize=1)
def _sacrebleu() -> Any:
    from sacrebleu.metrics import BLEU

    return BLEU(tokenize="13a", smooth_method="exp", effective_order=False)


def bleu(truth: str, reconstruction: str) -> float:
    """Sentence BLEU, 0 to 100: sacrebleu, 13a, exponential smoothing, effective order off.

    A corpus of one pair has the same score and spares sacrebleu's warning about effective order.
    """
    return float(_sacrebleu().corpus_score([reconstruction], [[truth]]).score)


@lru_cache(maxsize=1)
def _rouge() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rouge1"], use_stemmer=False)


def rouge(truth: str, reconstruction: str) -> tuple[float, float]:
    """F1 of ROUGE-1 and recall of ROUGE-L, in [0, 1]: rouge_score without its stemmer.

    ROUGE-L is computed here on rouge_score's words, where rouge_score itself fills a table of all pairs of words.
    """
    from rouge_score.tokenize import tokenize

    wanted = tokenize(truth, None)
    common = common_length(word_places(wanted), len(wanted), tokenize(reconstruction, None))
    recall = common / len(wanted) if wanted else 0.0
    return float(_rouge().score(truth, reconstruction)["rouge1"].fmeasure), recall


def text_metrics(truth: str, reconstruction: str) -> dict[str, float]:
    """All of them by name; every one in [0, 1] but ``bleu`` in [0, 100]."""
    exact = float(truth == reconstruction)
    truth, reconstruction = truth[:MAX_CHARACTERS], reconstruction[:MAX_CHARACTERS]
    rouge1, recall = rouge(truth, reconstruction)
    return {
        "token_f1": token_f1(truth, reconstruction),
        "bleu": bleu(truth, reconstruction),
        "rouge1": rouge1,
        "rougeL_recall": recall,
        "exact_match": exact,
    }
