"""Which runs of one task can be compared, and by what settings they are told apart, in words for people.

``compare`` pairs two runs by system prompt and tests their differences; here only the settings of any number of runs are looked at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from lm_eval_inversion.report.compare import MUST_MATCH, differing_arguments, sampling
from lm_eval_inversion.report.reading import Results
from lm_eval_inversion.report.rerun import public_signature

# What must agree for two runs of a task to be comparable, and what ``compare`` does not warn of, because it may be the very thing that is
# compared: of runs that only stand on one page nobody has said so.
COMPARABLE = (*MUST_MATCH, "package_version", "num_queries", "canary_seed", "tier", "inverter_dtype", "inverter_samples", "defence")


def comparability(results: Sequence[Results]) -> list[str]:
    """Per task with several runs, what they do not share: such runs cannot be compared without a thought."""
    told = []
    for runs in _by_kind(results):
        task = runs[0].task if len({found.task for found in runs}) == 1 else runs[0].kind
        if different := _differing_values(runs):
            # What differs in its full text alone, as the folder of a file, reads the same everywhere.
            named = (f"{key} ({'; '.join(dict.fromkeys(values))})" if len(set(values)) > 1 else key for key, values in different.items())
            told.append(f"{task}: the runs differ in {', '.join(named)}")
        if samplings := _differing_samplings(runs):
            told.append(f"{task}: the runs differ in sampling ({'; '.join(filter(None, samplings))}), which moves scores")
        if arguments := differing_arguments(runs):
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
        settings = _differing_values(runs) | differing_arguments(runs)
        samplings = _differing_samplings(runs) or [""] * len(runs)
        for place, found in enumerate(runs):
            own = [f"{key.replace('_', ' ')} {values[place]}" for key, values in settings.items() if len(set(values)) > 1]
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


def _differing_samplings(runs: Sequence[Results]) -> list[str]:
    """How each run was sampled, "" where that is not known; empty where all that are known agree."""
    samplings = [sampling(found) for found in runs] if len(runs) > 1 else []
    return list(samplings) if len(set(filter(None, samplings))) > 1 else []
