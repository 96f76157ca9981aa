"""The documents keep up with the code: everything that a user can name stands in them, and their links lead somewhere."""

import argparse
import doctest
import inspect
import re
import shlex
from importlib.util import find_spec
from itertools import takewhile
from pathlib import Path

import pytest

from lm_eval_inversion import canary, exposure, leakage, protocol
from lm_eval_inversion.cli import PROGRAM, VERBS
from lm_eval_inversion.inverter.baselines import BASELINES
from lm_eval_inversion.plan import make_plan
from lm_eval_inversion.prompts import PROMPT_SETS, load_prompts
from lm_eval_inversion.prompts.canaries import canary_data
from lm_eval_inversion.queries.attacks import load_attacks
from lm_eval_inversion.queries.defences import DEFENCES
from lm_eval_inversion.report.comparability import MUST_MATCH
from lm_eval_inversion.report.estimates import WILSON_METRICS, metric_estimate
from lm_eval_inversion.scoring import metrics
from lm_eval_inversion.tasks import protocol_makers, task_parameters
from lm_eval_inversion.training import collect, recipe, train

ROOT = Path(__file__).parents[2]
PARAMETERS, SCORES = ROOT / "docs" / "parameters.md", ROOT / "docs" / "reading-scores.md"
RESULTS, LIMITATIONS = ROOT / "docs" / "results.md", ROOT / "docs" / "limitations.md"
DATASHEET = ROOT / "lm_eval_inversion" / "prompts" / "data" / "DATASHEET.md"
PAGES = [*(ROOT / f"{name}.md" for name in ("README", "CHANGELOG", "SECURITY")), *sorted((ROOT / "docs").glob("*.md"))]
TASKS = {**protocol.TASKS, **leakage.TASKS, **canary.TASKS, **exposure.TASKS}
# Heading in parameters.md -> what takes the parameters that its table lists, and those that a host takes care of.
MAKERS = {
    "Inversion tasks": (protocol.make_protocol, {"redact"}),
    "Attacks and dialogues": (leakage.make_leakage_protocol, {"redact"}),
    "Canaries and exposure": (canary.make_canary_protocol, set()),
}
DIRECTIONS = {
    "Inversion": metrics.HIGHER_IS_BETTER,
    "Attacks and dialogues": metrics.LEAKAGE_HIGHER_IS_BETTER,
    "Canaries": metrics.CANARY_HIGHER_IS_BETTER,
    "Exposure": metrics.EXPOSURE_HIGHER_IS_BETTER,
}
INLINE = re.compile(r"`([^`\n]+)`")


def read(page):
    return page.read_text(encoding="utf-8")


def prose(page):
    """A page without its code blocks."""
    return re.sub(r"^```.*?^```$", "", read(page), flags=re.MULTILINE | re.DOTALL)


def section(page, heading):
    """What stands under a heading, up to the next one of any level."""
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#{{1,6}} |\Z)", prose(page), re.MULTILINE | re.DOTALL)
    assert found, f"{page.name} has no heading {heading!r}"
    return found[1]


def rows(text):
    """Cells of the rows of all tables, heads and rules left out."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    rules = {index for index, line in enumerate(lines) if set(line) <= set("|-: ")}
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for index, line in enumerate(lines)
        if index not in rules and index + 1 not in rules
    ]


def commands(page):
    """Commands of the shell blocks, continued lines joined, comments left out."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", read(page), re.MULTILINE | re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


# What can be named.


def test_every_task_and_group_is_described():
    from lm_eval_inversion.plan import expand_tasks

    described = {INLINE.findall(row[0])[0]: row for row in rows(section(PARAMETERS, "Tasks"))}
    for task, definition in protocol.TASKS.items():
        assert described[task][3] == str(definition.max_tokens)
    assert set(TASKS) <= set(described)
    for group in ("prompt_recovery", "prompt_leakage"):
        assert INLINE.findall(described[group][1]) == expand_tasks([group])
    in_readme = {name for row in rows(read(ROOT / "README.md")) for name in INLINE.findall(row[0])}
    assert set(described) <= in_readme


@pytest.mark.parametrize("heading", MAKERS)
def test_every_parameter_is_described_with_its_default(heading):
    make, of_hosts = MAKERS[heading]
    expected = {name: parameter.default for name, parameter in list(inspect.signature(make).parameters.items())[1:]}
    described = {INLINE.findall(row[0])[0]: row[1] for row in rows(section(PARAMETERS, heading))}
    assert set(described) == set(expected) | of_hosts
    for name, default in expected.items():
        if default is not None:  # else the words say what is taken
            assert described[name] == f"`{str(default).lower() if isinstance(default, bool) else default}`", name


def test_exposure_takes_what_canaries_take():
    assert (
        list(inspect.signature(exposure.make_exposure_protocol).parameters)[1:]
        == list(inspect.signature(canary.make_canary_protocol).parameters)[1:]
    )


def test_both_hosts_take_the_parameters_that_are_described():
    from lm_eval_inversion.adapters.inspect import tasks

    described = {heading: {INLINE.findall(row[0])[0] for row in rows(section(PARAMETERS, heading))} for heading in MAKERS}
    for heading, names in (
        ("Inversion tasks", protocol.TASKS),
        ("Attacks and dialogues", leakage.TASKS),
        ("Canaries and exposure", {**canary.TASKS, **exposure.TASKS}),
    ):
        for name in names:
            taken = set(inspect.signature(getattr(tasks, name)).parameters) - {"unknown"}  # which slips are looked for in
            without = {"defence"} if name == "prompt_inversion_user" else set()
            assert taken == described[heading] - without, name


def test_defaults_of_inspect_are_those_of_the_package():
    """But for what is typed out to be seen in a log, and what only hosts take."""
    from lm_eval_inversion.adapters.inspect import tasks

    for name in protocol_makers():
        typed = {given.name: given.default for given in inspect.signature(getattr(tasks, name)).parameters.values()}
        expected = task_parameters(name)
        for parameter in set(typed) - {"prompts", "attacks", "redact", "unknown"}:
            assert typed[parameter] == expected[parameter], (name, parameter)


def test_families_of_attacks_are_counted_in_words():
    from lm_eval_inversion.adapters.inspect import tasks

    told = f"{len({attack.family for attack in load_attacks('v1')})} families of attacks"
    assert told in leakage.TASKS["prompt_leakage_attacks"][1]
    assert told in inspect.getdoc(tasks.prompt_leakage_attacks)


def test_values_of_parameters_are_described():
    assert {INLINE.findall(row[0])[0] for row in rows(section(PARAMETERS, "Defences"))} == set(DEFENCES)
    assert set(BASELINES) <= set(INLINE.findall(section(PARAMETERS, "Inverters")))
    assert set(PROMPT_SETS) <= set(INLINE.findall(section(PARAMETERS, "Prompts of your own")))
    tiers = set(INLINE.findall(section(PARAMETERS, "Tiers")))
    assert set(leakage.TIERS) | set(canary.TIERS) | set(exposure.TIERS) <= tiers


@pytest.mark.parametrize(("place", "tier"), [(1, "smoke"), (2, "core")])
def test_sizes_of_tiers_are_what_plan_counts(place, tier):
    sizes = {INLINE.findall(row[0])[0]: int(row[place].replace(",", "")) for row in rows(section(PARAMETERS, "Tiers"))}
    assert sizes == {task: counts.requests for task, counts in make_plan(list(sizes), parameters={"tier": tier}).tasks.items()}


@pytest.mark.parametrize("heading", DIRECTIONS)
def test_every_metric_is_explained_with_its_direction(heading):
    explained = {}
    for names, _, better, meaning in (row for row in rows(section_with_parts(heading)) if row[2:3] in (["lower"], ["higher"])):
        for name in INLINE.findall(names):
            if name.endswith("…"):  # one for each name in the row
                explained |= {name.removesuffix("…") + ending: better for ending in INLINE.findall(meaning)}
            else:
                explained[name] = better
    for metric, higher in DIRECTIONS[heading].items():
        assert metric in explained, f"{metric} is not explained under {heading!r} of {SCORES.name}"
        assert explained[metric] == ("higher" if higher else "lower"), metric


def test_no_metric_table_is_left_out():
    assert {id(table) for name, table in vars(metrics).items() if name.endswith("HIGHER_IS_BETTER")} == set(map(id, DIRECTIONS.values()))


def section_with_parts(heading):
    """A chapter of reading-scores.md, its sub-headings with it."""
    found = re.search(rf"^## {re.escape(heading)}\b[^\n]*\n(.*?)(?=^## |\Z)", prose(SCORES), re.MULTILINE | re.DOTALL)
    assert found, f"{SCORES.name} has no chapter {heading!r}"
    return found[1]


def test_what_makes_runs_incomparable_is_listed():
    assert set(MUST_MATCH) <= set(INLINE.findall(section_with_parts("What must agree")))


def parser_of(verb):
    parser = argparse.ArgumentParser(prog=verb, allow_abbrev=False)
    VERBS[verb].add_arguments(parser)
    return parser


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_and_option_is_described(verb):
    described = set(INLINE.findall(section(PARAMETERS, verb)))
    listed = re.findall(r"^  (-.+?)(?:  .*)?$", parser_of(verb).format_help(), re.MULTILINE)
    options = {option for line in listed for option in re.findall(r"(?:^|, )(--?[\w-]+)", line)} - {"-h", "--help"}
    assert options <= described
    assert {name for name in described if name.startswith("-")} <= options | {"--help"}


@pytest.mark.parametrize(
    ("command", "option", "default"),
    [
        (collect, "--tries", "8"), (collect, "--first-wait", "1"), (collect, "--batch-prompts", "20"), (recipe, "--batch", "16"),
        (recipe, "--micro-batch", "16"), (recipe, "--eval-every", "200"), (train, "--batch", "16"), (train, "--eval-every", "100"),
    ],
)  # fmt: skip
def test_help_of_trainings_names_the_defaults(command, option, default, capsys):
    with pytest.raises(SystemExit):
        command.main(["--help"])
    told = {text.split()[0]: " ".join(text.split()) for text in re.split(r"\n  (?=--)", capsys.readouterr().out)}
    assert f"(default {default})" in told[option]


# What is told of measurements and prompts.


def test_results_name_the_present_task_versions():
    told = {subject: now for subject, _, now, _ in rows(section(RESULTS, "Task versions"))}
    assert told == {
        "inversion": str(protocol.TASK_VERSION), "attacks": str(leakage.LEAKAGE_VERSION), "planted secrets": str(canary.CANARY_VERSION)
    }  # fmt: skip


def test_intervals_of_planted_secrets_are_those_of_the_package():
    carriers = len(canary_data()["carriers"])
    shares = [(name.split()[0], float(mean), interval) for name, mean, interval in rows(section(RESULTS, "Planted secrets"))]
    checked = {metric: (mean, interval) for metric, mean, interval in shares if metric in WILSON_METRICS or mean in (0.0, 1.0)}
    assert {"canary_extracted", "canary_volunteered", "canary_null", "coverage"} <= set(checked)
    for metric, (mean, interval) in checked.items():
        low, high = (float(end.strip("<>")) for end in interval.split(" to "))
        expected = metric_estimate(metric, [mean] * carriers)
        assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.0015), metric  # means are told with three decimals


def test_lengths_of_the_longest_prompts_are_told():
    longest = {split: max(prompt.words for prompt in load_prompts("v1", split=split)) for split in ("test", "dev")}
    assert f"the longest of {longest['test']} words" in read(LIMITATIONS)
    assert f"a third long (71 to {max(longest.values())})" in read(DATASHEET)


# What is printed to be copied.


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_command_of_a_block_writes_over_what_another_wrote(page):
    for block in re.findall(r"^```sh\n(.*?)^```$", read(page), re.MULTILINE | re.DOTALL):
        written = re.findall(r" --output (\S+)", block)
        assert len(written) == len(set(written)), block


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_parse_and_modules_exist(page):
    for words in commands(page):
        if words[0] == PROGRAM:
            parser_of(words[1]).parse_args(words[2:])
        if words[:2] == ["python", "-m"]:
            assert find_spec(words[2]), words
        parameters = {name for heading in MAKERS for row in rows(section(PARAMETERS, heading)) for name in INLINE.findall(row[0])}
        for place, word in enumerate(words[:-1]):
            if word in ("--tasks",) or words[:2] == ["inspect", "eval"] and words[place + 1].startswith("lm_eval_inversion/"):
                names = words[place + 1].removeprefix("lm_eval_inversion/").split(",")
                assert set(names) <= set(TASKS) | {"prompt_recovery", "prompt_leakage"}, words
            if word == "-T":
                assert words[place + 1].partition("=")[0] in parameters, words
            if word == "--metadata":
                given = list(takewhile(lambda follower: not follower.startswith("-"), words[place + 1 :]))
                assert given, words
                assert {name.partition("=")[0] for name in given} <= parameters, words


@pytest.mark.parametrize("page", [page for page in PAGES if ">>>" in read(page)], ids=lambda page: page.name)
def test_examples_give_what_they_show(page):
    found = doctest.testfile(str(page), module_relative=False)
    assert found.attempted
    assert not found.failed


def test_the_python_names_are_described():
    import lm_eval_inversion

    described = set(INLINE.findall(section(PARAMETERS, "From Python")))
    assert set(lm_eval_inversion.__all__) - {"__version__"} <= described
    assert set(re.findall(r"\blei\.(\w+)", read(PARAMETERS))) <= set(lm_eval_inversion.__all__)


# Where links and paths lead.


def anchors(page):
    """What the headings of a page can be linked by, as GitHub makes it."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name} links to {target}, which is not there"
        if anchor:
            assert anchor in anchors(file), f"{page.name} links to {target}; {file.name} has {sorted(anchors(file))}"


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "docs" / "extending.md"], ids=lambda page: page.name)
def test_paths_and_tests_that_are_named_exist(page):
    for name in INLINE.findall(prose(page)):
        path, _, test = name.partition("::")
        if re.fullmatch(r"(lm_eval_inversion|tests|docs|benchmarks|inspect_tasks)/[\w./-]*", path):
            assert (ROOT / path).exists(), f"{page.name} names {path}"
            assert not test or f"def {test}(" in read(ROOT / path), f"{page.name} names {name}"


def test_every_page_is_reached_from_the_readme():
    linked = {(ROOT / target.partition("#")[0]).resolve() for target in re.findall(r"\]\(([^)\s]+)\)", read(ROOT / "README.md"))}
    mine = {ROOT / "docs" / f"{name}.md" for name in (
        "start", "reading-scores", "threat-model", "limitations", "extending", "parameters", "results", "ci-gate", "detector", "LOG",
        "serving",
    )}  # fmt: skip
    assert mine <= linked


def test_the_readme_is_one_screen():
    assert len(read(ROOT / "README.md").splitlines()) <= 110
