"""Text metrics with the definitions of the field, computed by the reference libraries.

Sources: Zhang, Morris, Shmatikov 2024 (token F1, BLEU, exact match); Zhang, Carlini, Ippolito 2024 (ROUGE-L recall).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

MAX_CHARACTERS = 200_000  # read of either text, as in the leak detector: far beyond any prompt, and it bounds the work
TEXT_METRICS = ("token_f1", "bleu", "rouge1", "rougeL_recall", "exact_match")


@lru_cache(maxsize=1)
def _word_tokenizer() -> tuple[Any, Any]:
    """NLTK's sentence and word tokenizers as ``nltk.word_tokenize`` joins them, with no trained data to download."""
    from nltk.tokenize import NLTKWordTokenizer
    from nltk.tokenize.punkt import PunktSentenceTokenizer

    return PunktSentenceTokenizer(), NLTKWordTokenizer()


def word_tokens(text: str) -> list[str]:
    """``nltk.word_tokenize``, case kept; sentences are split by Punkt's rules without its list of abbreviations."""
    sentences, words = _word_tokenizer()
    return [token for sentence in sentences.tokenize(text) for token in words.tokenize(sentence)]


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

    return RougeScorer(["rouge1", "rougeL"], use_stemmer=False)


def text_metrics(truth: str, reconstruction: str) -> dict[str, float]:
    """All of ``TEXT_METRICS``; every one in [0, 1] but ``bleu`` in [0, 100]."""
    exact = float(truth == reconstruction)
    truth, reconstruction = truth[:MAX_CHARACTERS], reconstruction[:MAX_CHARACTERS]
    rouge = _rouge().score(truth, reconstruction)
    return {
        "token_f1": token_f1(truth, reconstruction),
        "bleu": bleu(truth, reconstruction),
        "rouge1": float(rouge["rouge1"].fmeasure),
        "rougeL_recall": float(rouge["rougeL"].recall),
        "exact_match": exact,
    }
