"""The page's card of one system prompt: the truth beside what came back, what they have in common, and the scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from lm_eval_inversion.characters import count_unspaced, words_of
from lm_eval_inversion.leakage import worst_request
from lm_eval_inversion.report.alignment import MAX_WORDS, Alignment, Piece, align
from lm_eval_inversion.report.numbers import shown
from lm_eval_inversion.report.page_answers import findings
from lm_eval_inversion.report.reading import Row
from lm_eval_inversion.report.tables import unwritten
from lm_eval_inversion.report.units import prompt_key
from lm_eval_inversion.report.visible import visible
from lm_eval_inversion.scoring.metrics import floors_of

ROW_SCORES = (
    "bits", "token_f1", "identification_top1", "attribute_recall", "cosine",
    "recovery_max", "asr", "ability", "canary_extracted", "exposure_asked", "coverage",
)  # fmt: skip

SHOWN_CHARACTERS = 8_000  # of a truth or a reconstruction; the rest is counted, not shown
LONG_CHARACTERS, LONG_LINES = 480, 8  # a longer text is folded until it is asked for


@dataclass(frozen=True)
class PromptView:
    """One system prompt as a card of the page."""

    number: int
    row: Row
    epoch: int
    score: float | None
    scores: Sequence[tuple[str, str, str]]
    alignment: Alignment
    common: str
    cut: int
    answers: int

    @property
    def name(self) -> str:
        """Its id, and where the run has several epochs of the prompt, which of them it is."""
        return f"{self.row.prompt_id}, epoch {self.epoch}" if self.epoch else self.row.prompt_id

    @property
    def long_truth(self) -> bool:
        """Whether the truth is folded until it is asked for."""
        return _is_long(self.row.truth)

    @property
    def long_reconstruction(self) -> bool:
        """Whether the reconstruction is folded until it is asked for."""
        return _is_long(self.row.reconstruction)

    @property
    def unwritten(self) -> str:
        """What stands in the place of a reconstruction where there is none."""
        return unwritten(self.row)

    @property
    def share(self) -> str:
        """What came back, in a few words: in leakage tasks what was found in the worst answer, else the common words."""
        if self.row.requests:
            return findings(self.row.requests[worst_request(self.row.requests)])
        if self.row.redacted:
            return "redacted"
        return self.common if self.row.reconstruction else ""


def prompt_views(rows: Sequence[Row], score_name: str, answers: Sequence[int]) -> list[PromptView]:
    """The cards of a run.

    Args:
        rows: of the run, one card each.
        score_name: the metric by which the page orders and filters its cards.
        answers: how many answers the page keeps under each row.
    """
    cards = enumerate(zip(rows, _epochs(rows), answers))
    return [_prompt_view(number, row, epoch, score_name, kept) for number, (row, epoch, kept) in cards]


def _prompt_view(number: int, row: Row, epoch: int, score_name: str, answers: int) -> PromptView:
    texts = [visible(text) for text in (row.truth, row.reconstruction)]
    cut_texts = [text[:SHOWN_CHARACTERS] for text in texts]
    scores = []
    for name in ROW_SCORES:
        if name in row.metrics:
            floors = [f"{kind} {shown(name, row.metrics[floor])}" for kind, floor in floors_of(name, row.metrics).items()]
            scores.append((name, shown(name, row.metrics[name]), ", ".join(floors)))
    cut = sum(map(len, texts)) - sum(map(len, cut_texts))
    # Two markers have words in common that say nothing of the texts behind them.
    alignment = Alignment((Piece(cut_texts[0], False),), (Piece(cut_texts[1], False),), 0, 0, 0) if row.redacted else align(*cut_texts)
    common = _in_common(alignment, cut_texts[0], *(len(text) > SHOWN_CHARACTERS for text in texts))
    return PromptView(number, row, epoch, row.metrics.get(score_name), scores, alignment, common, cut, answers)


def _epochs(rows: Sequence[Row]) -> list[int]:
    """Per row, which epoch of its system prompt it is, from 1; 0 where there is only one."""
    total, met, numbers = Counter(map(prompt_key, rows)), Counter[tuple[str, str]](), []
    for key in map(prompt_key, rows):
        met[key] += 1
        numbers.append(met[key] if total[key] > 1 else 0)
    return numbers


def _in_common(alignment: Alignment, truth: str, truth_is_cut: bool, reconstruction_is_cut: bool) -> str:
    """How many words of a truth stand in a reconstruction too, of those that were aligned; common by chance or not."""
    aligned, unspaced = min(alignment.words, MAX_WORDS), count_unspaced("".join(words_of(truth)))
    noun = "words" if not unspaced else "characters" if unspaced >= alignment.words else "words and characters"
    first = "the first " if truth_is_cut or aligned < alignment.words else ""
    part = " with the part shown" if reconstruction_is_cut else ""
    if alignment.reconstruction_words > MAX_WORDS:
        part = f" with the first {MAX_WORDS} of the reconstruction"
    return f"{alignment.recovered} of {first}{aligned} {noun} in common{part}"


def _is_long(text: str) -> bool:
    return len(text) > LONG_CHARACTERS or text.count("\n") >= LONG_LINES
