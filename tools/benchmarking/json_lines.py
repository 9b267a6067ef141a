"""Write and read measurements as lines of JSON: what was measured stays readable if the program is killed."""

import json
import math
from collections.abc import Mapping
from pathlib import Path


def start(path: Path, **header: object) -> None:
    """Replace a file by one with a first line about the measurement as a whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_line(header), encoding='utf-8')


def append(path: Path | None, record: Mapping[str, object]) -> None:
    """Add a line; nothing without a file. Numbers that are not finite become null."""
    if path is not None:
        with path.open('a', encoding='utf-8') as file:
            file.write(_line(record))


def read(path: Path) -> list[dict]:
    """Return all complete lines, the header first; none if there is no file."""
    lines = path.read_text(encoding='utf-8').splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith('\n')]


def _line(record: Mapping[str, object]) -> str:
    return json.dumps({name: _finite(value) for name, value in record.items()}, allow_nan=False) + '\n'


def _finite(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value
