"""Why the numbers of a log of Inspect may not be what was measured, although the run came to its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lm_eval_inversion.prompts.loading import HUB_PREFIX, PROMPT_SETS, prompts_hash
from lm_eval_inversion.redaction import REDACTED_HASH, REDACTION_KEY
from lm_eval_inversion.report.numbers import cut
from lm_eval_inversion.signature import HASH_ENDING

if TYPE_CHECKING:
    from lm_eval_inversion.prompts import SystemPrompt
    from lm_eval_inversion.report.reading import Row

SHOWN_VALUE = 40  # characters of a value of a score's metadata in a sentence


def doubts_of(log: Any, rows: Sequence[Row], scores: Sequence[Any], signed: Sequence[str] = ()) -> tuple[str, ...]:
    """One sentence for each reason to doubt a log, with what mends it.

    Args:
        log: of Inspect, with its samples.
        rows: what was read of it.
        scores: the scores that were read.
        signed: keys of the scores' metadata that must be the same in all of them, because the log is signed with one value of each.
    """
    samples = log.samples or []
    stopped = Counter(sample.limit.type for sample in samples if sample.limit is not None)
    invalid = sum(sample.invalidation is not None for sample in samples)
    edited = sum(bool(score.history) for score in scores)
    told = []
    if _is_mixed(log, rows):
        told.append(
            "Samples are of other system prompts than the log is signed with; was the prompts file changed before inspect eval-retry? "
            "Run the task again."
        )
    if other := _asked_otherwise(log, rows):
        told.append(
            f"Samples were not all asked what the log is signed with ({', '.join(other)}): were they changed, or this package, before "
            "inspect eval-retry? Run the task again."
        )
    if differing := _scored_otherwise(scores, signed):
        told.append(
            f"Samples were not all scored in the same way ({'; '.join(differing)}), and the log is signed with the last: was the package "
            "or the inverter changed before inspect eval-retry? Score the log again, or run the task again."
        )
    if stopped:
        told.append(
            f"A limit of Inspect ({', '.join(sorted(stopped))}) stopped {stopped.total()} of {len(samples)} samples: what it was too late "
            "for was never asked. Run the task again with a higher one."
        )
    if invalid:
        told.append(f"{invalid} of {len(samples)} samples were marked invalid after the run; inspect eval-retry asks them again.")
    if edited:
        told.append(f"{edited} of {len(scores)} scores were edited after the run: their metrics are not what was measured.")
    return tuple(told)


def _asked_otherwise(log: Any, rows: Sequence[Row]) -> list[str]:
    """What samples of a log were asked otherwise than it is signed with; prompts apart, whose hashes are redacted (``_is_mixed``).

    Samples say what they were made with. Those of older logs do not, but all samples of a run are asked the same.
    """
    metadata, samples = log.eval.metadata or {}, log.samples or []
    found = [
        key.removesuffix(HASH_ENDING)
        for key, value in metadata.items()
        if key.endswith(HASH_ENDING) and key != "prompts_hash" and any(sample.metadata.get(key, value) != value for sample in samples)
    ]
    if any(row.redacted for row in rows):  # whose questions may be markers of several keys
        return found
    for key in ("requests", "queries"):
        asked = [sample.metadata[key] for sample in samples if key in sample.metadata]
        if not found and any(other != asked[0] for other in asked):
            found.append(key)
    return found


def _scored_otherwise(scores: Sequence[Any], signed: Sequence[str]) -> list[str]:
    """The keys whose values are not the same in all scores, with these values; an inverter's are places, which stay untold."""
    told = []
    for key in signed:
        values = list(dict.fromkeys(str(score.metadata[key]) for score in scores if key in (score.metadata or {})))
        if len(values) > 1:
            told.append(key if key == "inverter" else f"{key} {' and '.join(cut(value, SHOWN_VALUE) for value in values)}")
    return told


def _is_mixed(log: Any, rows: Sequence[Row]) -> bool:
    """Whether a log of Inspect is signed with other system prompts than its samples are of.

    ``inspect eval-retry`` takes the samples of the log before it along and loads the prompts anew. Samples say which they were made with;
    of older logs, whose samples do not, it can be told only of whole runs in the order of their file that hold the texts, and only files
    are changed between two attempts.
    """
    metadata, config = log.eval.metadata or {}, log.eval.config
    made_with = [sample.metadata for sample in log.samples or [] if "prompts_hash" in sample.metadata]
    signed = {(found.get(REDACTION_KEY), found["prompts_hash"]) for found in made_with}
    # Redacted hashes are comparable under one key only: attempts that each had a random one tell nothing. The log's own is that of the
    # samples which the last attempt asked, and stands there without its key.
    if "prompts_hash" in metadata and metadata.get(REDACTED_HASH) != metadata["prompts_hash"]:
        signed.add((None, metadata["prompts_hash"]))
    if len(signed) > len({key for key, _ in signed}):
        return True
    source = str(metadata.get("prompts", "")).rpartition("/")[0]
    if not source or source in PROMPT_SETS or source.startswith(HUB_PREFIX):
        return False
    if config.limit is not None or config.sample_id is not None or config.sample_shuffle or any(row.redacted for row in rows):
        return False
    known: dict[str, SystemPrompt] = {}
    if any(known.setdefault(row.prompt_id, row.prompt) != row.prompt for row in rows):  # in several epochs
        return True
    names = [str(name) for name in log.eval.dataset.sample_ids or []]
    return set(names) == known.keys() and prompts_hash([known[name] for name in names]) != metadata.get("prompts_hash")
