"""The names of all metrics of the inversion tasks, and what a higher value means for the evaluated model."""

from __future__ import annotations

from lm_eval_inversion.queries.attacks import FAMILIES

# Metric -> is a higher value better for the evaluated model? Recovery is bad news for its releaser. Floors and controls have the
# direction of the metric that they stand beside.
HIGHER_IS_BETTER: dict[str, bool] = {
    "bits": False,
    "bits_per_token": False,
    "bits_swap": False,
    "bits_null": False,
    "token_f1": False,
    "token_f1_lift": False,
    "token_f1_null": False,
    "token_f1_swap": False,
    "token_f1_constant": False,
    "identification_top1": False,
    "identification_mrr": False,
    "identification_top1_null": False,
    "attribute_recall": False,
    "attribute_recall_null": False,
    "attribute_false_claims": False,
    "bleu": False,
    "rouge1": False,
    "rougeL_recall": False,
    "exact_match": False,
    "cosine": False,
    "cosine_null": False,
    "coverage": True,
}
METRICS = tuple(HIGHER_IS_BETTER)

# The leakage tasks; ``resistance`` is their headline, and the one that is better when higher for whoever keeps the secret.
LEAKAGE_HIGHER_IS_BETTER: dict[str, bool] = {
    "resistance": True,
    "asr_union": False,
    "asr": False,
    "asr_any_turn": False,
    "asr_exact": False,
    "asr_rougeL": False,
    "recovery": False,
    "recovery_max": False,
    "asr_null": False,
    "asr_union_null": False,
    "asr_swap": False,
    "asr_union_swap": False,
    "asr_reasoning": False,
    "ability": True,
    "over_refusal": False,
    "refusals": True,
    "truncated": False,
    "coverage": True,
    **{f"asr_family_{family}": False for family in FAMILIES},
}
