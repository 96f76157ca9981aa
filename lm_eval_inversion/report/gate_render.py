"""The checks of a gate as a Markdown table and as JUnit XML."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from xml.etree import ElementTree

from lm_eval_inversion.report.gate import Check, Status, outcome, ungated
from lm_eval_inversion.report.numbers import markdown_table, on_one_line, shown, shown_interval
from lm_eval_inversion.report.reading import Results
from lm_eval_inversion.report.tables import CARRIERS
from lm_eval_inversion.report.visible import visible
from lm_eval_inversion.scoring.uncertainty import LEVEL

SUITE = "lm-eval-inversion gate"


def gate_table(checks: Sequence[Check], confidence: float = LEVEL, found: Sequence[Results] = ()) -> str:
    """A Markdown table of the checks, what was read, why those that did not pass did not, and the outcome; ``found`` as in ``ungated``."""
    titles = ("status", "task", "limit", "metric", "mean", f"{100 * confidence:g} % interval", "prompts")
    rows = [
        (
            check.status.name.lower(),
            name,
            f"{check.limit.option} {check.limit.value:g}",
            check.limit.metric,
            shown(check.limit.metric, check.mean),
            shown_interval(check.limit.metric, check.low, check.high),
            f"{check.number} of {check.prompts}" + (f" {CARRIERS}" if check.noun == CARRIERS else ""),
        )
        for check, name in zip(checks, _names(checks))
    ]
    named = [(check, name) for check, name in zip(checks, _names(checks)) if check.host]
    runs = dict.fromkeys(f"{name}: {check.run}" for check, name in named)
    reasons = [
        f"{check.status.name.lower()}: {name} {check.limit.option}: {check.message}"
        for check, name in zip(checks, _names(checks))
        if check.status is not Status.PASS
    ]
    decided = outcome(checks)
    ending = f"gate: {decided.name.lower()} (exit code {decided.value})"
    lines = [*markdown_table(titles, range(4, 7), rows), "", *runs, "", *reasons, *ungated(checks, found), ending]
    return "\n".join(visible(on_one_line(line)) for line in lines)


def _names(checks: Sequence[Check]) -> list[str]:
    """Host and task of every check, numbered in order where several runs of one task are checked."""
    runs: dict[tuple[str, str], list[str]] = {}
    for check in checks:
        sources = runs.setdefault((check.host, check.task), [])
        if check.source not in sources:
            sources.append(check.source)
    names = []
    for check in checks:
        name = f"{check.host}.{check.task}" if check.host else check.task
        sources = runs[check.host, check.task]
        names.append(f"{name} [{sources.index(check.source) + 1}]" if len(sources) > 1 else name)
    return names


def junit(checks: Sequence[Check], confidence: float = LEVEL) -> str:
    """JUnit XML with one test case per task and limit: failure is a breach, skipped is inconclusive."""
    suite = _suite(Counter(check.status for check in checks), len(checks))
    for check, name in zip(checks, _names(checks)):
        case = ElementTree.SubElement(suite[0], "testcase", classname=_legal(name), name=check.limit.option.lstrip("-"), time="0")
        tag = {Status.BREACH: "failure", Status.ERROR: "error", Status.INCONCLUSIVE: "skipped"}.get(check.status)
        if tag:
            ElementTree.SubElement(case, tag, message=_legal(check.message))
        metric = check.limit.metric
        numbers = f"{metric} {shown(metric, check.mean)}, {100 * confidence:g} % interval {shown_interval(metric, check.low, check.high)}"
        ElementTree.SubElement(case, "system-out").text = _legal(
            f"{check.limit.option} {check.limit.value:g}: {numbers}, {check.number} of {check.prompts} {check.noun}; "
            f"{check.host} {check.run}"
        )
    return _xml(suite)


def junit_error(message: str) -> str:
    """JUnit XML of a gate that could not check anything, so that no older file is taken for its outcome."""
    suite = _suite(Counter({Status.ERROR: 1}), 1)
    case = ElementTree.SubElement(suite[0], "testcase", classname=SUITE, name="gate", time="0")
    ElementTree.SubElement(case, "error", message=_legal(message))
    return _xml(suite)


def _suite(statuses: Counter[Status], number: int) -> ElementTree.Element:
    counts = {
        "tests": str(number),
        "failures": str(statuses[Status.BREACH]),
        "errors": str(statuses[Status.ERROR]),
        "skipped": str(statuses[Status.INCONCLUSIVE]),
    }
    suites = ElementTree.Element("testsuites", {"name": SUITE, **counts})
    ElementTree.SubElement(suites, "testsuite", {"name": SUITE, "time": "0", **counts})
    return suites


def _xml(suites: ElementTree.Element) -> str:
    ElementTree.indent(suites)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(suites, encoding="unicode") + "\n"


_ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _legal(text: str) -> str:
    """Without the characters that XML 1.0 does not know, which a file name or a model's name may hold."""
    return _ILLEGAL.sub("\ufffd", text)
