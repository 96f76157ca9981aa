import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_wheel_holds_everything_that_a_user_needs(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        entry_points = archive.read(next(name for name in names if name.endswith("entry_points.txt"))).decode()
        hook = archive.read("lm_eval_inversion_discovery.pth").decode()
    package = "lm_eval_inversion/"
    for name in (
        "py.typed", "prompts/data/v1.jsonl", "prompts/data/DATASHEET.md", "queries/data/intro4x16.json", "training/data/banks.json",
        "adapters/lm_eval/tasks/prompt_inversion.yaml", "adapters/inspect/_registry.py", "checkpoints/inverter.json",
        "checkpoints/weights.safetensors", "checkpoints/tokenizer.json", "checkpoints/words.json", "checkpoints/README.md",
        "checkpoints/training_prompts.jsonl.xz", "training/data/themes.json", "confidence.json",
        "training/data/vocabulary.json", "prompts/data/user_v1.jsonl", "prompts/data/canaries.yaml",
        "report/schemas/every_eval_ever-0.3.0.schema.json",
        "report/templates/page.html.jinja", "report/templates/page.css", "report/templates/page.js",
        "report/templates/compare.html.jinja", "report/templates/table.html.jinja",
    ):  # fmt: skip
        assert package + name in names, name
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/", "inspect_tasks/")) or name.endswith(".pkl")]
    assert "[inspect_ai]" in entry_points
    assert "[lm_eval.tasks]" in entry_points
    # site reads a .pth line by line and runs those that start with "import".
    assert hook.startswith("import ")
    assert hook.count("\n") == 1
