"""The names under which results are published: the evaluated model's (of the run, or of ``--model-id``), and that of the metrics."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lm_eval_inversion.report.reading import Results
from lm_eval_inversion.report.rerun import API_ENDINGS, back_end_and_name, is_local

NAMESPACE = "lm_eval_inversion"  # of evaluation names, metric ids, and the folder that the datastore calls a collection
UNKNOWN = "unknown"  # the word of Every Eval Ever's schema for what a run does not say
# Back ends that run the weights themselves -> the engine that does.
ENGINES = {
    "hf": "transformers", "vllm": "vllm", "sglang": "sglang", "ollama": "ollama", "llama-cpp-python": "llama.cpp", "gguf": "llama.cpp",
}  # fmt: skip


@dataclass(frozen=True)
class Model:
    """Who was evaluated, in the words of Every Eval Ever's schema; ``published`` is False where only a local name is known."""

    id: str
    name: str
    deployment: str
    engine: str = ""
    platform: str = ""
    published: bool = True

    @property
    def developer(self) -> str:
        """The first part of the id."""
        return self.id.split("/")[0]


def check_model_id(model_id: str | None) -> None:
    """Refuse a public name that nobody could look up; None is no name, and fine.

    Raises:
        ValueError: it is not "developer/name".
    """
    if model_id is not None and not re.fullmatch(r"[\w.-]+/[\w.:/-]+", model_id):
        raise ValueError(f"--model-id {model_id!r} is not developer/name")


def identify_model(results: Results, model_id: str | None = None) -> Model:
    """Name the evaluated model as others can look it up.

    Args:
        results: of a run of either host.
        model_id: "developer/name"; None takes what the run says, without the folder of a local model.

    Raises:
        ValueError: ``model_id`` has another form, or the run does not say which model it was.
    """
    check_model_id(model_id)
    back_end, name = back_end_and_name(results)
    if not name and model_id is None:
        where = f"{results.source}: " if results.source else ""
        why = "lm_eval writes results_*.json beside the samples"
        if back_end and results.host == "lm_eval":
            why = f"its files name the back end alone, {back_end}; of most model objects from Python lm_eval writes no more"
        raise ValueError(f"{where}the run does not say which model was evaluated ({why}); give --model-id")
    provider = next((back_end.removesuffix(ending) for ending in API_ENDINGS if back_end.endswith(ending)), back_end)
    if back_end in ENGINES:
        deployment, engine, platform = "self_deployed", ENGINES[back_end], ""
    elif provider == "local" or not provider:
        deployment, engine, platform = UNKNOWN, "", ""
    else:
        deployment, engine, platform = "externally_managed", "", provider
    if model_id:
        return Model(model_id, model_id.split("/", 1)[1], deployment, engine, platform)
    if is_local(name):
        return Model(f"{UNKNOWN}/{_folder_name(name)}", _folder_name(name), deployment, engine, platform, published=False)
    if "/" in name:
        return Model(name, name.split("/", 1)[1], deployment, engine, platform)
    developer = platform or UNKNOWN
    return Model(f"{developer}/{name}", name, deployment, engine, platform, published=developer != UNKNOWN)


def _folder_name(name: str) -> str:
    return re.split(r"[/\\]", name.rstrip("/\\"))[-1] or UNKNOWN


def add_results_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of every verb that publishes results: which they are, and the public name of their model."""
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULTS", help="folders or files of lm_eval or Inspect")
    parser.add_argument(
        "--model-id", metavar="DEVELOPER/NAME",
        help="the model's public name; without it, a model from a local folder is FOLDER in the card's command, its folder's name in the "
        "index of --model-index, and unknown/NAME in exports",
    )  # fmt: skip


def require_one_model(found: Sequence[Results], model_id: str | None) -> None:
    """Refuse one name for several models.

    Raises:
        ValueError: there is a ``model_id``, and the results are of more than one model.
    """
    models = sorted({back_end_and_name(results)[1] for results in found})
    if model_id and len(models) > 1:
        raise ValueError(f"--model-id names one model, and the results are of {len(models)} ({', '.join(models)}); give those of one")
