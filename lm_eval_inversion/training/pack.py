"""Pack a training run into a checkpoint folder: 4-bit weights, hashes, the training prompts, and what packing cost.

Command::

    python -m lm_eval_inversion.training.pack --run runs/v1 --pairs pairs.jsonl --output my_checkpoint

The folder is an ``inverter=`` name. To ship it as the package's default, write it to ``lm_eval_inversion/checkpoints`` and put the
printed SHA-256 into ``DEFAULT_SHA256`` of ``inverter/registry.py``.
"""

from __future__ import annotations

import argparse
import json
import lzma
import statistics
from pathlib import Path
from typing import Any

from lm_eval_inversion.inverter.checkpoint import write_checkpoint
from lm_eval_inversion.inverter.packing import pack_state, unpack_state
from lm_eval_inversion.inverter.tokens import BlockFormat, BlockTokenizer

TRAINING_PROMPTS_FILE = "training_prompts.jsonl.xz"
# What transformers needs to build the model again; everything else in a config is noise.
CONFIG_KEYS = (
    "model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "head_dim", "hidden_act", "max_position_embeddings", "rms_norm_eps", "rope_theta", "rope_scaling", "rope_parameters",
    "attention_bias", "mlp_bias", "tie_word_embeddings", "bos_token_id", "eos_token_id",
)  # fmt: skip


def model_description(config: Any) -> dict[str, Any]:
    """The part of a transformers config that a checkpoint keeps."""
    values = config.to_dict()
    return {key: values[key] for key in CONFIG_KEYS if values.get(key) is not None}


def write_training_prompts(path: Path, prompts: list[str]) -> None:
    """Write the distinct training prompts, sorted: the manifest that overlap tests and the ``nearest`` baseline read."""
    lines = "".join(json.dumps(prompt, ensure_ascii=False) + "\n" for prompt in sorted(set(prompts)))
    path.write_bytes(lzma.compress(lines.encode("utf-8"), preset=9))


def pack(run: Path, pairs: list[Path], output: Path) -> dict[str, Any]:
    """Write the checkpoint; returns its SHA-256 and what packing cost on the run's held-out pairs."""
    import torch
    from transformers import AutoModelForCausalLM

    from lm_eval_inversion.training.train import held_out_pairs, load_pairs

    settings = json.loads((run / "settings.json").read_text(encoding="utf-8"))
    layout = BlockFormat(**settings["block_format"])
    model = AutoModelForCausalLM.from_pretrained(run / "final", dtype=torch.float32)
    loaded = load_pairs(pairs)
    training, held_out = held_out_pairs(loaded, settings["seed"])
    state = {
        name: value
        for name, value in model.state_dict().items()
        if not (model.config.tie_word_embeddings and name == "lm_head.weight")
    }
    packed = pack_state(state)
    before = _mean_nats(model, run, layout, held_out)
    model.load_state_dict(unpack_state(packed), strict=False)
    after = _mean_nats(model, run, layout, held_out)
    facts = {
        "base": settings["base"],
        "seed": settings["seed"],
        "steps": settings["steps_done"],
        "prompts": len({pair.prompt for pair in training if pair.prompt}),
        "outputs": sum(len(pair.outputs) for pair in training),
        "held_out_nats_before_packing": round(before, 3),
        "held_out_nats_after_packing": round(after, 3),
    }
    sha256 = write_checkpoint(
        output, packed, run / "tokenizer.json",
        block_format=layout.to_dict(), model_config=model_description(model.config), training=facts,
    )  # fmt: skip
    write_training_prompts(output / TRAINING_PROMPTS_FILE, [pair.prompt for pair in training if pair.prompt])
    return {**facts, "sha256": sha256, "megabytes": round(sum(path.stat().st_size for path in output.iterdir()) / 1e6, 1)}


def _mean_nats(model: Any, run: Path, layout: BlockFormat, pairs: list[Any]) -> float:
    import torch

    from lm_eval_inversion.inverter.prefix_model import encode_blocks, prompt_loss

    tokenizer = BlockTokenizer(run / "tokenizer.json", layout)
    model.eval()
    nats: list[float] = []
    with torch.inference_mode():
        for start in range(0, len(pairs), 8):
            part = pairs[start : start + 8]
            prefix = encode_blocks(model, [tokenizer.blocks(pair.outputs) for pair in part])
            ids = [tokenizer.prompt(pair.prompt, layout.max_prompt_tokens) for pair in part]
            nats += prompt_loss(model, prefix, ids, layout.prompt_position).tolist()
    return statistics.fmean(nats)


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m lm_eval_inversion.training.pack", description=__doc__.split("\n")[0])
    parser.add_argument("--run", required=True, type=Path, help="output folder of training.train")
    parser.add_argument("--pairs", required=True, type=Path, nargs="+", help="the pairs that the run was trained on")
    parser.add_argument("--output", required=True, type=Path, help="checkpoint folder to write")
    options = parser.parse_args(arguments)
    for needed in (options.run / "final", options.run / "settings.json"):
        if not needed.exists():
            parser.error(f"--run {options.run}: {needed.name} is missing; the training has not finished, start training.train again")
    print(json.dumps(pack(options.run, options.pairs, options.output), indent=2))


if __name__ == "__main__":
    main()
