"""Runs that are started from Python, as the documentation shows them."""

import functools
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "parameters.md"
TASK, GIVEN = "prompt_inversion_ordinary", {"split": "dev", "inverter": "words"}


@pytest.fixture
def own_tasks_only(monkeypatch):
    """Managers leave out the thousands of tasks that ship with lm_eval."""
    from lm_eval.tasks import TaskManager

    monkeypatch.setattr(TaskManager, "__init__", functools.partialmethod(TaskManager.__init__, include_defaults=False))
    return TaskManager


@pytest.mark.parametrize("heading", ["A run of lm_eval", "A run of Inspect"])
def test_the_documented_examples_run_with_their_parameters(chat_model, tmp_path, monkeypatch, capsys, own_tasks_only, heading):
    found = re.search(rf"^### {heading}\n\n```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(found[1].replace("FOLDER", str(chat_model)), {})
    assert capsys.readouterr().out.splitlines()[-1] == GIVEN["inverter"]


def test_lm_eval_drops_parameters_beside_a_manager_and_takes_those_of_the_manager(monkeypatch, own_tasks_only):
    """What the documentation warns of; where it fails, the warning is no longer needed."""
    import lm_eval.evaluator

    taken = []
    monkeypatch.setattr(lm_eval.evaluator, "evaluate", lambda *, task_dict, **_: taken.append(task_dict["tasks"][TASK].protocol) or {})
    for keywords in (
        {"metadata": GIVEN},
        {"metadata": GIVEN, "task_manager": own_tasks_only()},
        {"task_manager": own_tasks_only(metadata=GIVEN)},
    ):
        lm_eval.evaluator.simple_evaluate(model="dummy", tasks=[TASK], **keywords)
    assert [protocol.inverter_name for protocol in taken] == ["words", "default", "words"]
    assert [{prompt.split for prompt in protocol.prompts} for protocol in taken] == [{"dev"}, {"test"}, {"dev"}]
