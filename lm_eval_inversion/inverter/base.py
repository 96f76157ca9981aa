"""What an inverter is: outputs of a model in, the system prompt they betray out."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, Literal, TypeVar

Secret = Literal["system", "user"]  # what outputs are inverted to: a system prompt, or the message of a user
OutputSets = Sequence[Sequence[str]]
Own = TypeVar("Own", bound="Inverter")
DEFAULT_MAX_NEW_TOKENS = 256


def check_pairs(outputs: OutputSets, prompts: Sequence[str]) -> None:
    """Raise ``ValueError`` unless there is one set of outputs per prompt, as ``Inverter.nll`` needs it."""
    if len(outputs) != len(prompts):
        raise ValueError(f"{len(outputs)} sets of outputs and {len(prompts)} prompts; give one set of outputs per prompt")


def equal_outputs(outputs: OutputSets) -> dict[tuple[str, ...], list[int]]:
    """Which pairs have the same outputs: outputs -> their places."""
    places: dict[tuple[str, ...], list[int]] = {}
    for index, lines in enumerate(outputs):
        places.setdefault(tuple(lines), []).append(index)
    return places


WORK = ("invert", "nll", "token_nll", "sample")


class Turn:
    """A lock that the same thread may take again, as ``nll`` does that calls ``token_nll``; a copy of an inverter gets one of its own."""

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[type[Turn], tuple[()]]:
        return Turn, ()


def _one_at_a_time(work: Callable[..., Any]) -> Callable[..., Any]:
    """A method that waits until no other thread works with the inverter."""

    @wraps(work)
    def wait_and_work(self: Inverter, *arguments: Any, **keywords: Any) -> Any:
        with self.lock:
            return work(self, *arguments, **keywords)

    return wait_and_work


class Inverter(ABC):
    """Reads outputs and writes system prompts.

    Threads may share one: Inspect runs several tasks at once, and all of them score with the same object. Its work (``WORK``) waits for
    its turn, also in a subclass that says nothing of threads. One that spreads its work over threads of its own must not call its ``WORK``
    from those: they would wait for the caller, who waits for them.

    Attributes:
        name: how the inverter was asked for ("default", a folder, ...).
        hash: first digits of the checkpoint's SHA-256 (or of the baseline's definition); part of every result's signature.
        lock: held while the inverter works, by the thread that it works for; whoever holds it for several calls has the inverter alone.
    """

    name: str
    hash: str

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        for name in set(WORK) & vars(cls).keys():
            setattr(cls, name, _one_at_a_time(vars(cls)[name]))

    @property
    def lock(self) -> Turn:
        """See the class; made at its first use, because subclasses need not call ``__init__``."""
        turn: Turn = self.__dict__.setdefault("_turn", Turn())
        return turn

    @abstractmethod
    def invert(
        self, outputs: OutputSets, max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS, batch_size: int | None = None
    ) -> list[str]:
        """One reconstruction per system prompt.

        Args:
            outputs: for each system prompt its n outputs; n may differ, and may be 0.
            max_new_tokens: the longest reconstruction, in the inverter's tokens.
            batch_size: prompts decoded together; None chooses. In float32 it does not change the result.
        """

    def nll(self, outputs: OutputSets, prompts: Sequence[str]) -> list[float]:
        """-log p(prompt | outputs) in nats, one per pair.

        Raises:
            NotImplementedError: the inverter has no likelihood (baselines).
            ValueError: the two sequences differ in length.
        """
        return [sum(nats) for nats in self.token_nll(outputs, prompts)]

    def token_nll(self, outputs: OutputSets, prompts: Sequence[str]) -> list[list[float]]:
        """The parts of ``nll``: -log p of every token of a prompt and of its end, given those before it and the outputs, in nats.

        Raises:
            NotImplementedError: the inverter has no likelihood (baselines), or none of single tokens.
            ValueError: the two sequences differ in length.
        """
        raise NotImplementedError(f"inverter {self.name!r} has no likelihood: bits and identification need a trained inverter")

    def word_evidence(self, outputs: OutputSets, prompts: Sequence[str]) -> list[float]:
        """What the words of outputs say of prompts beside ``nll``, in nats, one per pair; 0 for inverters that count no words.

        Identification adds it to the likelihood; bits are of the likelihood alone.

        Raises:
            ValueError: the two sequences differ in length.
        """
        check_pairs(outputs, prompts)
        return [0.0 for _ in prompts]

    def sample(
        self, outputs: OutputSets, number: int, temperature: float, seed: int, max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS
    ) -> list[list[str]]:
        """Per system prompt one greedy reconstruction and ``number`` sampled ones, in this order.

        Args:
            outputs: as of ``invert``.
            number: of sampled reconstructions.
            temperature: of the draws, above 0.
            seed: of the draws; they depend on it and on the prompt's own outputs, not on their order or on the other prompts.
            max_new_tokens: the longest reconstruction, in the inverter's tokens.

        Raises:
            NotImplementedError: the inverter cannot sample (baselines, the paper's architecture).
            ValueError: the number is negative, or the temperature not above 0.
        """
        raise NotImplementedError(f"inverter {self.name!r} does not sample: give a trained inverter, such as inverter=default")

    def of(self, secret: Secret) -> Inverter:
        """The inverter for texts of a kind; itself, where kinds make no difference to it. One that shares its model goes ``beside`` it."""
        return self

    def beside(self, other: Own) -> Own:
        """Let another inverter of the same model, which is returned, wait for the work of this one too."""
        other.__dict__["_turn"] = self.lock
        return other

    @classmethod
    def has_likelihood(cls) -> bool:
        """Whether ``nll`` works."""
        return cls.nll is not Inverter.nll or cls.token_nll is not Inverter.token_nll

    def has_word_evidence(self) -> bool:
        """Whether ``word_evidence`` says anything."""
        return type(self).word_evidence is not Inverter.word_evidence

    def has_sampling(self) -> bool:
        """Whether ``sample`` works."""
        return type(self).sample is not Inverter.sample
