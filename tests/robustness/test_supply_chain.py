"""What is shipped is listed with its licence, and what is required has a lower bound."""

import re
from fnmatch import fnmatch
from importlib.metadata import requires
from pathlib import Path

import pytest

import lm_eval_inversion

PACKAGE = Path(lm_eval_inversion.__file__).parent
ROOT = Path(__file__).parents[2]
NOT_DATA = ("*.py", "*.typed", "*.md", "*.pth", "adapters/lm_eval/tasks/*.yaml", "*-LICENSE")


@pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="docs are not part of the source distribution")
def test_every_shipped_file_stands_in_the_list_of_licences():
    listed = re.findall(r"`([^`\s]+)`", (ROOT / "docs" / "licences.md").read_text(encoding="utf-8"))
    # Names without a folder lie beside the one before them in the same cell; their own names are distinct enough.
    missing = []
    for path in sorted(PACKAGE.rglob("*")):
        name = path.relative_to(PACKAGE).as_posix()
        if not path.is_file() or "__pycache__" in name or any(fnmatch(name, pattern) for pattern in NOT_DATA):
            continue
        if not any(fnmatch(name, pattern) or ("/" not in pattern and path.name == pattern) for pattern in listed):
            missing.append(name)
    assert missing == []
    assert "checkpoints/weights.safetensors" in listed


@pytest.mark.skipif(not (ROOT / "SECURITY.md").is_file(), reason="not part of the source distribution")
def test_the_security_page_names_tests_that_exist():
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "SECURITY.md").read_text(encoding="utf-8")))
    assert len(named) >= 6
    assert named <= {path.stem for path in Path(__file__).parent.glob("test_*.py")}


def test_every_requirement_has_a_lower_bound():
    found = requires("lm-eval-inversion")
    assert found
    assert [line for line in found if ">=" not in line and "==" not in line and not line.startswith("lm-eval-inversion")] == []
