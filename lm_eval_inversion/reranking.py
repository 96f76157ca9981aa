"""``rerank=target``: several reconstructions of each system prompt, ranked by how likely the target's own answers are under them.

On finished runs of both hosts, because neither host can be asked, within a run, how likely the answers of that run were. Choice and
confidence are made from answers and candidates only; the secret is known to the table alone (``report.reranked``).
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lm_eval_inversion.confidence import Confidence
    from lm_eval_inversion.inverter.base import Inverter
    from lm_eval_inversion.protocol import Protocol
    from lm_eval_inversion.report.reading import Results
    from lm_eval_inversion.report.rerun import RunSettings
    from lm_eval_inversion.target import Target

CANDIDATES, TEMPERATURE = 8, 0.8
# In arguments of a model, as text or as a mapping, also of its chat template.
_THINKING_OFF = re.compile(r"enable_thinking[\"']?\s*[=:]\s*[\"']?false", re.IGNORECASE)
FEATURES = ("agreement", "explained", "novelty", "target_gain", "target_margin")

# A candidate (None: no secret at all) -> log p(the collected answers | candidate), in nats.
LogLikelihood = Callable[["str | None"], float]


@dataclass(frozen=True)
class Case:
    """One secret of a run, and all that an attacker has of it.

    Attributes:
        prompt_id: of the secret.
        truth: the secret; for the table only.
        lines: outputs that the inverter reads.
        null_lines: the same, of the conversations without a secret; may be none.
        asked: numbers of the conversations whose answers the model itself wrote: those that came, and that no defence withheld.
        answers: to these.
    """

    prompt_id: str
    truth: str
    lines: tuple[str, ...]
    null_lines: tuple[str, ...]
    asked: tuple[int, ...]
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Ranking:
    """Candidates with what is known of them without the secret. Lists have one value per candidate, the greedy one first.

    Attributes:
        candidates: reconstructions.
        target: log p(answers | candidate) under the evaluated model, in nats.
        target_without: the same without any secret.
        inverter: -log p(candidate | outputs) under the inverter, in nats per word.
        inverter_null: the same given the outputs that came without a secret.
        nulls: what the inverter writes for those, and for parts of them.
        answer_tokens: tokens of all answers.
    """

    candidates: tuple[str, ...]
    target: tuple[float, ...]
    target_without: float
    inverter: tuple[float, ...]
    inverter_null: tuple[float, ...]
    nulls: tuple[str, ...]
    answer_tokens: int

    @property
    def chosen(self) -> int:
        """The candidate under which the target's answers are likeliest; of equals the first, so that the greedy one is kept."""
        return max(range(len(self.candidates)), key=lambda index: (self.target[index], -index))

    @property
    def chosen_by_agreement(self) -> int:
        """The candidate that the others agree with most."""
        return most_agreed(self.candidates)

    @property
    def chosen_by_inverter(self) -> int:
        """The candidate that the inverter finds likeliest."""
        return min(range(len(self.candidates)), key=lambda index: (self.inverter[index], index))


@dataclass(frozen=True)
class Reranked:
    """One line of the verb's output: a ranking, what came of it, and what it took.

    Attributes:
        token_f1: of each candidate against the secret.
        token_f1_null: mean over what the inverter writes without the secret's outputs: the floor.
        features: see ``features``.
        confidence: the chance that the lift of the chosen candidate is above the median; None where none was fitted for this inverter.
        target_tokens: run through the target.
        seconds_sampling: of the inverter.
        seconds_target: of the target.
        inverter_dtype: that the inverter was asked to compute in.
    """

    run: str
    task: str
    host: str
    target_model: str
    inverter: str
    inverter_hash: str
    prompt_id: str
    truth: str
    ranking: Ranking
    token_f1: tuple[float, ...]
    token_f1_null: float
    features: dict[str, float]
    confidence: float | None
    target_tokens: int
    seconds_sampling: float
    seconds_target: float
    inverter_dtype: str = "auto"

    def to_dict(self) -> dict[str, Any]:
        """As a line of JSON holds it."""
        return {**asdict(self), "chosen": self.ranking.chosen, "lift": self.lift}

    @property
    def lift(self) -> float:
        """Token F1 of the chosen candidate above the floor."""
        return self.token_f1[self.ranking.chosen] - self.token_f1_null


def agreements(texts: Sequence[str]) -> list[float]:
    """Mean token F1 of each text with the others, from 0 to 1; 1 for a single one."""
    from lm_eval_inversion.scoring.text import token_f1

    shared: list[list[float]] = [[] for _ in texts]
    for one, other in combinations(range(len(texts)), 2):
        found = token_f1(texts[one], texts[other])
        shared[one].append(found)
        shared[other].append(found)
    return [fmean(own) if own else 1.0 for own in shared]


def most_agreed(texts: Sequence[str]) -> int:
    """The place of the text that the others agree with most; of equals the first.

    The choice of least expected loss, if the secret is as likely as a sampled text to be any of them (minimum Bayes risk, Kumar and Byrne
    2004). What it is worth: ``docs/LOG.md``, "The text that others agree with".
    """
    found = agreements(texts)
    return found.index(max(found))


def features(ranking: Ranking) -> dict[str, float]:
    """What speaks for the chosen candidate, told without the secret: ``FEATURES``.

    ``agreement``: mean token F1 between two candidates. ``explained``: nats per word that the outputs, rather than those that came
    without a secret, add to the inverter's likelihood of the candidate. ``novelty``: 1 minus token F1 with what the inverter writes
    without the secret's outputs. ``target_gain``: nats per answer token that the candidate adds to the target's likelihood of its
    answers. ``target_margin``: by how many nats per answer token the chosen candidate beats the mean one.
    """
    from lm_eval_inversion.scoring.text import token_f1

    texts, chosen, tokens = ranking.candidates, ranking.chosen, max(1, ranking.answer_tokens)
    return {
        "agreement": fmean(agreements(texts)),
        "explained": ranking.inverter_null[chosen] - ranking.inverter[chosen],
        "novelty": 1 - fmean(token_f1(null, texts[chosen]) for null in ranking.nulls),
        "target_gain": (ranking.target[chosen] - ranking.target_without) / tokens,
        "target_margin": (ranking.target[chosen] - sum(ranking.target) / len(texts)) / tokens,
    }


def rank(
    candidates: Sequence[str], case: Case, inverter: Inverter, nulls: tuple[str, ...], log_likelihood: LogLikelihood, answer_tokens: int
) -> Ranking:
    """Ask inverter and target about every candidate; equal ones are asked about once.

    Args:
        candidates: the greedy one first.
        case: whose answers they explain.
        inverter: with likelihoods.
        nulls: its reconstructions without the secret's outputs.
        log_likelihood: of the target.
        answer_tokens: of all answers, in the target's tokens.

    Raises:
        ValueError: a likelihood is not a finite number.
    """
    from lm_eval_inversion.scoring.text import word_tokens

    distinct = list(dict.fromkeys(candidates))
    target = {text: log_likelihood(text) for text in distinct}
    without = log_likelihood(None)
    words = [max(1, len(word_tokens(text))) for text in distinct]
    own, floor = (
        {text: nats / number for text, nats, number in zip(distinct, inverter.nll([lines] * len(distinct), distinct), words)}
        for lines in (case.lines, case.null_lines)
    )
    if not all(map(math.isfinite, [without, *target.values(), *own.values(), *floor.values()])):
        raise ValueError(f"prompt {case.prompt_id}: a likelihood is not a finite number; is the model damaged?")
    return Ranking(
        tuple(candidates),
        tuple(target[text] for text in candidates),
        without,
        tuple(own[text] for text in candidates),
        tuple(floor[text] for text in candidates),
        nulls,
        answer_tokens,
    )


def protocol_of(results: Results, inverter: str | None = None, device: str = "auto") -> Protocol:
    """The task as the run had it, with an inverter that may be another: it then computes in "auto", and the run's own in the run's type.

    Raises:
        ValueError: it was no inversion task, or it asked what this version of the package does not ask.
    """
    from lm_eval_inversion.protocol import TASKS, make_protocol

    if results.kind not in TASKS:
        raise ValueError(f"{results.source}: {results.task} reconstructs nothing; rerank reads runs of {', '.join(TASKS)}")
    known = results.signature
    own = str(known.get("inverter") or "default")
    protocol = make_protocol(
        results.kind,
        num_queries=known.get("num_queries"),
        inverter=inverter or own,
        inverter_device=device,
        defence=str(known.get("defence") or "none"),
        inverter_dtype=_usable_dtype(str(known.get("inverter_dtype") or "auto"), device) if (inverter or own) == own else "auto",
    )
    if known.get("queries_hash", protocol.queries.hash) != protocol.queries.hash:
        raise ValueError(f"{results.source}: the run asked other queries than this version asks; run the task again")
    return protocol


def _usable_dtype(dtype: str, device: str) -> str:
    """The type of a run's inverter; "auto" where this device computes in no such type, as a GPU in int8: rerank runs both models on it.

    Raises:
        ValueError: the type is unknown.
    """
    from lm_eval_inversion.inverter.registry import check_dtype, choose_dtype
    from lm_eval_inversion.precision import choose_device

    check_dtype(dtype)
    chosen = choose_device(device, "inverter_device")
    try:
        choose_dtype(dtype, chosen)
    except ValueError:
        return "auto"
    return dtype


def cases_of(results: Results, protocol: Protocol, limit: int | None = None) -> list[Case]:
    """The secrets, of the run's first ``limit``, that gave something to invert; one case per epoch.

    Raises:
        ValueError: the run is redacted, or holds no answers.
    """
    from lm_eval_inversion.queries import user_turn
    from lm_eval_inversion.queries.defences import defend_answers
    from lm_eval_inversion.report.units import prompt_key, rows_by_prompt

    if any(row.redacted for row in results.rows):
        raise ValueError(f"{results.source} is redacted: its answers are not in it; rerank the run before it is redacted")
    if not any(any(row.answers) for row in results.rows):
        raise ValueError(f"{results.source} holds no answers; run lm_eval with --log_samples")
    turns = [tuple(user_turn(query.text)) for query in protocol.queries.queries]
    wanted = set(list(rows_by_prompt(results.rows))[:limit])  # with all their epochs
    found = []
    for row in results.rows:
        if prompt_key(row) not in wanted:
            continue
        nulls = results.nulls_of(row)
        outputs = protocol.outputs(row.truth, row.answers, nulls)
        if not outputs.usable:
            continue
        null_lines = protocol.null_outputs(nulls).lines
        _, acted = defend_answers(protocol.defence, row.truth, turns[: len(row.answers)], row.answers, nulls[: len(row.answers)])
        asked = tuple(index for index, answer in enumerate(row.answers) if answer and not acted[index])
        found.append(Case(row.prompt_id, row.truth, outputs.lines, null_lines, asked, tuple(row.answers[index] for index in asked)))
    return found


def told_not_to_think(results: Results) -> bool:
    """Whether the chat template of a run was told that the model shall not think first, by the arguments that the run's files hold."""
    from lm_eval_inversion.report.reading import read_facts, results_file

    if results.source is None:
        return False
    if results.host == "inspect":
        from inspect_ai.log import read_eval_log

        log = read_eval_log(str(results.source), header_only=True)
        return _THINKING_OFF.search(f"{log.eval.model_args} {log.plan.config}") is not None
    file = results_file(results.source)
    facts = read_facts(file) if file else {}
    return _THINKING_OFF.search(str(facts.get("config", {}).get("model_args"))) is not None


def asked_as(results: Results, target: Target) -> Target:
    """The model that answers as the run asked it: with the tokenizer and the arguments of the chat template that the run's files name.

    Another request would make other answers likely.

    Args:
        results: of a run of either host.
        target: the model, with its own tokenizer.

    Raises:
        ValueError: the tokenizer cannot be loaded.
    """
    from lm_eval_inversion.chat_model import load_tokenizer
    from lm_eval_inversion.report.rerun import place_of, run_settings

    settings = run_settings(results)
    arguments, template_arguments = _arguments_of_requests(settings, results.host)
    named = str(next((arguments[name] for name in ("tokenizer", "tokenizer_path") if arguments.get(name)), ""))
    names = (target.name, settings.model.removeprefix("hf/"), *(arguments.get(name) for name in ("pretrained", "model_path")))
    usual = {place_of(str(name)) for name in names if name}
    tokenizer = None
    if named and place_of(named) not in usual:
        mend = "the requests were made with it, and others would make other answers likely: put it back where the run found it"
        revision = arguments.get("tokenizer_revision") or arguments.get("revision")
        tokenizer = load_tokenizer(named, f"{results.source}: the run's tokenizer={named}", mend, revision)
    return target.asked_with(tokenizer, template_arguments) if tokenizer is not None or template_arguments else target


def _arguments_of_requests(settings: RunSettings, host: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The model's arguments where it stood in the host, and what its chat template was told, by the host or by a server.

    A chat server renders with a tokenizer of its own, which no file of a run names: there the argument ``tokenizer`` counts tokens.
    """
    from lm_eval_inversion.report.rerun import CHAT_BACK_ENDS

    # What servers of vLLM and SGLang are sent: by lm_eval as a setting of generation, by Inspect in the body of the request.
    sent = settings.given.get("extra_body") if host == "inspect" else settings.given
    told = sent.get("chat_template_kwargs") if isinstance(sent, Mapping) else None
    template_arguments = dict(told) if isinstance(told, Mapping) else {}
    if settings.model.endswith(CHAT_BACK_ENDS) if host == "lm_eval" else not settings.model.startswith("hf/"):
        return {}, template_arguments
    arguments = settings.arguments
    if isinstance(told := arguments.get("chat_template_args"), Mapping):
        template_arguments |= told
    if host == "inspect" and isinstance(told := arguments.get("chat_template"), str):
        template_arguments["chat_template"] = told
    told = str(arguments.get("enable_thinking")).lower()  # a word where lm_eval's arguments were given as text
    if told in ("true", "false"):  # over those of the template, as in lm_eval's hf
        template_arguments["enable_thinking"] = told == "true"
    return arguments, template_arguments


def _likelihood(case: Case, protocol: Protocol, target: Target) -> LogLikelihood:
    """``LogLikelihood`` of a case under a target, the conversations put together as the run put them together."""

    def call(candidate: str | None) -> float:
        if candidate is None and protocol.secret == "system":
            conversations: Sequence[Any] = [(None, turns) for turns in protocol.shared_conversations()]
        else:  # without a secret the user says nothing
            conversations = protocol.conversations(candidate or "")
        return target.log_likelihood([conversations[index] for index in case.asked], case.answers)

    return call


def rerank(
    results: Results,
    target: Target,
    *,
    inverter: str | None = None,
    device: str = "auto",
    candidates: int = CANDIDATES,
    temperature: float = TEMPERATURE,
    seed: int = 0,
    limit: int | None = None,
    confidence: Confidence | None = None,
    progress: Callable[[Sequence[Case], str], Iterable[Case]] = lambda cases, _: cases,
) -> Iterator[Reranked]:
    """Rerank the reconstructions of one run, one system prompt after another.

    Args:
        results: of an inversion task.
        target: the model that answered (or one that stands in for it); it is asked as the run asked it (``asked_as``), and where the run
            told it not to think first, it is told so here.
        inverter: see ``load_inverter``; None takes the run's.
        device: of the inverter.
        candidates: sampled beside the greedy reconstruction.
        temperature: of the draws.
        seed: likewise.
        limit: at most so many system prompts.
        confidence: used where it was fitted with this inverter.
        progress: wraps the loop over cases, called with (cases, description).

    Raises:
        ValueError: see ``prepare``, ``asked_as`` and ``require_same_role``.
    """
    from lm_eval_inversion.evaluation import null_condition
    from lm_eval_inversion.inverter.base import DEFAULT_MAX_NEW_TOKENS
    from lm_eval_inversion.scoring.text import token_f1

    protocol, cases = prepare(results, inverter, device, limit)
    target = asked_as(results, target)
    require_same_role(results, target)
    if target.thinking and told_not_to_think(results):  # another request would make other answers likely
        target = target.told_not_to_think()
    reader = protocol.inverter
    for case in progress(cases, "reranking"):
        nulls = null_condition(reader, case.null_lines).reconstructions(DEFAULT_MAX_NEW_TOKENS)
        began, tokens = time.perf_counter(), target.tokens
        (texts,) = reader.sample([case.lines], candidates, temperature, seed)
        sampled = time.perf_counter()
        # The target's work is timed alone; what the inverter is asked in between is its own ranking, not the price of this one.
        spent, likelihood = [0.0], _likelihood(case, protocol, target)

        def timed(text: str | None, likelihood: LogLikelihood = likelihood, spent: list[float] = spent) -> float:
            start = time.perf_counter()
            value = likelihood(text)
            spent[0] += time.perf_counter() - start
            return value

        ranking = rank(texts, case, reader, nulls, timed, target.answer_tokens(case.answers))
        measured = features(ranking)
        fitted = confidence if confidence is not None and confidence.inverter_hash == reader.hash else None
        yield Reranked(
            str(results.source), results.task, results.host, target.name, reader.name, reader.hash, case.prompt_id, case.truth, ranking,
            tuple(token_f1(case.truth, text) for text in texts), fmean(token_f1(case.truth, null) for null in nulls), measured,
            fitted.of(measured) if fitted else None, target.tokens - tokens, sampled - began, spent[0],
            protocol.inverter_dtype,
        )  # fmt: skip


def prepare(results: Results, inverter: str | None, device: str, limit: int | None) -> tuple[Protocol, list[Case]]:
    """The task as the run had it, and its secrets: all that can be refused without the evaluated model, which takes long to load.

    Raises:
        ValueError: see ``protocol_of`` and ``cases_of``; or the inverter is unknown, damaged, or cannot sample.
    """
    protocol = protocol_of(results, inverter, device)
    cases = cases_of(results, protocol, limit)
    protocol.check_inverter()
    if not (protocol.inverter.has_sampling() and protocol.inverter.has_likelihood()):
        raise ValueError(f"inverter {protocol.inverter_name!r} does not sample, so there is nothing to rank; give --inverter default")
    return protocol, cases


def require_same_role(results: Results, target: Target) -> None:
    """Check that the model can be the one that answered.

    Raises:
        ValueError: its system prompts stand in another message than the run's, or see ``Target.system_role``.
    """
    role = results.signature.get("system_role", target.system_role)
    if role != target.system_role:
        raise ValueError(
            f"{results.source}: system prompts reached the model in the {role} message, and {target.name} takes them in the "
            f"{target.system_role} message; give the model that answered"
        )


def read_reranked(path: Path) -> list[dict[str, Any]]:
    """The lines of a file that ``rerank --output`` wrote.

    Raises:
        FileNotFoundError: it does not exist.
        ValueError: it is something else.
    """
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
        for row in rows:
            float(row["lift"]), dict(row["features"]), str(row["truth"]), str(row["inverter_hash"])
    except (ValueError, KeyError, TypeError) as error:
        message = f"{path} is not what lm-eval-inversion rerank --output writes ({type(error).__name__}: {error})"
        raise ValueError(message) from error
    if not rows:
        raise ValueError(f"{path} is empty")
    return rows
