"""What was asked in a run and what was answered, as the page's script shows it: which text, how much of it, and what was found in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lm_eval_inversion.leakage import TIERS, attacks_of_tier
from lm_eval_inversion.queries import QuerySet, load_query_set, query_set_names
from lm_eval_inversion.queries.attacks import ATTACK_SETS, attacks_hash, load_attacks
from lm_eval_inversion.report.defences import defence_of, handed_out_answers
from lm_eval_inversion.report.numbers import shown
from lm_eval_inversion.report.reading import Results
from lm_eval_inversion.report.visible import visible
from lm_eval_inversion.scoring.metrics import WITHHELD
from lm_eval_inversion.thinking import strip_thinking

ANSWER_CHARACTERS = 4_000  # of one answer
ANSWERS_BUDGET = 24_000_000  # characters of answers on a page; with more, every answer is cut shorter
LEAST_ANSWER_CHARACTERS = 160
BEFORE_DEFENCE = "as before the defence"  # of answers where what was handed out is not known
_MARK = "\ufdd1"  # a noncharacter, which stands in no text
HandedOut = tuple[list[str], list[bool]]  # see ``handed_out_answers``


def queries_of(results: Results) -> QuerySet | None:
    """The queries of an inversion run, if this version of the package has them unchanged."""
    known = results.signature
    if known.get("queries") not in query_set_names():
        return None
    try:
        queries = load_query_set(str(known["queries"])).first(known.get("num_queries"))
    except ValueError:
        return None
    return queries if known.get("queries_hash") in (None, queries.hash) else None


def handed_out_by_prompt(results: Results, queries: QuerySet | None) -> list[HandedOut] | None:
    """Per system prompt of an inversion run what its defence handed out; None where that cannot be told from what is known of the run."""
    defence = defence_of(results)
    # Markers of a redacted run say nothing of what a guard found in the answers.
    if queries is None or defence is None or any(row.redacted for row in results.rows):
        return None
    return [handed_out_answers(results, row, queries, defence) for row in results.rows]


def answer_characters(results: Sequence[Results]) -> int:
    """The longest answer that is shown whole, so that a page of many runs stays small enough to open."""
    number = sum(len(row.answers) for found in results for row in found.rows)
    return min(ANSWER_CHARACTERS, max(LEAST_ANSWER_CHARACTERS, ANSWERS_BUDGET // max(1, number)))


def asked_and_answered(
    results: Results, queries: QuerySet | None, handed_out: list[HandedOut] | None, limit: int
) -> tuple[list[list[str]], list[list[list[Any]]]]:
    """What was asked, as [id, text], and per prompt the answers, as [request, findings, before, leaked part, after, characters cut].

    The page's script writes them when a reader opens them: thousands of answers would otherwise slow the page down.
    """
    if not any(row.requests for row in results.rows):
        asked = [[visible(query.id), visible(query.text)] for query in queries.queries] if queries else []
        shown = []
        defence = defence_of(results)
        unknown = BEFORE_DEFENCE if defence is None or defence.guard else ""
        for number, row in enumerate(results.rows):
            answers = row.answers[: len(asked)] if asked else row.answers
            told = [WITHHELD if acted else "" for acted in handed_out[number][1]] if handed_out else [unknown] * len(answers)
            shown.append([[place, told[place], *_cut_answer(answer, None, limit)] for place, answer in enumerate(answers)])
        longest = max(map(len, shown), default=0)
        return asked or [[str(place + 1), ""] for place in range(longest)], shown
    ids = list(dict.fromkeys(str(request["id"]) for row in results.rows for request in row.requests))
    texts = _attack_texts(results)
    places = {name: place for place, name in enumerate(ids)}
    shown = []
    for row in results.rows:
        answers = row.answers if len(row.answers) == len(row.requests) else ("",) * len(row.requests)
        shown.append([
            [places[str(request["id"])], visible(findings(request)), *_cut_answer(answer, request, limit, row.truth)]
            for request, answer in zip(row.requests, answers)
        ])  # fmt: skip
    return [[visible(name), visible(texts.get(name, ""))] for name in ids], shown


def _attack_texts(results: Results) -> dict[str, str]:
    """Last message of every attack of a run, of a shipped set that has not changed since; files that a result names are not opened."""
    known = results.signature
    if known.get("attacks") not in ATTACK_SETS:
        return {}
    attacks = load_attacks(str(known["attacks"]))
    if known.get("tier") in TIERS:
        attacks = attacks_of_tier(attacks, str(known["tier"]))
    if known.get("attacks_hash") not in (None, attacks_hash(attacks)):
        return {}
    return {attack.id: str(attack.turns[-1]["content"]) for attack in attacks}


def findings(request: dict[str, Any]) -> str:
    """What was found in the answer to one request, in words."""
    if request.get("state") != "answered":
        told = [{"empty": "empty answer", "error": "no answer arrived"}.get(str(request.get("state")), "")]
        return ", ".join(told + ["leaked in its reasoning"] * bool(request.get("leaked_in_reasoning")))
    told = [WITHHELD] if request.get("defended") else []
    told += [f"recovery {shown('recovery', request['recovery'])}"] if "recovery" in request else []
    if request.get("leaked") and request.get("arm") == "attack":
        told.append("leaked")
    if request.get("decoder") not in (None, "plain"):
        told.append(f"read as {request['decoder']}")
    told += [word for key, word in (("refused", "refused"), ("truncated", "breaks off")) if request.get(key)]
    if request.get("leaked_in_reasoning"):
        told.append("leaked in its reasoning")
    return ", ".join(told)


def _cut_answer(answer: str, request: dict[str, Any] | None, limit: int, truth: str = "") -> list[Any]:
    """[before, leaked part, after, characters cut off]; the leaked part is where the detector says that it stands as it is.

    Args:
        truth: the system prompt, whose own think tags mark no reasoning.
    """
    start = end = 0
    span: Sequence[Any] = (request or {}).get("span") or ()
    # In a redacted run there is nothing in the places of the two numbers; behind a guard they are places in what was handed out instead.
    if not (request or {}).get("defended") and [type(place) for place in span] == [int, int] and (request or {}).get("decoder") == "plain":
        # The span counts from where the answer begins once its reasoning is gone.
        offset = _place_of_final(answer, truth)
        if offset >= 0:
            start, end = offset + int(span[0]), offset + int(span[1])
    shown = answer[: max(0, limit)]
    parts = [visible(part) for part in (shown[:start], shown[start:end], shown[end:])]
    return [*parts, max(0, len(answer) - limit)]


def _place_of_final(answer: str, truth: str) -> int:
    """Where in an answer begins what it says without its reasoning, which may hold the same words before or after; -1 where in one piece
    it stands nowhere."""
    final = strip_thinking(answer, truth)
    place = answer.rfind(final) if final else -1
    # A mark before the right place, and before no other, comes first in what is said.
    while place >= 0 and strip_thinking(f"{answer[:place]}{_MARK}{answer[place:]}", truth) != f"{_MARK}{final}":
        place = answer.rfind(final, 0, place + len(final) - 1)
    return place
