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
    from inspect_ai.model import ModelOutput, ModelUsage, get_model

    def answer(messages, *_):
        output = ModelOutput.from_content("mockllm/model", say(messages))
        output.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)  # else it is counted with a download
        return output

    return get_model("mockllm/model", custom_outputs=answer, memoize=False)


@pytest.fixture
def arguments(tiny_inverter_folder):
    """Task parameters of a quick run."""
    return {"inverter": str(tiny_inverter_folder), "num_queries": 2}
