"""Collect training pairs: run a chat model under many system prompts and keep what it answers.

Commands, for a local model and for any OpenAI-compatible endpoint (vLLM, llama.cpp, a vendor)::

    python -m lm_eval_inversion.training.collect --model FOLDER_OR_HUB_NAME --output pairs.jsonl --prompts 3000
    python -m lm_eval_inversion.training.collect --endpoint http://localhost:8000/v1 --model NAME --output pairs_2.jsonl \\
        --source corpus.jsonl --shard 2/8 --connections 32

What is asked is planned in ``training.asking``, what is written is described in ``training.rows``. Rows are appended in the order of
the plan; started again with the same arguments, the command goes on where it stopped. Every conversation (of an endpoint) and every
batch (of a local model) has its own seed, so that an interrupted run writes the same rows as an undisturbed one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lm_eval_inversion.arguments import non_negative, positive, positive_whole
from lm_eval_inversion.chat_model import load_chat_model, render
from lm_eval_inversion.context import context_of
from lm_eval_inversion.hashing import content_hash, file_sha256
from lm_eval_inversion.inverter.model_folder import INDEX_FILE
from lm_eval_inversion.inverter.tokens import listed_ids
from lm_eval_inversion.precision import choose_device, fast_dtype
from lm_eval_inversion.prompts import PROMPT_SETS, load_prompts
from lm_eval_inversion.queries import Message, detect_system_role, require_prompt_in_request, require_room
from lm_eval_inversion.thinking import with_opened_thinking
from lm_eval_inversion.training.asking import (
    DEFENCE_SHARE,
    LIST_TOKENS,
    MESSAGE_TOKENS,
    QUERY_SHARES,
    TEMPERATURES,
    USER_QUERY_SHARES,
    Place,
    Settings,
    plan,
    with_nulls,
)
from lm_eval_inversion.training.endpoint import Endpoint, EndpointError, collect_from_endpoint
from lm_eval_inversion.training.rows import as_line, only_writer, read_pairs, resume, row_of
from lm_eval_inversion.training.silence import Silence

__all__ = ["collect", "read_pairs", "training_prompts"]

USER_REQUESTS = Path(__file__).with_name("data") / "user_requests.jsonl"
# Of a model's folder, what its answers depend on beside its weights.
SMALL_FILES = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", INDEX_FILE,
)  # fmt: skip
SAMPLED_PIECES, SAMPLED_BYTES = 64, 1 << 16  # of a file of weights
LOCAL_OPTIONS = ("revision", "batch_prompts", "device")
ENDPOINT_OPTIONS = (
    "api_key_env", "connections", "tries", "timeout", "first_wait", "system_role", "length_field", "body",
)  # fmt: skip
LENGTH_FIELDS = ("max_tokens", "max_completion_tokens")
# Fields of a request that rows tell of, or that are asked about, and what sets them.
BODY_OPTIONS = {
    "model": "give --model",
    "messages": "they are planned (--source, --shares)",
    "temperature": "give --temperature",
    "seed": "give --seed",
    **dict.fromkeys(LENGTH_FIELDS, "give --message-tokens and --list-tokens, and --length-field for the name"),
}
HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
Progress = Callable[[int, int], None]


def training_prompts(number: int, seed: int, source: str | None = None, split: str | None = None) -> list[str]:
    """System prompts to collect under, in random order, at most ``number``.

    Args:
        number: how many.
        seed: of the order, and of the grammar.
        source: a file of system prompts, or a shipped set; None takes the hand-written prompts that ship here, then generated ones.
        split: of a shipped set.
    """
    if source is None:
        from lm_eval_inversion.training.corpus import build_corpus

        prompts = [entry.text for entry in build_corpus(number, seed).entries]
    else:
        prompts = [prompt.text for prompt in load_prompts(source, split=split)]
    random.Random(seed).shuffle(prompts)
    return prompts[:number]


def model_hash(model_name: str, revision: str | None = None) -> str | None:
    """What tells models apart whose folders have one name; nothing of it says where a folder is.

    Of a folder: its small files, and the sizes and a sample of its weights, which take minutes to read whole. Of a hub model: its name
    and revision. None where there is neither.
    """
    folder = Path(model_name)
    if folder.is_dir():
        small = [[name, file_sha256(folder / name)] for name in SMALL_FILES if (folder / name).is_file()]
        weights = sorted(path for path in folder.iterdir() if path.suffix in {".safetensors", ".bin"} and path.is_file())
        return content_hash([small, [[path.name, *_sampled(path)] for path in weights]])
    return content_hash([model_name, revision]) if HUB_NAME.fullmatch(model_name) else None


def _sampled(path: Path) -> tuple[int, str]:
    """Size of a file in bytes, and SHA-256 of pieces of it that are spread evenly, from its beginning on."""
    size, digest = path.stat().st_size, hashlib.sha256()
    with path.open("rb") as stream:
        for start in sorted({size * piece // SAMPLED_PIECES for piece in range(SAMPLED_PIECES)}):
            stream.seek(start)
            digest.update(stream.read(SAMPLED_BYTES))
    return size, digest.hexdigest()


def collect(
    model_name: str,
    places: Sequence[Place],
    output: Path,
    *,
    seed: int = 0,
    batch_prompts: int = 20,
    device: str = "auto",
    revision: str | None = None,
    progress: Progress = lambda answers, tokens: None,
) -> None:
    """Let a local model answer what is planned, and append the rows to ``output``.

    Args:
        model_name: folder or hub name.
        places: the plan; those that ``output`` holds already are not asked again.
        output: JSONL file.
        seed: of the draws of each batch.
        batch_prompts: places sampled together; another number draws other answers.
        device: "auto" takes a GPU where there is one. The model runs in the type that the device is fast in.
        revision: of a hub model.
        progress: called with (answers, tokens) of each batch, also of what was found in the file (0 tokens).

    Raises:
        ValueError: the file was written with other arguments, the chat template does not let a system prompt through, or the model's
            context has no room for a prompt and its answers.
    """
    answering = model_hash(model_name, revision)
    done = resume(output, places, Path(model_name).name, step=batch_prompts, model_hash=answering)
    progress(sum(len(place.asked) for place in places[:done]), 0)
    if done == len(places):
        return
    import torch

    from lm_eval_inversion.target import require_readable
    from lm_eval_inversion.training.generation import sample_answers

    device = choose_device(device, "--device")
    mend = "give the folder or hub name of a whole chat model, or get its files again"
    model, tokenizer = load_chat_model(model_name, fast_dtype(device), mend, revision)
    model = model.to(device).eval()
    ends = (tokenizer.eos_token_id, model.config.get_text_config().eos_token_id, model.generation_config.eos_token_id)
    stop_ids = {token for value in ends for token in listed_ids(value)}

    def rendered(messages: list[Message]) -> str:
        return render(tokenizer, messages, thinking=False)  # answers are cut long before thoughts end

    require_readable(model, f"--model {model_name}")
    system_role = detect_system_role(rendered)
    silence = Silence(model_name)
    for place in places[done:]:
        texts = [rendered(place.messages(asked, system_role)) for asked in place.asked]
        _require_rooms(place, tokenizer(texts, add_special_tokens=False)["input_ids"], context_of(model.config))
    with output.open("a", encoding="utf-8") as stream:
        for start in range(done, len(places), batch_prompts):
            batch = places[start : start + batch_prompts]
            answers: list[list[str | None]] = [[None] * len(place.asked) for place in batch]
            tokens = 0
            # Lists are long and messages short: apart, neither waits for the other.
            for kind in ("message", "list"):
                chosen = [[index for index, asked in enumerate(place.asked) if asked.kind == kind] for place in batch]
                if not chosen[0]:
                    continue
                requests = [
                    [rendered(place.messages(place.asked[index], system_role)) for index in indices]
                    for place, indices in zip(batch, chosen)
                ]
                for place, texts in zip(batch, requests):
                    if place.given is not None:
                        require_prompt_in_request(place.given, texts[0])
                draws = random.Random(f"batch/{seed}/{batch[0].number}/{kind}").getrandbits(62)
                sampled = sample_answers(
                    model, [tokenizer(texts, add_special_tokens=False)["input_ids"] for texts in requests],
                    max_tokens=[[place.asked[index].max_tokens for index in indices] for place, indices in zip(batch, chosen)],
                    temperatures=[[place.asked[index].temperature for index in indices] for place, indices in zip(batch, chosen)],
                    stop_ids=stop_ids, generator=torch.Generator(device).manual_seed(draws),
                )  # fmt: skip
                for row, indices, ids, texts in zip(answers, chosen, sampled, requests):
                    tokens += sum(map(len, ids))
                    for index, text, request in zip(indices, tokenizer.batch_decode(ids, skip_special_tokens=True), texts):
                        row[index] = with_opened_thinking(request, text)
            silence.add(answer or "" for row in answers for answer in row)
            stream.writelines(
                as_line(row_of(place, Path(model_name).name, row, model_hash=answering)) for place, row in zip(batch, answers)
            )
            stream.flush()
            progress(sum(map(len, answers)), tokens)


def _require_rooms(place: Place, requests: Sequence[Sequence[int]], context: int | None) -> None:
    for asked, ids in zip(place.asked, requests):
        if context is not None:
            named = f"{(place.prompt or '')[:60]} (place {place.number})"
            require_room(named, len(ids), asked.max_tokens, context, "give smaller --message-tokens or --list-tokens, or shorter prompts")


@contextmanager
def progress_bar(total: int) -> Iterator[Progress]:
    """A bar that counts answers and shows answers and tokens per second; what an earlier run did counts for neither rate."""
    from tqdm import tqdm

    began, produced = time.monotonic(), 0
    with tqdm(total=total, unit="answer", smoothing=0.05) as bar:

        def advance(answers: int, tokens: int) -> None:
            nonlocal produced
            if tokens == 0 and produced == 0:
                bar.initial += answers  # found in the file
            produced += tokens
            bar.update(answers)
            if produced:
                bar.set_postfix_str(f"{produced / max(1e-9, time.monotonic() - began):,.0f} tokens/s")

        yield advance


def read_shard(text: str) -> tuple[int, int]:
    """``2/8`` as (2, 8).

    Raises:
        argparse.ArgumentTypeError: it is no shard.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise argparse.ArgumentTypeError(f"{text!r} is no shard; give WHICH/OF, as in 2/8")
    return int(match[1]), int(match[2])


def read_share(text: str) -> tuple[str, int]:
    """``ordinary16=5`` as ("ordinary16", 5).

    Raises:
        argparse.ArgumentTypeError: it is no share.
    """
    name, _, number = text.partition("=")
    if not number.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r}: give QUERY_SET=NUMBER, as in ordinary16=5")
    return name, int(number)


def read_body(text: str) -> dict[str, Any]:
    """A JSON object.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    try:
        body = json.loads(text)
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f"not JSON ({error})") from error
    if not isinstance(body, dict):
        raise argparse.ArgumentTypeError("give a JSON object, as in '{\"top_p\": 0.95}'")
    return body


def _shown(shares: Mapping[str, int]) -> str:
    return " ".join(f"{name}={share}" for name, share in shares.items())


def _misplaced(parser: argparse.ArgumentParser, given: argparse.Namespace) -> str | None:
    """What is wrong with options that would have no effect, or another one than the rows say; None where nothing is."""
    if given.split and given.source not in PROMPT_SETS:
        return f"--split {given.split}: only shipped sets have splits; add --source {' or '.join(PROMPT_SETS)}, or leave it out"
    names, kind = (LOCAL_OPTIONS, "local models, and --endpoint is given") if given.endpoint else (ENDPOINT_OPTIONS, "--endpoint")
    for name in names:
        if getattr(given, name) != parser.get_default(name):
            mend = "leave one of the two out" if given.endpoint else "add --endpoint, or leave it out"
            return f"--{name.replace('_', '-')} is for {kind}; {mend}"
    for field, option in BODY_OPTIONS.items():
        if given.body.get(field) is not None:
            return f"--body: rows would say another {field!r} than was sent; {option}, or give null to send none"
    return None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lm_eval_inversion.training.collect", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", required=True, help="folder or hub name of any transformers chat model, or the endpoint's name for it")
    parser.add_argument("--output", required=True, type=Path, help="JSONL file, appended to")
    what = parser.add_argument_group("what is asked")
    what.add_argument(
        "--prompts", type=positive_whole, default=3000, help="how many system prompts at most, of all shards together (default 3000)"
    )
    what.add_argument("--source", help="file of system prompts, as of training.corpus (default: hand-written ones, then the grammar's)")
    what.add_argument(
        "--secret", choices=("system", "user"), default="system",
        help="user: the prompts are messages of users, answered without a system prompt (default source: those that ship here)",
    )  # fmt: skip
    what.add_argument("--split", choices=("dev", "test"), help="with --source v1: that split, to evaluate on; it never enters training")
    what.add_argument("--seed", type=int, default=0)
    what.add_argument(
        "--shard", type=read_shard, default=(1, 1), metavar="WHICH/OF",
        help="of every OF system prompts only the WHICH-th, as in 2/8; give each shard an --output of its own (default: all)",
    )  # fmt: skip
    what.add_argument(
        "--shares", type=read_share, nargs="+", metavar="SET=NUMBER",
        help=f"queries per system prompt (default {_shown(QUERY_SHARES)}), or how often a user's message is answered "
        f"(default {_shown(USER_QUERY_SHARES)})",
    )  # fmt: skip
    what.add_argument(
        "--temperature", type=float, nargs="+", default=list(TEMPERATURES), metavar="T",
        help="of all conversations, or the two ends of the range from which each one's is drawn (default 0 1)",
    )  # fmt: skip
    what.add_argument(
        "--message-tokens", type=int, nargs="+", default=list(MESSAGE_TOKENS),
        help="longest answers, one drawn for each conversation (default %(default)s)",
    )  # fmt: skip
    what.add_argument(
        "--list-tokens", type=int, nargs="+", default=list(LIST_TOKENS), help="the same for list questions (default %(default)s)"
    )
    what.add_argument(
        "--defence-share", type=float, default=DEFENCE_SHARE,
        help="of the system prompts, share that gets a line which asks for secrecy (default %(default)s; 0 to evaluate)",
    )  # fmt: skip
    local = parser.add_argument_group("local models")
    local.add_argument("--revision", help="pinned revision of a hub model")
    local.add_argument("--batch-prompts", type=positive_whole, default=20, help="system prompts per batch (default 20)")
    local.add_argument("--device", default="auto")
    remote = parser.add_argument_group("endpoints")
    remote.add_argument("--endpoint", metavar="URL", help="OpenAI-compatible, up to the version: http://localhost:8000/v1")
    remote.add_argument("--api-key-env", metavar="NAME", help="environment variable that holds the key")
    remote.add_argument("--connections", type=positive_whole, default=8, help="requests at a time (default 8)")
    remote.add_argument(
        "--tries", type=positive_whole, default=8, help="requests per conversation before its answer is recorded as missing (default 8)"
    )
    remote.add_argument("--timeout", type=positive, default=120.0, help="seconds for a whole request (default 120)")
    remote.add_argument(
        "--first-wait", type=non_negative, default=1.0, help="seconds before the second try (default 1); doubles with each further one"
    )
    remote.add_argument("--system-role", choices=("system", "user"), default="system", help="user: for models without a system role")
    remote.add_argument("--length-field", choices=LENGTH_FIELDS, default=LENGTH_FIELDS[0])
    remote.add_argument(
        "--body", type=read_body, default={}, metavar="JSON",
        help="more fields of each request; null takes one away. Fields that have an option of their own are refused",
    )  # fmt: skip
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.output.suffix == ".xz":
        parser.error(f"--output {given.output}: rows are written as plain lines; give a .jsonl file, and compress it when it is whole")
    if len(given.temperature) > 2:
        parser.error("--temperature: give one number, or two ends of a range")
    if problem := _misplaced(parser, given):
        parser.error(problem)
    shares = dict(given.shares or (USER_QUERY_SHARES if given.secret == "user" else QUERY_SHARES))
    settings = Settings(
        shares, (given.temperature[0], given.temperature[-1]), tuple(given.message_tokens), tuple(given.list_tokens),
        given.defence_share, given.secret,
    )  # fmt: skip
    key = os.environ.get(given.api_key_env) if given.api_key_env else None
    if given.api_key_env and not key:
        parser.error(f"--api-key-env {given.api_key_env}: this environment variable is not set")
    try:
        source = given.source or (str(USER_REQUESTS) if given.secret == "user" else None)
        prompts = training_prompts(given.prompts, given.seed, source, given.split)
        places = plan(with_nulls(prompts), settings, given.seed, given.shard)
        with progress_bar(sum(len(place.asked) for place in places)) as progress:
            if not given.endpoint:
                with only_writer(given.output):
                    collect(
                        given.model, places, given.output, seed=given.seed, batch_prompts=given.batch_prompts, device=given.device,
                        revision=given.revision, progress=progress,
                    )  # fmt: skip
                return
            endpoint = Endpoint(
                given.endpoint, given.model, api_key=key, tries=given.tries, timeout=given.timeout, first_wait=given.first_wait,
                length_field=given.length_field, body=given.body, connections=given.connections,
            )  # fmt: skip
            try:
                endpoint.check()
                with only_writer(given.output):
                    missing = collect_from_endpoint(endpoint, places, given.output, system_role=given.system_role, progress=progress)
            finally:
                endpoint.close()
        if missing:
            print(f"{missing} answers are missing; {given.output} says for each why")
    except (EndpointError, FileNotFoundError, ValueError) as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")
    except OSError as error:  # a full disk, a folder that cannot be written to
        parser.exit(2, f"{parser.prog}: error: {given.output} cannot be written ({error}); rows so far are kept: start again to go on\n")


if __name__ == "__main__":
    main()
