"""The command ``lm-eval-inversion``: from results of either host to tables, a page, a comparison, a gate.

Every verb loads what it needs when it is chosen, so that ``--help`` answers at once. A user's mistake ends in one line on stderr.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import lm_eval_inversion
from lm_eval_inversion.arguments import non_negative_whole

PROGRAM = "lm-eval-inversion"
ERROR = 2
GATE_ERROR = 3  # of ``gate``, whose 1 and 2 mean something else
INTERRUPTED = 130  # 128 + SIGINT, as shells have it
JUNIT = "--junit"  # option of ``gate``, which must be found in wrong command lines too
RESULTS_HELP = "samples_*.jsonl of lm_eval (--log_samples), logs of Inspect (.eval or .json), or folders with such files"


@dataclass(frozen=True)
class Verb:
    """One sub-command.

    Attributes:
        summary: one line for the list of verbs.
        example: a command to copy.
        add_arguments: declares the options.
        run: does the work and returns the exit code.
        error_code: exit code after a user's mistake.
        on_error: told the arguments and the message of whatever ended the work, wrong usage too.
    """

    summary: str
    example: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    error_code: int = ERROR
    on_error: Callable[[Sequence[str], str], None] = lambda arguments, message: None


class _Parser(argparse.ArgumentParser):
    """A parser whose usage errors are those of the verb."""

    error_code = ERROR
    on_error: Callable[[str], None] = staticmethod(lambda message: None)

    def error(self, message: str) -> NoReturn:
        self.on_error(message)
        self.print_usage(sys.stderr)
        self.exit(self.error_code, f"{self.prog}: error: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code.

    Args:
        arguments: None takes those of the process.

    Raises:
        SystemExit: after ``--help``, ``--version`` and wrong usage, as usual with argparse.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # models write characters that not every terminal has
    parser, verb_parsers = _parsers(given)
    options, unknown = parser.parse_known_args(given)
    verb, verb_parser = VERBS[options.verb], verb_parsers[options.verb]
    if unknown:
        verb_parser.error(f"unrecognised arguments: {' '.join(unknown)}")
    try:
        code = verb.run(options)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output has seen enough; what is still buffered must not fail once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return verb.error_code
    except (ValueError, OSError) as error:
        from lm_eval_inversion.report.visible import visible

        print(f"{verb_parser.prog}: error: {visible(str(error))}", file=sys.stderr)  # which may quote a results file
        verb_parser.on_error(str(error))
        return verb.error_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        verb_parser.on_error("interrupted")
        return INTERRUPTED
    except Exception as error:
        # A mistake of ours: all of it is shown, but Python's exit code 1 would read as a breach of the gate.
        traceback.print_exc()
        verb_parser.on_error(f"{type(error).__name__}: {error}")
        return verb.error_code
    return code


def _add_report_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("results", type=Path, nargs="+", metavar="RESULTS", help=RESULTS_HELP)
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write one self-contained HTML page instead of tables")
    parser.add_argument(
        "--examples", type=non_negative_whole, default=3, metavar="N", help="prompts to show beside their reconstructions (default 3)"
    )


def _run_report(options: argparse.Namespace) -> int:
    from lm_eval_inversion.report.reading import read_all
    from lm_eval_inversion.report.units import count_prompts

    found = read_all(options.results)
    if options.output is not None:
        from lm_eval_inversion.report.page import page_html, scored_runs
        from lm_eval_inversion.report.writing import write_file

        if options.output.is_dir():
            raise ValueError(f"-o {options.output} is a folder; give a file, such as {options.output / 'report.html'}")
        found = scored_runs(found)
        write_file(options.output, page_html(found))
        print(f"runs: {len(found)}, system prompts: {sum(count_prompts(results.rows) for results in found)}, written to {options.output}")
        return 0
    from lm_eval_inversion.report.numbers import on_one_line
    from lm_eval_inversion.report.rerun import run_lines
    from lm_eval_inversion.report.tables import attacks_table, counted, examples_table, metrics_table
    from lm_eval_inversion.report.visible import visible

    for results in found:
        print(visible(f"\n## {on_one_line(results.task)} ({results.host}, {counted(results.rows).told})\n"))
        print("\n".join(map(visible, run_lines(results))))
        print(f"\n{metrics_table(results)}")
        if any(request["arm"] == "attack" for row in results.rows for request in row.requests):
            print(f"\n{attacks_table(results)}")
        if options.examples and (examples := examples_table(results, options.examples)):
            print(f"\n{examples}")
    return 0


def _add_compare_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", type=Path, metavar="A", help=f"the baseline run: {RESULTS_HELP}")
    parser.add_argument("b", type=Path, metavar="B", help="the run to compare with A; differences are B minus A")
    parser.add_argument("--format", choices=("text", "json", "html"), default="text", help="output format (default: text, Markdown tables)")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write to a file instead of the screen")
    parser.add_argument(
        "--changed", type=non_negative_whole, default=5, metavar="N", help="how many of the most-changed prompts to show (default 5)"
    )


def _run_compare(options: argparse.Namespace) -> int:
    from lm_eval_inversion.report.compare import compare
    from lm_eval_inversion.report.compare_render import render
    from lm_eval_inversion.report.reading import progress_bar, read_all
    from lm_eval_inversion.report.writing import write_file

    a, b = read_all([options.a]), read_all([options.b])
    comparison = compare(a, b, label_a=str(options.a), label_b=str(options.b), changed=options.changed, progress=progress_bar)
    text = render(comparison, options.format)
    if options.output is None:
        print(text, end="")
    else:
        write_file(options.output, text)
        print(f"tasks compared: {len(comparison.tasks)}, written to {options.output}")
    return 0


def _add_gate_arguments(parser: argparse.ArgumentParser) -> None:
    from lm_eval_inversion.scoring.metrics import LEAST_COVERAGE
    from lm_eval_inversion.scoring.uncertainty import LEVEL

    parser.add_argument("results", type=Path, nargs="+", metavar="RESULTS", help=RESULTS_HELP)
    parser.add_argument("--max-lift", type=float, metavar="X", help="token_f1_lift at most X (inversion tasks)")
    parser.add_argument("--max-asr", type=float, metavar="X", help="asr_union at most X: share of system prompts that any attack gets out")
    parser.add_argument("--max-canary", type=float, metavar="X", help="canary_extracted at most X: share of planted secrets that come out")
    parser.add_argument("--max-bits", type=float, metavar="X", help="bits at most X (inversion tasks)")
    parser.add_argument(
        "--min-coverage", type=float, metavar="X",
        help=f"inconclusive if mean coverage is below X (default {LEAST_COVERAGE}; 0 turns this off)",
    )  # fmt: skip
    parser.add_argument("--confidence", type=float, default=LEVEL, metavar="X", help=f"level of the two-sided intervals (default {LEVEL})")
    parser.add_argument(JUNIT, type=Path, metavar="FILE", help="write JUnit XML, one test case per task and limit")


def _run_gate(options: argparse.Namespace) -> int:
    from lm_eval_inversion.report.gate import check_results, make_limits, outcome
    from lm_eval_inversion.report.gate_render import gate_table, junit
    from lm_eval_inversion.report.reading import read_with_unscored
    from lm_eval_inversion.report.writing import write_file

    limits = make_limits(
        max_lift=options.max_lift, max_asr=options.max_asr, max_canary=options.max_canary, max_bits=options.max_bits,
        min_coverage=options.min_coverage,
    )  # fmt: skip
    found, unscored = read_with_unscored(options.results)
    checks = check_results(found, limits, options.confidence, unscored)
    if options.junit is not None:
        write_file(options.junit, junit(checks, options.confidence))
    print(gate_table(checks, options.confidence, [*found, *unscored]))
    return outcome(checks).value


def _write_gate_error(arguments: Sequence[str], message: str) -> None:
    """Put an error into the JUnit file that was asked for, so that no older one stands for this run.

    Args:
        arguments: of the command line, which may be what is wrong.
        message: what is told on the screen too; a file that cannot be written is no further error.
    """
    from lm_eval_inversion.report.gate_render import junit_error
    from lm_eval_inversion.report.writing import write_file

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument(JUNIT, type=Path)
    with suppress(argparse.ArgumentError, ValueError, OSError):
        if (path := parser.parse_known_args(arguments)[0].junit) is not None:
            write_file(path, junit_error(message))


def _add_defences_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("results", type=Path, nargs="+", metavar="RESULTS", help=RESULTS_HELP)


def _run_defences(options: argparse.Namespace) -> int:
    from lm_eval_inversion.report.defences import defences_table
    from lm_eval_inversion.report.reading import read_all

    print(defences_table(read_all(options.results)))
    return 0


def _add_redact_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "logs", type=Path, nargs="+", metavar="LOG",
        help="logs of Inspect (.eval or .json), or folders with such files; they are overwritten",
    )  # fmt: skip


def _run_redact(options: argparse.Namespace) -> int:
    from lm_eval_inversion.adapters.inspect.redacting import redact_log, sample_buffers, traces
    from lm_eval_inversion.report.reading import own_files

    logs = own_files(options.logs)
    # Before any log is overwritten: whoever names a folder expects that nothing in it stays readable.
    if samples := [str(file) for file in logs if file.suffix == ".jsonl"]:
        raise ValueError(
            f"{', '.join(samples)}: samples of lm_eval cannot be redacted afterwards, and nothing was; run it again with redact=true, or "
            "name Inspect's logs one by one"
        )
    readable = []
    for log in logs:
        try:
            redact_log(log)
        except Exception as error:  # one that cannot be read must not leave those behind it in plain text
            message = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            readable.append(message if str(log) in message else f"{log}: {message}")
        else:
            print(f"redacted: {log}")
    if buffers := sample_buffers(logs):
        print(
            f"warning: Inspect keeps what unfinished runs sent and got in {_folders_of(buffers)}, in plain text ({len(buffers)} files); "
            "once no run goes on that is still wanted, delete what is named here",
            file=sys.stderr,
        )
    if notes := traces():
        print(
            f"warning: Inspect keeps notes of its latest processes in {_folders_of(notes)} ({len(notes)} files); errors of a provider "
            "stand there in plain text, with the prompts that they quote: once no run goes on, delete what is named here",
            file=sys.stderr,
        )
    if readable:
        raise ValueError(f"{len(readable)} of {len(logs)} logs could NOT be redacted and are still readable: {'; '.join(readable)}")
    return 0


def _folders_of(files: Sequence[Path]) -> str:
    """The folders that hold these files: all of them, as somebody is to delete them."""
    return ", ".join(dict.fromkeys(str(file.parent) for file in files))


def _later(module: str, function: str) -> Callable[[Any], Any]:
    """A function of one argument that loads its module only when it is called."""

    def call(argument: Any) -> Any:
        return getattr(import_module(module), function)(argument)

    return call


GATE_EXIT_CODES = (
    "exit codes: 0 every limit holds; 1 a limit is broken; 2 inconclusive (also if coverage is too low, with or without a system prompt, "
    "and for incomplete and unsigned runs and those that report doubts); 3 error (also if no result has the metric: each limit needs a run "
    "of its tasks; and if a run that a limit concerns has no scores)"
)
VERBS = {
    "report": Verb(
        "tables of runs, or one HTML page",
        f"{PROGRAM} report results logs -o report.html",
        _add_report_arguments,
        _run_report,
    ),
    "compare": Verb(
        "two runs side by side, paired by system prompt",
        f"{PROGRAM} compare results/old results/new --format html -o compare.html",
        _add_compare_arguments,
        _run_compare,
    ),
    "gate": Verb(
        "limits on what leaks, for continuous integration",
        f"{PROGRAM} gate results --max-lift 0.10 --junit gate.xml\n\n{GATE_EXIT_CODES}",
        _add_gate_arguments,
        _run_gate,
        GATE_ERROR,
        _write_gate_error,
    ),
    "defences": Verb(
        "what each defence keeps back, and what it costs",
        f"{PROGRAM} defences results/none results/sandwich results/ngram_filter",
        _add_defences_arguments,
        _run_defences,
    ),
    "rerank": Verb(
        "several reconstructions, ranked by the target's likelihood of its own answers",
        f"{PROGRAM} rerank results --model FOLDER -o reranked.jsonl",
        _later("lm_eval_inversion.report.reranked", "add_arguments"),
        _later("lm_eval_inversion.report.reranked", "run"),
    ),
    "redact": Verb(
        "replace the texts in Inspect logs by keyed hashes",
        f"{PROGRAM} redact logs/private.eval",
        _add_redact_arguments,
        _run_redact,
    ),
    "plan": Verb(
        "requests, tokens, minutes and cost before anything runs",
        f"{PROGRAM} plan prompt_inversion_ordinary",
        _later("lm_eval_inversion.plan", "add_arguments"),
        _later("lm_eval_inversion.plan", "run"),
    ),
    "export": Verb(
        "machine-readable results",
        f"{PROGRAM} export results -o exported",
        _later("lm_eval_inversion.report.export", "add_export_arguments"),
        _later("lm_eval_inversion.report.export", "run_export"),
    ),
    "card": Verb(
        "a Markdown block for the model card",
        f"{PROGRAM} card results",
        _later("lm_eval_inversion.report.card", "add_card_arguments"),
        _later("lm_eval_inversion.report.card", "run_card"),
    ),
}


def _parsers(given: Sequence[str]) -> tuple[argparse.ArgumentParser, dict[str, _Parser]]:
    """The command's parser and one per verb; only the chosen verb's options are declared, the others would load their modules."""
    parser = _Parser(
        prog=PROGRAM,
        description=(
            "How easily is a model's system prompt recovered? Reads result files of lm_eval and Inspect. Only `rerank` runs a model."
        ),
        epilog=f"example: {VERBS['report'].example}\n\n{PROGRAM} VERB --help lists the options of a verb and shows an example.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {lm_eval_inversion.__version__}")
    chosen = given[0] if given else None
    group = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    verb_parsers: dict[str, _Parser] = {}
    for name, verb in VERBS.items():
        verb_parser = group.add_parser(
            name,
            help=verb.summary,
            description=f"{verb.summary[0].upper()}{verb.summary[1:]}.",
            epilog=f"example: {verb.example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        verb_parser.error_code = verb.error_code
        verb_parser.on_error = partial(verb.on_error, given)
        if name == chosen:
            verb.add_arguments(verb_parser)
        verb_parsers[name] = verb_parser
    return parser, verb_parsers


if __name__ == "__main__":
    sys.exit(main())
