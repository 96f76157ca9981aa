"""Both hosts on SmolLM2-135M-Instruct with the shipped inverter: small, but nothing is a stand-in."""

import math
import subprocess
import sys

import pytest

from lm_eval_inversion import load_inverter
from lm_eval_inversion.demo import inspect_command, lm_eval_command
from lm_eval_inversion.report import read_results


@pytest.mark.parametrize(("command", "host"), [(lm_eval_command, "lm_eval"), (inspect_command, "inspect")])
def test_the_demonstrations_command_scores_a_real_model(smollm2, tmp_path, command, host):
    from pathlib import Path

    words = command(smollm2, tmp_path / "out", "prompt_inversion_ordinary", 2)
    done = subprocess.run([str(Path(sys.executable).parent / words[0]), *words[1:]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "identifica" in done.stdout  # the host's own table
    (results,) = read_results(tmp_path / "out")
    assert (results.host, results.task, len(results.rows)) == (host, "prompt_inversion_ordinary", 2)
    for row in results.rows:
        assert row.metrics["coverage"] > 0.5
        assert len(row.reconstruction.split()) >= 3
        # A trained inverter, not noise: with even chances for 32,768 tokens a word of the truth costs 15 bits and more.
        assert load_inverter().nll([[]], [row.truth])[0] / math.log(2) < 12 * len(row.truth.split())
