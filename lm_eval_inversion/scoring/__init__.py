"""Scores of reconstructions. Every module is one kind of score; none knows a host."""

from lm_eval_inversion.scoring.text import text_metrics


def score_reconstruction(truth: str, reconstruction: str) -> dict[str, float]:
    """Compare a reconstruction with the true prompt: token_f1, bleu, rouge1, rougeL_recall, exact_match, cosine."""
    from lm_eval_inversion.scoring.embedding import cosine

    return {**text_metrics(truth, reconstruction), "cosine": cosine(truth, reconstruction)}


__all__ = ["score_reconstruction", "text_metrics"]
