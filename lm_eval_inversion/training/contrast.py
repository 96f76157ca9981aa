"""Teaching the inverter to read: a prompt must be likelier after its own outputs than after those of others.

The likelihood of prompts is mostly that of their wording, which outputs do not tell, so training on it alone improves the notion of what
prompts are like more than the reading of outputs (``docs/LOG.md``, "From the fifth checkpoint to the sixth"). Here each prompt of a batch
is scored after the outputs of some other examples too, its rivals, and the softmax over them must pick its own. What the wording costs is
the same in all of them and cancels. Reading outputs is most of a step's work, and each example's are read once.

Prompts of other trades are soon told apart. ``alike_together`` makes rivals of those that are most alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch

from lm_eval_inversion.training.pairs import Example

SOFTNESS = 10.0  # nats by which a likelihood ratio counts as one: prompts that are told apart by much more have nothing to learn here


def with_rivals(prompts: Sequence[list[int]], rivals: int) -> list[list[list[int]]]:
    """What is scored after each example's outputs: its own prompt, then those of the ``rivals`` examples that follow, around the batch.

    Raises:
        ValueError: there are not so many others.
    """
    if rivals >= len(prompts):
        raise ValueError(f"{rivals} rivals of each prompt need a batch of more than {rivals} examples, not {len(prompts)}")
    return [[prompts[(example + place) % len(prompts)] for place in range(rivals + 1)] for example in range(len(prompts))]


def contrast(nats: torch.Tensor, prompts: Sequence[list[int]], informed: Sequence[bool]) -> torch.Tensor:
    """Nats that it costs, on average, to pick each prompt's own outputs among those of its rivals: a scalar, summed over prompts.

    Args:
        nats: (examples, 1 + rivals), of the prompts in the order of ``with_rivals``.
        prompts: of every example; whoever has the same one is no rival.
        informed: whether an example's outputs were answers under its prompt; where not, there is nothing to pick, and they are no rivals
            either: a prompt must not become unlikely where nothing is told of it, or bits above that would grow without any reading.
    """
    number, places = nats.shape
    # By prompt: after its own outputs, then after those of the examples before it.
    by_prompt = torch.stack([nats[:, place].roll(place) for place in range(places)], 1)
    no_rival = [
        [place > 0 and (prompts[own - place] == prompts[own] or not informed[own - place]) for place in range(places)]
        for own in range(number)
    ]
    scores = (-by_prompt / SOFTNESS).masked_fill(torch.tensor(no_rival, device=nats.device), -torch.inf)
    costs = torch.logsumexp(scores, 1) - scores[:, 0]
    return SOFTNESS * costs[torch.tensor(informed, dtype=torch.bool, device=nats.device)].sum()


def alike_together(stream: Iterator[Example], size: int, pool: int, embed: Callable[[Sequence[str]], Any]) -> Iterator[Example]:
    """The same examples in another order: of each ``pool`` of them, those with the most similar prompts stand in groups of ``size``.

    A group is an example, in the order of the stream, and those most like it that no group has yet. Examples that are no rivals, because
    they have the same prompt or because outputs tell of only one of them, come last, so that a group has as many rivals as can be.

    Args:
        stream: as ``pairs.examples`` gives them, without end.
        size: examples of a group, which is a micro-batch.
        pool: a multiple of ``size``.
        embed: texts to unit-length vectors (texts, width).
    """
    while chunk := list(islice(stream, pool)):
        vectors = embed([example.prompt for example in chunk])
        alike = vectors @ vectors.T
        for one, example in enumerate(chunk):
            for two, other in enumerate(chunk):
                if example.prompt == other.prompt or example.informed != other.informed:
                    alike[one, two] -= 2.0  # behind all others, which are at least -1
        left = list(range(len(chunk)))
        while left:
            first, *others = left
            nearest = [others[place] for place in np.argsort(-alike[first, others], kind="stable")[: size - 1]]
            yield from (chunk[place] for place in (first, *nearest))
            left = [place for place in others if place not in nearest]
