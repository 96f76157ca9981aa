"""The templates of the pages in HTML, and what everything goes through that they print."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from lm_eval_inversion.report.plots import breakable
from lm_eval_inversion.report.visible import visible


def page_environment() -> Environment:
    """Templates that escape whatever they print, and in which nothing invisible gets through."""
    environment = Environment(
        loader=PackageLoader("lm_eval_inversion.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        finalize=_finalize, keep_trailing_newline=True,
    )  # fmt: skip
    environment.globals["breakable"] = breakable
    return environment


def _finalize(value: Any) -> Any:
    return value if isinstance(value, Markup) else visible(str(value))
