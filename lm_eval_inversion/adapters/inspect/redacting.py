"""Redaction of Inspect logs: the run's own log keeps hashes and scores, and no text that comes from a system prompt."""

from __future__ import annotations

import logging
from pathlib import Path

import anyio.to_thread
from inspect_ai.hooks import Hooks, TaskEnd, hooks
from inspect_ai.log import EvalLog, read_eval_log, write_eval_log

from lm_eval_inversion.redaction import SECRET_KEYS, keyed_hash, redact_mapping, run_salt

logger = logging.getLogger(__name__)


def redact_log(location: str | Path, salt: bytes | None = None) -> None:
    """Write a log again without its secret texts, events and messages. It can then no longer be scored anew.

    Args:
        location: the log.
        salt: of the run; None makes a new one.

    Raises:
        ValueError: the log is not of a task of this package.
    """
    salt = run_salt() if salt is None else salt
    log = read_eval_log(str(location), resolve_attachments="full")
    metadata = log.eval.metadata or {}
    if "prompts_hash" not in metadata:
        raise ValueError(f"{location} is not a log of one of this package's tasks; there is nothing known to be secret in it")
    secrets = [str(sample.metadata["prompt"]["text"]) for sample in log.samples or [] if "prompt" in sample.metadata]
    record = log.model_dump(mode="json")
    record["eval"]["metadata"] = {**metadata, "prompts_hash": keyed_hash(str(metadata["prompts_hash"]), salt), "redact": True}
    for sample in record["samples"] or []:
        # What the model was sent and said stands in many forms here, tool calls and provider's own among them: all of it goes.
        sample.update(events=[], messages=[], attachments={}, output={"model": "", "choices": []}, timelines=None)
        sample.pop("events_data", None)
        for attempt in sample.get("error_retries") or []:
            attempt["events"] = None
    write_eval_log(EvalLog.model_validate(redact_mapping(record, SECRET_KEYS, salt, secrets)), str(location))


def sample_buffers() -> list[Path]:
    """Databases in which Inspect keeps the samples of runs that go on or were killed; those of others it removes itself."""
    from inspect_ai._util.appdirs import inspect_data_dir

    return sorted(path for path in inspect_data_dir("samplebuffer").rglob("*.db*") if path.is_file())


@hooks(name="lm_eval_inversion_redaction", description="Redacts the log of a task that ran with redact=true.")
class Redaction(Hooks):
    """Acts on tasks of this package whose metadata ask for it; a cancelled or crashed run is redacted by ``lm-eval-inversion redact``."""

    async def on_task_end(self, data: TaskEnd) -> None:
        """Redact the finished log."""
        if (data.log.eval.metadata or {}).get("redact"):
            try:
                await anyio.to_thread.run_sync(redact_log, data.log.location)
            except Exception as error:  # Inspect would swallow it, and leave a private log readable without a word
                logger.error(
                    "%s could NOT be redacted (%s: %s) and still holds the system prompts in plain text; run: lm-eval-inversion redact %s",
                    data.log.location, type(error).__name__, error, data.log.location,
                )  # fmt: skip
