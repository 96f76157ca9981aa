"""Which runs of one task can be compared, and by what settings they are told apart, in words for people.

``compare`` pairs two runs by system prompt and tests their differences; here only the settings of two or more runs are looked at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from lm_eval_inversion.report.reading import Results
from lm_eval_inversion.report.rerun import RunSettings, public_arguments, public_generation, public_signature, run_settings
from lm_eval_inversion.signature import LOCAL_ARGUMENTS
from lm_eval_inversion.tasks import BASE_TASK

# Key of the signature -> what goes wrong when two runs do not share it.
MUST_MATCH = {
    "task_version": "numbers of different task versions do not compare",
    "inverter_hash": "bits and reconstructions of different inverters do not compare",
    "prompts_hash": "the runs had other sets of system prompts, and only those in both are paired",
    "queries_hash": "the models were asked different questions",
    "attacks_hash": "the models were attacked differently",
    "canaries_hash": "other secrets were planted",
    "decoy_seed": "identification ran among other decoys",
    "system_role": "the system prompt reached the models in different turns",
}
# Says nothing about comparability: moments, places, and what is said in other words already.
UNIMPORTANT = ("date", "description", "config_source", "version", "pretrained", "inverter_device", "seed", BASE_TASK, LOCAL_ARGUMENTS)
# Names of the model among its arguments, which the heads of runs tell.
NAMES_OF_MODEL = ("pretrained", "model", "model_path")
# What must agree for two runs of a task to be comparable, and what ``compare`` does not warn of, because it may be the very thing that is
# compared: of runs that only stand on one page nobody has said so.
COMPARABLE = (*MUST_MATCH, "package_version", "num_queries", "canary_seed", "tier", "inverter_dtype", "defence")


def signature_differences(a: Results, b: Results) -> tuple[list[str], list[str]]:
    """What makes two runs, "A" and "B", incomparable, and what else they do not share."""
    cautions: list[str] = []
    warnings: list[str] = []
    others: list[str] = []
    for name, results in (("A", a), ("B", b)):
        if results.caution:
            cautions.append(f"{name}: {results.caution}")
        if not results.signed:
            warnings.append(
                f"{name} ({results.source}) carries no signature (lm_eval's results_*.json is not beside it): comparability unknown"
            )
    if warnings:
        return [*cautions, *warnings], others
    warnings = cautions
    for key, reason in MUST_MATCH.items():
        own, other = a.signature.get(key), b.signature.get(key)
        if own != other:
            warnings.append(f"{key} differs ({_shown(own)} in A, {_shown(other)} in B): {reason}")
    # Of both: what only one of them has written down may be what sets them apart.
    for key in dict.fromkeys((*a.signature, *b.signature)):
        own, other = a.signature.get(key), b.signature.get(key)
        if own != other and key not in MUST_MATCH and key not in UNIMPORTANT:
            others.append(f"{key}: {_shown(own)} in A, {_shown(other)} in B")
    settings = [run_settings(results) for results in (a, b)]
    for name, (own, other) in differing_arguments(settings).items():
        if name not in a.signature and name not in b.signature:  # lm_eval's signature has them
            others.append(f"model argument {name}: {own} in A, {other} in B")
    # Another host, and a server beside a model that the host loads, draw in another way from the same seed.
    alike = a.host == b.host and len({bool(one.sent_seed) for one in settings}) == 1
    seeds = [one.seed for one in settings]
    if alike and all(seeds) and seeds[0] != seeds[1]:
        others.append(f"seed: {seeds[0]} in A, {seeds[1]} in B")
    samplings = [sampling(one) for one in settings]
    if all(samplings) and samplings[0] != samplings[1]:
        warnings.append(f"sampling differs ({samplings[0]} in A, {samplings[1]} in B): how answers are made moves scores")
    return warnings, others


def sampling(settings: RunSettings) -> str:
    """How a run's answers were sampled, such as "temperature 0.7, max_tokens 64"; "" where its files do not say."""
    return ", ".join(f"{name} {value}" for name, value in public_generation(settings).items())


def differing_arguments(settings: Sequence[RunSettings]) -> dict[str, tuple[str, ...]]:
    """Arguments of models that runs do not share -> one value per run, without keys and places; {} where the files of one do not say.

    The names of the models are not among them.
    """
    if RunSettings() in settings:
        return {}
    known = [public_arguments(one.arguments) for one in settings]
    names = dict.fromkeys(name for arguments in known for name in arguments if name not in NAMES_OF_MODEL)
    values = {name: tuple(arguments.get(name, "not given") for arguments in known) for name in names}
    return {name: found for name, found in values.items() if len(set(found)) > 1}


def _shown(value: Any) -> str:
    return "not given" if value is None else str(value)


def comparability(results: Sequence[Results]) -> list[str]:
    """Per task with several runs, what they do not share: such runs cannot be compared without a thought."""
    told = []
    for runs in _by_kind(results):
        settings = [run_settings(found) for found in runs]
        task = runs[0].task if len({found.task for found in runs}) == 1 else runs[0].kind
        if different := _differing_values(runs):
            # What differs in its full text alone, as the folder of a file, reads the same everywhere.
            named = (f"{key} ({'; '.join(dict.fromkeys(values))})" if len(set(values)) > 1 else key for key, values in different.items())
            told.append(f"{task}: the runs differ in {', '.join(named)}")
        if samplings := _differing_samplings(settings):
            told.append(f"{task}: the runs differ in sampling ({'; '.join(filter(None, samplings))}), which moves scores")
        if arguments := differing_arguments(settings):
            told.append(f"{task}: the runs differ in arguments of the model ({', '.join(arguments)})")
        if len(runs) > 1 and not all(found.signed for found in runs):
            told.append(
                f"{task}: what the runs share is not known, because some have no results_*.json of lm_eval beside their samples"
            )
    return told


def distinctions(results: Sequence[Results]) -> list[str]:
    """Per run, in words, the settings that the runs of its task do not share; "" where they share all that is known.

    Models are not looked at, because the page names them beside this. Runs that have the model, and what can be said of their settings, in
    common are told apart by their places on the page.
    """
    told: dict[int, str] = {}  # by identity: the same run may be given twice
    for runs in _by_kind(results):
        settings = [run_settings(found) for found in runs]
        differing = _differing_values(runs) | differing_arguments(settings)
        samplings = _differing_samplings(settings) or [""] * len(runs)
        for place, found in enumerate(runs):
            own = [f"{key.replace('_', ' ')} {values[place]}" for key, values in differing.items() if len(set(values)) > 1]
            told[id(found)] = ", ".join(filter(None, (*own, samplings[place])))
    names = [(found.model, found.task, found.host, told[id(found)]) for found in results]
    number = Counter(names)
    return [", ".join(filter(None, (name[-1], f"run {place}" if number[name] > 1 else ""))) for place, name in enumerate(names, 1)]


def _by_kind(results: Sequence[Results]) -> list[list[Results]]:
    """Runs of one task of this package together, whatever their users called it."""
    return [[found for found in results if found.kind == kind] for kind in dict.fromkeys(found.kind for found in results)]


def _differing_values(runs: Sequence[Results]) -> dict[str, tuple[str, ...]]:
    """What must agree and does not -> one value per run, without keys and places."""
    known = [public_signature(found) for found in runs]
    different = [key for key in COMPARABLE if len({str(found.signature.get(key)) for found in runs}) > 1]
    return {key: tuple(values.get(key, "not given") for values in known) for key in different}


def _differing_samplings(settings: Sequence[RunSettings]) -> list[str]:
    """How each run was sampled, "" where that is not known; empty where all that are known agree."""
    samplings = list(map(sampling, settings))
    return samplings if len(set(filter(None, samplings))) > 1 else []
