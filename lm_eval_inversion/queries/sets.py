"""Query sets: the user messages that are sent to the evaluated model.

A query set is one JSON file in ``queries/data``::

    {"name": "ordinary16", "kind": "message", "queries": [{"id": "hello", "text": "Hello!", "items": 1}]}

``kind`` says how answers become outputs: the answer to a ``list`` query is split into its lines, the answer to a
``message`` query is one output.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal

from lm_eval_inversion.hashing import content_hash

QueryKind = Literal["list", "message"]


@dataclass(frozen=True)
class Query:
    """One user message. ``items`` is how many outputs its answer is asked to hold."""

    id: str
    text: str
    items: int


@dataclass(frozen=True)
class QuerySet:
    """Named, ordered user messages, sent one conversation each."""

    name: str
    kind: QueryKind
    queries: tuple[Query, ...]

    @property
    def hash(self) -> str:
        """Twelve hex digits that change whenever a query does."""
        return content_hash([self.kind, [[query.id, query.text, query.items] for query in self.queries]])

    def first(self, number: int | None) -> QuerySet:
        """The set cut to its first ``number`` queries (None keeps all).

        Raises:
            ValueError: ``number`` is not between 1 and the size of the set.
        """
        if number is None:
            return self
        if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= len(self.queries):
            raise ValueError(
                f"num_queries={number!r}: query set {self.name!r} has {len(self.queries)} queries; "
                f"give a whole number from 1 to {len(self.queries)}"
            )
        return QuerySet(self.name, self.kind, self.queries[:number])


def query_set_names() -> list[str]:
    """The names of the query sets that ship with the package."""
    return sorted(
        path.name.removesuffix(".json") for path in files(__package__).joinpath("data").iterdir() if path.name.endswith(".json")
    )


def load_query_set(name: str) -> QuerySet:
    """Load a shipped query set.

    Raises:
        ValueError: no query set has this name.
    """
    if name not in query_set_names():
        raise ValueError(f"query set {name!r} does not exist; known: {', '.join(query_set_names())}")
    data = json.loads(files(__package__).joinpath("data", f"{name}.json").read_text(encoding="utf-8"))
    return QuerySet(data["name"], data["kind"], tuple(Query(q["id"], q["text"], q["items"]) for q in data["queries"]))
