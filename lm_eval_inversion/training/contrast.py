"""Teaching the inverter to read: a prompt must be likelier after its own outputs than after those of others.

The likelihood of prompts is mostly that of their wording, which outputs do not tell, so training on it alone improves the notion of what
prompts are like more than the reading of outputs (``docs/LOG.md``, "From the fifth checkpoint to the sixth"). Here each prompt of a batch
is scored after the outputs of some other examples too, its rivals, and the softmax over them must pick its own. What the wording costs is
the same in all of them and cancels. Reading outputs is most of a step's work, and each example's are read once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

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
