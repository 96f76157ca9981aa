"""Collect training pairs: run a chat model under many system prompts and keep what it answers.

Command::

    python -m lm_eval_inversion.training.collect --model FOLDER_OR_HUB_NAME --output pairs.jsonl --prompts 3000

One JSON object a line::

    {"prompt": "Act as a lighthouse keeper.", "answers": [["weekend", "Ah, the weekend! ..."]], "model": "...", "temperature": 0.7}

``prompt`` is null for conversations without a system prompt. Rows are appended batch by batch; started again with the
same arguments, the command goes on where it stopped, and every batch has its own seed, so that an interrupted run writes
the same rows as an undisturbed one.
"""

from __future__ import annotations

import argparse
import json
import lzma
import random
from pathlib import Path
from typing import Any

from lm_eval_inversion.prompts import load_prompts
from lm_eval_inversion.queries import Query, conversation, detect_system_role, load_query_set, require_prompt_in_request
from lm_eval_inversion.training.grammar import generate_prompt, handwritten_prompts, load_banks

# Of the eight queries under each prompt; list questions get one place, because small models answer them badly.
QUERY_SHARES = (("ordinary16", 5), ("training", 2), ("intro4x16", 1))
NULL_EVERY = 40  # one conversation batch in 40 runs without a system prompt: the inverter must know that condition


def training_prompts(number: int, seed: int, source: str | None = None) -> list[str | None]:
    """System prompts to collect under, with None (no system prompt) at every ``NULL_EVERY``-th place.

    Those of the file ``source``; without one the hand-written prompts that ship here, then generated ones. Random order.
    """
    rng = random.Random(seed)
    prompts = [prompt.text for prompt in load_prompts(source, split=None)] if source else handwritten_prompts()
    rng.shuffle(prompts)
    banks, seen, index = load_banks(), set(prompts), 0
    while len(prompts) < number and source is None:
        prompt = generate_prompt(banks, seed, index)
        index += 1
        if prompt not in seen:
            seen.add(prompt)
            prompts.append(prompt)
    return [None if place % NULL_EVERY == NULL_EVERY - 1 else prompt for place, prompt in enumerate(prompts[:number])]


def queries_for(place: int, seed: int) -> list[Query]:
    """The queries asked under the prompt at ``place``."""
    rng = random.Random(f"queries/{seed}/{place}")
    return [query for name, share in QUERY_SHARES for query in rng.sample(load_query_set(name).queries, share)]


def read_pairs(path: Path) -> list[dict[str, Any]]:
    """Rows written so far (of a ``.jsonl`` file, or a finished ``.jsonl.xz``); a last line cut off by a kill is dropped.

    Raises:
        ValueError: a line before the last is not JSON.
    """
    if not path.exists():
        return []
    rows: list[dict[str, Any]] = []
    data = path.read_bytes()
    lines = (lzma.decompress(data) if path.suffix == ".xz" else data).decode("utf-8").split("\n")
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number == len(lines):
                break
            raise ValueError(f"{path} line {number} is not JSON ({error}); remove the line and start again") from error
    return rows


def collect(
    model_name: str,
    output: Path,
    *,
    number: int,
    seed: int = 0,
    batch_prompts: int = 20,
    max_new_tokens: int = 32,
    temperature: float = 0.7,
    device: str = "auto",
    revision: str | None = None,
    source: str | None = None,
) -> None:
    """Sample answers under (at most) ``number`` system prompts and append them to ``output``. Arguments as on the command line."""
    import torch
    from tqdm import tqdm
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from lm_eval_inversion.training.generation import sample_answers

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    prompts = training_prompts(number, seed, source)
    number = len(prompts)
    done = len(read_pairs(output))
    if done % batch_prompts and done < number:
        done -= done % batch_prompts
    rows = read_pairs(output)[:done]
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")

    tokenizer = AutoTokenizer.from_pretrained(model_name, revision=revision)
    model = AutoModelForCausalLM.from_pretrained(model_name, revision=revision, dtype=torch.bfloat16).to(device).eval()
    stop_ids = {tokenizer.eos_token_id, model.config.eos_token_id} - {None}

    def render(messages: list[dict[str, str]]) -> str:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    system_role = detect_system_role(render)
    with output.open("a", encoding="utf-8") as stream, tqdm(total=number, initial=done, unit="prompt") as progress:
        for start in range(done, number, batch_prompts):
            places = range(start, min(start + batch_prompts, number))
            asked = [queries_for(place, seed) for place in places]
            conversations = []
            for place, queries in zip(places, asked):
                requests = [render(conversation(prompts[place], query.text, system_role)) for query in queries]
                if (prompt := prompts[place]) is not None:
                    require_prompt_in_request(prompt, requests[0])
                conversations.append(tokenizer(requests, add_special_tokens=False)["input_ids"])
            generator = torch.Generator(device).manual_seed(seed * 1_000_003 + start)
            answers = sample_answers(
                model, conversations, max_new_tokens=max_new_tokens, temperature=temperature, stop_ids=stop_ids,
                generator=generator,
            )  # fmt: skip
            for place, queries, ids in zip(places, asked, answers):
                texts = tokenizer.batch_decode(ids, skip_special_tokens=True)
                row = {
                    "prompt": prompts[place],
                    "answers": [[query.id, text] for query, text in zip(queries, texts)],
                    "model": Path(model_name).name,
                    "temperature": temperature,
                }
                stream.write(json.dumps(row, ensure_ascii=False) + "\n")
            stream.flush()
            progress.update(len(places))


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m lm_eval_inversion.training.collect", description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True, help="folder or hub name of any transformers chat model")
    parser.add_argument("--revision", help="pinned revision of a hub model")
    parser.add_argument("--output", required=True, type=Path, help="JSONL file, appended to")
    parser.add_argument("--prompts", type=int, default=3000, help="how many system prompts (default 3000)")
    parser.add_argument("--source", help=".txt, .jsonl or .csv file of system prompts (default: the training prompts that ship here)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-prompts", type=int, default=20, help="system prompts per batch, eight queries each")
    parser.add_argument("--max-new-tokens", type=int, default=32)
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--device", default="auto")
    given = parser.parse_args(arguments)
    if given.prompts < 1:
        parser.error(f"--prompts {given.prompts}: give at least 1")
    collect(
        given.model, given.output, number=given.prompts, seed=given.seed, batch_prompts=given.batch_prompts,
        max_new_tokens=given.max_new_tokens, temperature=given.temperature, device=given.device, revision=given.revision,
        source=given.source,
    )  # fmt: skip


if __name__ == "__main__":
    main()
