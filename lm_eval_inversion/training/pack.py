"""Pack a training run into a checkpoint folder: 4-bit weights, hashes, counts of words, the training prompts, and what packing cost.

Command::

    python -m lm_eval_inversion.training.pack --run runs/v1 --pairs pairs.jsonl --output my_checkpoint

The folder is an ``inverter=`` name. To ship it as the package's default, write it to ``lm_eval_inversion/checkpoints`` and put the
printed SHA-256 into ``DEFAULT_SHA256`` of ``inverter/registry.py``.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lm_eval_inversion.inverter.candidates import candidate_loss
from lm_eval_inversion.inverter.checkpoint import MODEL_CONFIG_KEYS, TOKENIZER_FILE, write_checkpoint
from lm_eval_inversion.inverter.packing import pack_adapter
from lm_eval_inversion.inverter.sparse_prefix import SparsePrefixInverter
from lm_eval_inversion.inverter.tokens import BlockFormat, BlockTokenizer
from lm_eval_inversion.training.adapter import ADAPTER_FILE, PACKED_BASE_FILE
from lm_eval_inversion.training.base_model import SETTINGS_FILE, read_settings
from lm_eval_inversion.training.calibration import calibration_examples, round_weights
from lm_eval_inversion.training.manifest import TRAINING_PROMPTS_FILE, manifest_of, write_training_prompts
from lm_eval_inversion.training.pairs import Pair, held_out_pairs, load_pairs, pairs_hash
from lm_eval_inversion.training.rows import read_pairs
from lm_eval_inversion.training.running import LOG_FILE
from lm_eval_inversion.training.words import counted_words


def model_description(config: Any) -> dict[str, Any]:
    """The part of a transformers config that a checkpoint keeps."""
    values = config.to_dict()
    return {key: values[key] for key in MODEL_CONFIG_KEYS if values.get(key) is not None}


def packed_weights(run: Path, training: Sequence[Pair], layout: BlockFormat) -> dict[str, Any]:
    """The weights of a finished run as a checkpoint stores them: rounded now, or rounded before training and an adapter."""
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    if (run / ADAPTER_FILE).is_file():
        packed, adapter = load_file(run / PACKED_BASE_FILE), load_file(run / ADAPTER_FILE)
        for name in {key.rpartition("|")[0] for key in adapter}:
            packed.update(pack_adapter(name, adapter[f"{name}|down"], adapter[f"{name}|up"]))
        return packed
    model = AutoModelForCausalLM.from_pretrained(run / "final", dtype="float32", trust_remote_code=False).eval()
    examples = calibration_examples(training, BlockTokenizer(run / TOKENIZER_FILE, layout))
    return round_weights(model, examples, layout)


def pack(run: Path, pairs: list[Path], output: Path) -> dict[str, Any]:
    """Write the checkpoint; returns its SHA-256, size, and its held-out nats beside those of the run before packing.

    The latter are None where the run held out other pairs, because it was trained on other files, or none, because it was evaluated on the
    dev split alone; the former are None where ``pairs`` hold out none either.

    Raises:
        ValueError: the pairs or the log cannot be read, or no pair is held out although the run held out some.
    """
    import torch
    from transformers import AutoConfig

    settings = read_settings(run)
    layout = BlockFormat(**settings["block_format"])
    training, held_out = held_out_pairs(load_pairs(pairs))
    evaluated = next((row for row in reversed(read_pairs(run / LOG_FILE)) if "nats" in row or "dev_nats" in row), None)
    if evaluated is None:
        raise ValueError(f"{run / LOG_FILE} holds no evaluation; start training.train again, which ends with one")
    if not held_out and "nats" in evaluated:
        raise ValueError(f"--pairs: none of {len(training)} pairs is held out to measure packing on; give those of the training")
    own = pairs_hash(held_out)
    prompts = {pair.prompt for pair in training if pair.prompt}
    if (run / TRAINING_PROMPTS_FILE).is_file():
        prompts.update(manifest_of(run))  # what the base had been trained on
    facts = {
        "base": settings["base"],
        "steps": settings["steps_done"],
        "prompts": len(prompts),
        "outputs": sum(len(pair.outputs) for pair in training),
    }
    config = AutoConfig.from_pretrained(run / "final", trust_remote_code=False)
    sha256 = write_checkpoint(
        output, packed_weights(run, training, layout), run / TOKENIZER_FILE,
        block_format=layout.to_dict(), model_config=model_description(config), training=facts, words=counted_words(training),
    )  # fmt: skip
    write_training_prompts(output / TRAINING_PROMPTS_FILE, prompts)
    inverter = SparsePrefixInverter.from_folder(output, name=str(output), device="cpu", dtype=torch.float32)
    return {
        **facts,
        "held_out_nats_before_packing": evaluated.get("nats") if evaluated.get("held_out", own) == own else None,
        "held_out_nats": statistics.fmean(_nats(inverter, pair) for pair in held_out) if held_out else None,
        "sha256": sha256,
        "megabytes": round(sum(path.stat().st_size for path in output.iterdir()) / 1e6, 1),
    }


def _nats(inverter: SparsePrefixInverter, pair: Pair) -> float:
    """-log p of a prompt, cut to the tokens that training reads of one."""
    import torch

    ids = inverter.tokenizer.prompt(pair.prompt or "", inverter.layout.max_prompt_tokens, pair.secret)
    with torch.inference_mode():
        prefix = inverter.encode([inverter.tokenizer.blocks(pair.outputs)])
        return candidate_loss(inverter.model, prefix, [ids], inverter.layout.prompt_position).item()


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m lm_eval_inversion.training.pack", description=__doc__.split("\n")[0])
    parser.add_argument("--run", required=True, type=Path, help="output folder of training.train")
    parser.add_argument("--pairs", required=True, type=Path, nargs="+", help="the pairs that the run was trained on")
    parser.add_argument("--output", required=True, type=Path, help="checkpoint folder to write")
    options = parser.parse_args(arguments)
    for needed in (options.run / "final", options.run / SETTINGS_FILE):
        if not needed.exists():
            parser.error(f"--run {options.run}: {needed.name} is missing; the training has not finished, start training.train again")
    try:
        found = pack(options.run, options.pairs, options.output)
    except ValueError as error:
        parser.error(str(error))
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
