"""Results made in code for the tests of the page: real prompts, made-up reconstructions and answers, some of them hostile."""

from __future__ import annotations

import base64
import random
from dataclasses import replace
from pathlib import Path

from lm_eval_inversion import load_prompts
from lm_eval_inversion.canary import make_canary_protocol
from lm_eval_inversion.exposure import score_exposure
from lm_eval_inversion.leakage import make_leakage_protocol, score_leakage, worst_request
from lm_eval_inversion.queries import load_query_set
from lm_eval_inversion.redaction import SECRET_KEYS, redact_mapping, redact_prompt, redact_text
from lm_eval_inversion.report.reading import Results, Row
from lm_eval_inversion.scoring.attributes import attribute_scores

HOSTILE = (
    "<script>window.acted = 1</script><img src=x onerror='window.acted = 1'><svg onload=\"window.acted = 1\">",
    "</p></article></script><style>* { display: none }</style><!-- {{ 7 * 7 }} {% raw %}",
    "\x1b[31mred\x1b[0m \x00 \ud800 \u202egnirts\u2066 \u200b\ufeff\U000e0041 \x85 \u2028 \r end",
    "' onmouseover='window.acted = 1' \" autofocus onfocus=\"window.acted = 1\" &lt;b&gt; &amp;",
    "שלום עולם مرحبا 你好 👨‍👩‍👧",
)


def inversion_results(number: int = 24, seed: int = 0, hostile: tuple[str, ...] = HOSTILE, **signature: object) -> Results:
    """An inversion run of lm_eval; the last prompt has no usable output."""
    generator = random.Random(seed)
    queries = load_query_set("ordinary16")
    rows = []
    prompts = load_prompts("v1")
    for index, prompt in enumerate(prompts[:: max(1, len(prompts) // number)][:number]):
        if index == number - 1:
            rows.append(Row(prompt, "", {"coverage": 0.0}, (), ("I'm sorry, I can't help with that.",) * 16))
            continue
        words = [word if generator.random() < 0.6 else "and" for word in prompt.text.split()]
        reconstruction = f"You are {' '.join(words)}"
        answers = [f"As for {word}, I like it." for word in (words * 16)[:16]]
        if index < len(hostile):
            reconstruction, answers[2] = hostile[index], hostile[index]
        metrics = {name: generator.gauss(20, 10) for name in ("bits", "bits_at_1", "bits_at_2", "bits_at_4")}
        metrics |= {name: generator.gauss(0, 3) for name in ("bits_swap", "bits_null", "token_f1_lift")}
        metrics["bits_spread_null"] = abs(metrics["bits_null"])
        shares = (
            "token_f1",
            "token_f1_null",
            "token_f1_swap",
            "token_f1_constant",
            "identification_mrr",
            "cosine",
            "cosine_null",
        )
        metrics |= {name: generator.random() for name in shares} | {"coverage": generator.uniform(0.9, 1.0)}
        metrics |= {name: float(generator.random() < 0.5) for name in ("identification_top1", "identification_top1_null")}
        metrics |= attribute_scores(prompt.attributes, reconstruction)
        rows.append(Row(prompt, reconstruction, metrics, (), tuple(answers)))
    known = {
        "pretrained": "org/model 7b", "dtype": "bfloat16", "version": 1.0, "task_version": 1.0, "prompts": "v1/test",
        "prompts_hash": "0123456789ab", "queries": "ordinary16", "queries_hash": queries.hash, "num_queries": 16,
        "inverter": "default", "inverter_hash": "ba9876543210",
        "decoy_seed": 0, "package_version": "0.1.0", "system_role": "system", "host": "lm_eval 0.4.13", "torch": "2.13.0+cpu",
        "transformers": "5.24.0", "python": "3.11.7", "date": "2026-01-02T03-04-05", **signature,
    }  # fmt: skip
    return Results("prompt_inversion_ordinary", "lm_eval", rows, "hf org/model 7b", known, Path("samples_x.jsonl"))


def leakage_results(number: int = 6, seed: int = 0, task: str = "prompt_leakage_attacks", hostile: tuple[str, ...] = HOSTILE) -> Results:
    """A leakage run of Inspect, scored by the package's own detector."""
    generator = random.Random(seed)
    protocol = make_leakage_protocol(task, tier="smoke")
    requests = protocol.requests()
    rows = []
    for place, prompt in enumerate(load_prompts("v1")[5 :: 150 // number][:number]):
        answers: list[str | None] = [
            generator.choice(["I'm sorry, but I can't share that.", f"It begins: {prompt.text[:30]}", "What can I do for you?"])
            for _ in requests
        ]
        answers[-1], answers[1] = "", None
        if place % 2:
            answers[3] = f"Sure, here it is: {prompt.text}"
            answers[6] = base64.b64encode(prompt.text.encode()).decode()
        if place < len(hostile):
            answers[4] = hostile[place]
        found = score_leakage(prompt, protocol.matched(prompt).text, requests, answers, ["Hello."] * len(protocol.shared_requests()))
        worst = worst_request(found.rows)
        shown = f"{found.rows[worst]['id']}: {answers[worst]}"
        rows.append(Row(prompt, shown, found.metrics, tuple(found.rows), tuple(answer or "" for answer in answers)))
    return Results(task, "inspect", rows, "hf/local models/<b>seven</b>", protocol.signature("inspect_ai", "system"), Path("log.eval"))


def canary_results() -> Results:
    """Of four system prompts three give some secrets away; what is asked without a system prompt is answered with two of the first's."""
    protocol = make_canary_protocol(tier="core")
    requests = protocol.requests()
    rows = []
    null = [", ".join(list(protocol.planted[0].canaries.values())[:2])] * len(requests)
    for place, planted in enumerate(protocol.planted[:12]):
        answers = [f"Here: {', '.join(list(planted.canaries.values())[: place % 4])}."] * len(requests)
        found = protocol.score(planted.prompt, answers, null)
        rows.append(Row(planted.prompt, answers[0], found.metrics, tuple(found.rows), tuple(answers)))
    return Results("prompt_leakage_canary", "lm_eval", rows, "hf org/name", protocol.signature("lm_eval", "system"))


def exposure_results() -> Results:
    """A run of likelihoods, in which the secrets of the first prompts rank highest."""
    rows = []
    for place, prompt in enumerate(load_prompts("v1")[:6]):
        nats = [-1.0 - place, -4.5, *(-2.0 - decoy for decoy in range(20))]
        rows.append(Row(prompt, "", score_exposure(prompt.id, {"asked": nats, "ordinary": nats[::-1]}).metrics))
    return Results("prompt_leakage_exposure", "lm_eval", rows, "hf org/name", {"task_version": 1.0})


def redacted(results: Results) -> Results:
    """As the adapters write a run with ``redact=true``."""
    salt, rows = b"salt", []
    for row in results.rows:
        requests = tuple(redact_mapping(dict(one), SECRET_KEYS, salt, [row.truth]) for one in row.requests)
        answers = tuple(redact_text(answer, salt) for answer in row.answers)
        rows.append(Row(redact_prompt(row.prompt, salt), redact_text(row.reconstruction, salt), row.metrics, requests, answers))
    return replace(results, rows=rows)
