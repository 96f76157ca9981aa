"""Runs of both real hosts on real (if tiny) models."""

from __future__ import annotations

import pytest
from own_tasks import own_task_manager


def run_lm_eval(model, task="prompt_inversion_ordinary", *, metadata, limit=3, model_args="", **keywords):
    """One in-process run of lm_eval on the hf back end, in float32 on the CPU."""
    import lm_eval

    settings = {"apply_chat_template": True, "batch_size": 8, "device": "cpu", "bootstrap_iters": 0, "limit": limit, **keywords}
    return lm_eval.simple_evaluate(
        model="hf", model_args=f"pretrained={model},dtype=float32{model_args}", tasks=[task],
        task_manager=own_task_manager(metadata), metadata=metadata, **settings,
    )  # fmt: skip


def run_inspect(model, folder, task="prompt_inversion_ordinary", *, task_args, limit=3, model_args=None, **keywords):
    """One in-process run of Inspect on the hf back end, greedy, in float32 on the CPU."""
    from inspect_ai import eval as inspect_eval

    model_args = {"do_sample": False, "tokenizer_call_args": {"add_special_tokens": False}, **(model_args or {})}
    return inspect_eval(
        f"lm_eval_inversion/{task}", model="hf/local", task_args=task_args, limit=limit, log_dir=str(folder), display="none",
        model_args={"model_path": str(model), "tokenizer_path": str(model), "device": "cpu", **model_args}, max_connections=8, **keywords,
    )[0]  # fmt: skip


def mock_model(say):
    """An Inspect model without weights; ``say`` turns the messages of a request into the answer."""
    from inspect_ai.model import get_model

    return get_model("mockllm/model", custom_outputs=lambda messages, *_: said("mockllm/model", say(messages)), memoize=False)


def said(model, text):
    """What a model of Inspect gives back."""
    from inspect_ai.model import ModelOutput, ModelUsage

    output = ModelOutput.from_content(model, text)
    output.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)  # else it is counted with a download
    return output


def failing_model(name, fails):
    """Register the Inspect model ``NAME/model``, which raises where ``fails`` says so of a request's messages.

    It is found by its name, because ``eval_retry`` makes a model of its own.
    """
    from inspect_ai.model import ModelAPI, modelapi

    class Failing(ModelAPI):
        def __init__(self, model_name, **_):
            super().__init__(model_name)

        async def generate(self, input, tools, tool_choice, config):
            if fails(input):
                raise RuntimeError("the line is down")
            return said(self.model_name, "Hello there, how may I help?")

    modelapi(name=name)(Failing)


@pytest.fixture
def arguments(tiny_inverter_folder):
    """Task parameters of a quick run."""
    return {"inverter": str(tiny_inverter_folder), "num_queries": 2}
