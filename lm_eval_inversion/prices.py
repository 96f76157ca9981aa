"""What tokens cost, as a file of the user says it."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm_eval_inversion.characters import read_utf8

MILLION = 1_000_000


@dataclass(frozen=True)
class Prices:
    """Prices per million tokens; ``cached_input_per_million_tokens`` is None where repeated input costs as much as new."""

    currency: str
    input_per_million_tokens: float
    output_per_million_tokens: float
    cached_input_per_million_tokens: float | None = None

    def cost(self, prompt_tokens: int, repeated_tokens: int, output_tokens: int) -> float:
        """What so many tokens cost, ``repeated_tokens`` of the prompt tokens at the cached price where there is one."""
        cached = self.cached_input_per_million_tokens
        saved = 0.0 if cached is None else repeated_tokens * (self.input_per_million_tokens - cached)
        return (prompt_tokens * self.input_per_million_tokens - saved + output_tokens * self.output_per_million_tokens) / MILLION


def read_prices(path: Path) -> Prices:
    """Read a price file: JSON or YAML, an object with the fields of ``Prices``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not such an object; the message names line or field.
    """
    import yaml

    if not path.is_file():
        raise FileNotFoundError(f"price file {path} does not exist ({path.absolute()})")
    if path.suffix.lower() not in {".json", ".yaml", ".yml"}:
        raise ValueError(f"price file {path}: prices are read from .json, .yaml and .yml; rename or convert the file")
    text = read_utf8(path, f"price file {path}")
    try:
        data = json.loads(text) if path.suffix.lower() == ".json" else yaml.safe_load(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"price file {path} line {error.lineno}: not JSON ({error.msg})") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        raise ValueError(f"price file {path}{where}: not YAML ({getattr(error, 'problem', None) or error})") from error
    except (ValueError, RecursionError) as error:  # an impossible date, a number too long, nesting too deep
        raise ValueError(f"price file {path}: a value cannot be read ({error}); write a name and plain numbers") from error
    fields = Prices.__dataclass_fields__
    if not isinstance(data, dict):
        raise ValueError(f"price file {path}: {type(data).__name__} instead of an object with the fields {', '.join(fields)}")
    for name in data:
        if name not in fields:
            raise ValueError(f"{_where(path, text, name)}: field {name!r} is unknown; known: {', '.join(fields)}")
    optional = "cached_input_per_million_tokens"
    for name in fields:
        if name not in data:
            if name != optional:
                raise ValueError(f"price file {path}: field {name!r} is missing")
            continue
        value = data[name]
        if name == "currency":
            if not isinstance(value, str) or not value.strip():
                raise ValueError(f"{_where(path, text, name)}: field 'currency' is {value!r}; give a name such as USD")
        elif isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
            raise ValueError(f"{_where(path, text, name)}: field {name!r} is {value!r}; give a number of at least 0")
    return Prices(**data)


def _where(path: Path, text: str, name: Any) -> str:
    """The file, and the line that names a field where it can be found."""
    pattern = re.compile(rf"""(?:^|[\s{{,"']){re.escape(str(name))}["']?\s*:""")
    line = next((number for number, line in enumerate(text.splitlines(), 1) if pattern.search(line)), None)
    return f"price file {path}" if line is None else f"price file {path} line {line}"
