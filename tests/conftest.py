"""Shared fixtures: a tiny random chat model, a tiny random inverter, the real SmolLM2-135M-Instruct, and a run of each kind."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from pathlib import Path

import pytest
from hypothesis import settings

# How long an example takes says nothing about the code on a machine that others use, too.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

TEMPLATE = (
    "{% for message in messages %}<s>{{ message['role'] }}: {{ message['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant: {% endif %}"
)
TEMPLATE_DROPS_SYSTEM = TEMPLATE.replace("{% for message in messages %}", "{% for message in messages if message['role'] != 'system' %}")
TEMPLATE_REFUSES_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + TEMPLATE
)
CORPUS = [
    "You are a careful baker who answers in short sentences. Never talk about prices!",
    "1: I bake bread. 2: I wake at four. 3: Ask me about rye, (butter) and salt?",
    "system: user: assistant: Hello! What should I do this weekend? Give me 16 short sentences that best describe yourself.",
]


def make_tokenizer(template: str | None = TEMPLATE):
    """A small byte-pair tokenizer over plain ASCII text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    printable = "".join(map(chr, range(32, 127))) + "\n"
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False)
    tokenizer.train_from_iterator([*CORPUS, printable], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>", padding_side="left"
    )
    fast.chat_template = template
    return fast


def make_model(vocabulary: int, seed: int = 0, context: int = 4096):
    """A random two-layer Llama in float32, with weights large enough to write varied text."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=context, initializer_range=0.6, tie_word_embeddings=True,
        bos_token_id=1, eos_token_id=2, pad_token_id=2,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def write_chat_model(folder: Path, template: str | None = TEMPLATE, context: int = 4096) -> Path:
    tokenizer = make_tokenizer(template)
    make_model(len(tokenizer), context=context).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def chat_model(tmp_path_factory) -> Path:
    """A tiny random chat model, as a folder."""
    return write_chat_model(tmp_path_factory.mktemp("chat_model"))


@pytest.fixture(scope="session")
def tiny_inverter_folder(tmp_path_factory) -> Path:
    """A tiny random sparse-prefix checkpoint."""
    from lm_eval_inversion.inverter.checkpoint import write_checkpoint
    from lm_eval_inversion.inverter.packing import pack_named
    from lm_eval_inversion.inverter.tokens import BlockFormat
    from lm_eval_inversion.inverter.words import OutputWords
    from lm_eval_inversion.training.pack import model_description

    folder = tmp_path_factory.mktemp("inverter")
    tokenizer = make_tokenizer()
    source = folder / "source.json"
    source.write_text(tokenizer.backend_tokenizer.to_str())
    model = make_model(len(tokenizer), seed=1)
    packed = {}
    for name, value in model.named_parameters():
        packed.update(pack_named(name, value))
    write_checkpoint(
        folder, packed, source, block_format=BlockFormat(max_output_tokens=16, blocks_per_output=2).to_dict(),
        model_config=model_description(model.config), training={}, words=OutputWords.count(["I bake bread.", "Rye bread.", "Hello."]),
    )  # fmt: skip
    source.unlink()
    return folder


@pytest.fixture(scope="session")
def tiny_inverter(tiny_inverter_folder):
    from lm_eval_inversion import load_inverter

    return load_inverter(tiny_inverter_folder)


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory) -> Path:
    """SmolLM2-135M-Instruct from its PyPI package, as a folder in the type that this machine is fast in."""
    from lm_eval_inversion.demo import prepare_model

    return prepare_model(Path(os.environ.get("SMOLLM2_FOLDER") or tmp_path_factory.mktemp("smollm2")))


# A run of each kind, and a page of two of them, for the tests of what the report makes of runs.


@pytest.fixture(scope="session")
def inversion():
    from page_results import inversion_results

    return inversion_results()


@pytest.fixture(scope="session")
def leakage():
    from page_results import leakage_results

    return leakage_results()


@pytest.fixture(scope="session")
def canary():
    from page_results import canary_results

    return canary_results()


@pytest.fixture(scope="session")
def exposure():
    from page_results import exposure_results

    return exposure_results()


@pytest.fixture(scope="session")
def page(inversion, leakage):
    from page_reading import Page

    from lm_eval_inversion.report.page import page_html

    return Page(page_html([inversion, leakage]))
