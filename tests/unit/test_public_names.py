"""Models are published under names that others can find, and a folder is none."""

import pytest

from lm_eval_inversion.report.public_names import identify_model
from lm_eval_inversion.report.reading import Results
from lm_eval_inversion.report.rerun import is_local


@pytest.mark.parametrize(
    ("host", "model", "expected"),
    [
        ("lm_eval", "hf org/name", ("org/name", "self_deployed", True)),
        ("lm_eval", "hf /srv/models/name", ("unknown/name", "self_deployed", False)),
        ("lm_eval", "openai-chat-completions gpt-x", ("openai/gpt-x", "externally_managed", True)),
        ("lm_eval", "local-chat-completions org/name", ("org/name", "unknown", True)),
        ("inspect", "hf/local ../models/name/", ("unknown/name", "self_deployed", False)),
        ("inspect", "hf/org/name", ("org/name", "self_deployed", True)),
        ("inspect", "openrouter/org/name", ("org/name", "externally_managed", True)),
        ("inspect", "anthropic/name-1", ("anthropic/name-1", "externally_managed", True)),
        ("inspect", "ollama/name", ("unknown/name", "self_deployed", False)),
    ],
)
def test_models_are_named_as_others_can_find_them(host, model, expected):
    found = identify_model(Results("prompt_inversion", host, [], model))
    assert (found.id, found.deployment, found.published) == expected
    assert identify_model(Results("prompt_inversion", host, [], model), "lab/public").id == "lab/public"


def test_a_folder_that_looks_like_a_hub_name_is_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not is_local("demo/model")
    (tmp_path / "demo" / "model").mkdir(parents=True)
    assert is_local("demo/model")
