"""Stand-ins for vLLM and SGLang, neither of which runs without a GPU: NOT the engines themselves.

They have the interface that lm_eval's own ``VLLM`` and ``SGLangLM`` classes call, and nothing else: an engine is built from keyword
arguments, takes lists of token ids in one call, and returns texts or log-likelihoods in the same order. What they say is what a
transformers model of the same folder says, greedily, one request after the other. What comes in is kept, in its order.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

VLLM_VERSION = "0.11.0"  # lm_eval asks for it to choose among imports and arguments


class Model:
    """The transformers model behind an engine, and what was asked of it.

    Attributes:
        arguments: of the last engine that was built.
        requests: (token ids, settings) in the order in which they came in.
        answer: a fixed answer to everything, in place of the model's own; "" for none.
    """

    def __init__(self) -> None:
        self.arguments: dict[str, Any] = {}
        self.requests: list[tuple[list[int], dict[str, Any]]] = []
        self.answer = ""

    def load(self, folder: str, arguments: dict[str, Any]) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.arguments = arguments
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()

    def say(self, ids: list[int], settings: dict[str, Any], limit: int) -> str:
        import torch

        self.requests.append((ids, settings))
        if self.answer:
            return self.answer
        with torch.no_grad():
            found = self.model.generate(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), do_sample=False, max_new_tokens=limit)
        text = self.tokenizer.decode(found[0, len(ids) :], skip_special_tokens=settings["skip_special_tokens"])
        for stop in settings["stop"]:
            text = text.split(stop)[0]
        return text

    def log_likelihoods(self, ids: list[int]) -> list[dict[int, float] | None]:
        """For every token the log-likelihood of it and of the likeliest one; nothing for the first."""
        import torch

        with torch.no_grad():
            scores = self.model(torch.tensor([ids])).logits[0].log_softmax(-1)
        rows: list[dict[int, float] | None] = [None]
        for row, token in zip(scores, ids[1:]):
            best = int(row.argmax())
            rows.append({best: float(row[best]), token: float(row[token])})
        return rows


def _module(name: str, **members: Any) -> ModuleType:
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None, is_package=True)
    module.__path__ = []
    vars(module).update(members)
    return module


def vllm_modules(model: Model) -> dict[str, ModuleType]:
    """What lm_eval imports from vLLM."""

    class SamplingParams(SimpleNamespace):
        pass

    class LLM:
        def __init__(self, **arguments: Any) -> None:
            model.load(arguments["model"], arguments)
            length = arguments["max_model_len"] or model.model.config.max_position_embeddings
            self.llm_engine = SimpleNamespace(model_config=SimpleNamespace(max_model_len=length))

        def generate(self, prompts: list[Any], sampling_params: list[SamplingParams], use_tqdm: bool, lora_request: Any) -> list[Any]:
            assert len(prompts) == len(sampling_params)
            return [self._one(prompt["prompt_token_ids"], vars(settings)) for prompt, settings in zip(prompts, sampling_params)]

        def _one(self, ids: list[int], settings: dict[str, Any]) -> Any:
            if "prompt_logprobs" in settings:
                model.requests.append((ids, settings))
                return SimpleNamespace(prompt_logprobs=model.log_likelihoods(ids))
            return SimpleNamespace(outputs=[SimpleNamespace(text=model.say(ids, settings, settings["max_tokens"]))])

    def get_tokenizer(name: str, tokenizer_mode: str, trust_remote_code: bool, revision: str | None) -> Any:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(name, revision=revision)

    def resolve_chat_template(tokenizer: Any, chat_template: str | None, tools: Any, model_config: Any) -> str:
        return chat_template or tokenizer.chat_template

    return {
        "vllm": _module("vllm", LLM=LLM, SamplingParams=SamplingParams, TokensPrompt=dict),
        "vllm.lora": _module("vllm.lora"),
        "vllm.lora.request": _module("vllm.lora.request", LoRARequest=SimpleNamespace),
        "vllm.renderers": _module("vllm.renderers"),
        "vllm.renderers.hf": _module("vllm.renderers.hf", resolve_chat_template=resolve_chat_template),
        "vllm.tokenizers": _module("vllm.tokenizers", get_tokenizer=get_tokenizer),
    }


def sglang_modules(model: Model) -> dict[str, ModuleType]:
    """What lm_eval imports from SGLang."""

    class Engine:
        def __init__(self, **arguments: Any) -> None:
            model.load(arguments["model_path"], arguments)
            length = model.model.config.max_position_embeddings
            self.tokenizer_manager = SimpleNamespace(tokenizer=model.tokenizer, context_len=length)

        def generate(self, input_ids: list[list[int]], sampling_params: list[dict[str, Any]], **asked: Any) -> list[dict[str, Any]]:
            assert len(input_ids) == len(sampling_params)
            return [self._one(ids, settings, asked["return_logprob"]) for ids, settings in zip(input_ids, sampling_params)]

        def _one(self, ids: list[int], settings: dict[str, Any], likelihoods: bool) -> dict[str, Any]:
            if likelihoods:
                model.requests.append((ids, settings))
                rows = model.log_likelihoods(ids)
                own = [(row[token] if row else None, token, None) for row, token in zip(rows, ids)]
                top = [[(value, token, None) for token, value in row.items()] if row else None for row in rows]
                return {"meta_info": {"input_token_logprobs": own, "input_top_logprobs": top}}
            return {"text": model.say(ids, settings, settings["max_new_tokens"])}

    return {"sglang": _module("sglang", Engine=Engine)}


def install(monkeypatch: Any, folder: Any) -> Model:
    """Put both stand-ins where lm_eval imports them from, until ``monkeypatch`` is undone.

    Once per process, because lm_eval registers its classes once.

    Args:
        folder: an empty one, for vLLM's version.
    """
    model = Model()
    metadata = folder / f"vllm-{VLLM_VERSION}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VLLM_VERSION}\n")
    monkeypatch.syspath_prepend(str(folder))
    for name, module in {**vllm_modules(model), **sglang_modules(model)}.items():
        monkeypatch.setitem(sys.modules, name, module)
    return model
