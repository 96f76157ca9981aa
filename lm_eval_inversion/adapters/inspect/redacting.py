"""Redaction of Inspect logs: the run's own log keeps hashes and scores, and no text that comes from a system prompt."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path

import anyio.to_thread
from inspect_ai.hooks import Hooks, RunEnd, RunStart, SampleStart, TaskEnd, TaskStart, hooks
from inspect_ai.log import EvalLog, read_eval_log, write_eval_log

from lm_eval_inversion.adapters.inspect.solvers import UNSCORED
from lm_eval_inversion.redaction import (
    REDACTED_HASH,
    REDACTION_KEY,
    SECRET_KEYS,
    keyed_hash,
    redact_mapping,
    redact_text,
    redacted_length,
    run_salt,
)

logger = logging.getLogger(__name__)


def redact_log(location: str | Path, salt: bytes | None = None) -> None:
    """Write a log again without its secret texts, events and messages. It can then no longer be scored anew.

    A log that has been through here is left alone. A retried run takes metadata and samples of the log before it along and writes a
    ``prompts_hash`` of its own over the one there: so the mark of a redacted log is the very hash that was written.

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
    if metadata.get(REDACTED_HASH) == metadata["prompts_hash"]:
        return
    secrets = _prompts(log)
    record = log.model_dump(mode="json")
    digest = keyed_hash(str(metadata["prompts_hash"]), salt)
    record["eval"]["metadata"] = {**metadata, "prompts_hash": digest, REDACTED_HASH: digest, "redact": True}
    if record["error"] and not set(map(str, log.eval.dataset.sample_ids or [None])) <= secrets.keys():
        # It may quote a system prompt that no sample tells, so that nothing could be looked for: its texts go as a whole.
        record["error"] = {name: text if text == UNSCORED else redact_text(text, salt) for name, text in record["error"].items()}
    for sample in record["samples"] or []:
        # What the model was sent and said stands in many forms here, tool calls and provider's own among them: all of it goes.
        sample.update(events=[], messages=[], attachments={}, output={"model": "", "choices": []}, timelines=None)
        sample.pop("events_data", None)
        for attempt in sample.get("error_retries") or []:
            attempt["events"] = None
        found = sample["metadata"]
        if "prompts_hash" in found and redacted_length(str(found["prompt"]["text"])) is None:  # not yet redacted with an earlier attempt
            found |= {"prompts_hash": keyed_hash(str(found["prompts_hash"]), salt), REDACTION_KEY: keyed_hash("", salt)}
    write_eval_log(EvalLog.model_validate(redact_mapping(record, SECRET_KEYS, salt, secrets.values())), str(location))


def _prompts(log: EvalLog) -> dict[str, str]:
    """Id -> text of the system prompts that the samples tell. A run that broke off has fewer than were planned, or none.

    A sample that a retried run took from a redacted log tells no text either.
    """
    samples = [sample for sample in log.samples or [] if "prompt" in sample.metadata]
    found = {str(sample.id): str(sample.metadata["prompt"]["text"]) for sample in samples}
    return {name: text for name, text in found.items() if redacted_length(text) is None}


def sample_buffers(logs: Iterable[Path]) -> list[Path]:
    """Files in which Inspect keeps the samples of runs that go on or were killed; those of others it removes itself.

    Args:
        logs: beside which there are such files, too, with ``--log-shared``.
    """
    from inspect_ai._util.appdirs import inspect_data_dir

    shared = (path for folder in {log.parent for log in logs} for path in (folder / ".buffer").rglob("*"))
    return sorted(path for path in (*inspect_data_dir("samplebuffer").rglob("*.db*"), *shared) if path.is_file())


def traces() -> list[Path]:
    """What Inspect notes of its latest processes, of whatever task: errors of providers stand there with all that they quote."""
    from inspect_ai._util.appdirs import inspect_data_dir

    return sorted(inspect_data_dir("traces").glob("trace-*.log*"))


@hooks(name="lm_eval_inversion_redaction", description="Redacts the log of a task that ran with redact=true.")
class Redaction(Hooks):
    """Acts on tasks of this package whose metadata ask for it, whether they succeed, fail, break off or are tried again.

    Inspect has one object of this class for all runs of the process, and calls ``on_task_end`` only for tasks that came to their end.
    Of those that did not, and of attempts that a later one replaced, it hands over no log: these are found where their samples said
    that they would be written.
    """

    def __init__(self) -> None:
        self.private: dict[str, dict[str, str]] = {}  # run -> its tasks whose logs are still to be redacted, by id of the eval
        self.folders: dict[str, str] = {}  # run -> working directory at its start
        self.locations: dict[str, str] = {}  # id of the eval -> its log, once a sample has begun

    async def on_run_start(self, data: RunStart) -> None:
        """Remember from where the run counts the paths of its logs: tasks may run in folders of their own."""
        self.folders[data.run_id] = os.getcwd()

    async def on_task_start(self, data: TaskStart) -> None:
        """Remember a task whose log will be private."""
        metadata = data.spec.metadata or {}
        if metadata.get("redact") and "prompts_hash" in metadata:
            self.private.setdefault(data.run_id, {})[data.eval_id] = data.spec.task

    async def on_sample_start(self, data: SampleStart) -> None:
        """Remember where a private log is written."""
        from inspect_ai.log._samples import sample_active

        active = sample_active()
        if active is not None and data.eval_id in self.private.get(data.run_id, {}):
            self.locations[data.eval_id] = _absolute(active.log_location, self.folders.get(data.run_id, ""))

    async def on_task_end(self, data: TaskEnd) -> None:
        """Redact the log of a task that came to its end."""
        await self._redact(data.run_id, data.log)

    async def on_run_end(self, data: RunEnd) -> None:
        """Redact the logs of tasks that failed, and those that Inspect does not hand over, as after an interrupt or a second attempt."""
        with anyio.CancelScope(shield=True):  # an interrupt has cancelled everything, and would cancel this too
            for log in data.logs:
                await self._redact(data.run_id, log)
            left = self.private.get(data.run_id, {})
            for eval_id, task in list(left.items()):
                await self._redact_left(task, self.locations.get(eval_id))
                self._forget(data.run_id, eval_id)
        self.private.pop(data.run_id, None)
        self.folders.pop(data.run_id, None)

    def _forget(self, run_id: str, eval_id: str) -> None:
        """What becomes of a log is settled. Not earlier: after an interrupt in between, Inspect tells of the end of the run once more."""
        self.private.get(run_id, {}).pop(eval_id, None)
        self.locations.pop(eval_id, None)

    async def _redact_left(self, task: str, location: str | None) -> None:
        """Redact a log that Inspect did not hand over, if it is still there; None where no sample said where it is."""
        if location is None:
            logger.error(
                "%s ran with redact=true and broke off: its log could NOT be redacted and holds the system prompts in plain text; "
                "run: lm-eval-inversion redact LOG", task,
            )  # fmt: skip
            return
        try:
            await anyio.to_thread.run_sync(_redact_in_time, location)
        except FileNotFoundError:
            pass  # an eval-set puts the log of the next attempt in its place
        except Exception as error:
            _tell(location, error)

    async def _redact(self, run_id: str, log: EvalLog) -> None:
        """Redact a log once, if it is one of those that are still to be redacted."""
        if log.eval.eval_id not in self.private.get(run_id, {}):
            return
        try:
            await anyio.to_thread.run_sync(redact_log, log.location)
        except Exception as error:  # Inspect would swallow it, and leave a private log readable without a word
            _tell(log.location, error)
        self._forget(run_id, log.eval.eval_id)


def _absolute(location: str, folder: str) -> str:
    """A log's path, or its address where it is not on this machine."""
    location = location.removeprefix("file://")
    return location if "://" in location else os.path.join(folder, location)


def _redact_in_time(location: str) -> None:
    """Redact a log and leave the time of its last change: an eval-set keeps of the attempts at a task the one that was changed last.

    Raises:
        FileNotFoundError: it is gone.
        ValueError: it is not on this machine, where that time cannot be kept; or see ``redact_log``.
    """
    if "://" in location:
        raise ValueError("it is not on this machine")
    before = os.stat(location)
    redact_log(location)
    os.utime(location, ns=(before.st_atime_ns, before.st_mtime_ns))


def _tell(location: str, error: Exception) -> None:
    logger.error(
        "%s could NOT be redacted (%s: %s) and still holds the system prompts in plain text; run: lm-eval-inversion redact %s",
        location, type(error).__name__, error, location,
    )  # fmt: skip
