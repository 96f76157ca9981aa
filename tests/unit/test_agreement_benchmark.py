"""The benchmark of agreement on a tiny inverter: one line per number of samples, of the prompts that have outputs only."""

import json
import sys
from pathlib import Path

import pytest

from lm_eval_inversion import load_prompts

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import agreement  # noqa: E402

DEV = load_prompts("v1", split="dev")[:3]


@pytest.fixture
def collected(tmp_path):
    """Answers as the collector writes them; to one prompt the model said nothing."""
    rows = [{"place": place, "prompt": prompt.text, "answers": [["hello", f"I do {place}."]]} for place, prompt in enumerate(DEV)]
    rows[1]["answers"] = [["hello", ""]]
    rows.append({"place": 3, "prompt": None, "answers": [["hello", "Hello there."]]})
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["agreement.py", *map(str, arguments)])
    agreement.main()


def test_a_line_for_every_number_of_samples(collected, tiny_inverter_folder, monkeypatch, capsys):
    run(monkeypatch, collected, "--inverter", tiny_inverter_folder, "--samples", 4, 2)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("2 of 3 prompts with outputs, inverter ")
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")][1:]
    assert [row[0] for row in cells] == ["0", "2", "4"]
    assert cells[0][6] == ""
    for row in cells:
        assert float(row[3]) == pytest.approx(float(row[1]) - float(row[2]), abs=2e-3)
    assert "with 4 samples" in lines[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--inverter", "nope"], "inverter='nope' is unknown"),
        (["--inverter", "constant"], "writes one reconstruction and cannot sample"),
        (["--samples", 0], "argument --samples"),
        (["--limit", 1], "1 prompts with outputs; give at least two"),
    ],
)
def test_mistakes_end_in_a_sentence(arguments, message, collected, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, collected, *arguments)
    assert message in capsys.readouterr().err
