"""Parser for the values of ``KEY=VALUE`` options."""

import ast
from typing import Any

_QUOTES = ('"', "'")
_BRACKETS = {'(': ')', '[': ']', '{': '}'}
_LITERALS = (int, float, bool, str, dict, type(None))


class OptionText(str):
    """Value of an option as typed on the command line. Only such values are parsed."""


def parse_value(text: str, present: Any = None) -> Any:
    """Parse a value.

    Numbers, ``None``, ``True``, ``False`` and values in quotes or braces are read as in Python. ``[…]`` is a list and
    ``(…)`` a tuple, with a single item too; words in them need no quotes. Anything else stays text if it replaces a
    text; otherwise commas separate the items of a list, and numbers, ``true`` and ``false`` may be written as MMEngine
    allows. Blanks inside a value are kept.

    Args:
        text: The value.
        present: Value that it replaces; None without one.

    Returns:
        The parsed value, or the text as a plain ``str``.
    """
    text = str(text)
    found, value = _literal(text)
    if found:
        return value
    if _is_enclosed(text, '(['):
        values = [parse_value(item) for item in _items(text[1:-1])]
        return tuple(values) if text[0] == '(' else values
    if isinstance(present, str):
        return text
    items = _items(text)
    return _scalar(text) if items in ([], [text.strip()]) else [parse_value(item) for item in items]


def has_open_bracket(text: str) -> bool:
    """Return True if a value begins with a bracket that is never closed."""
    return text[:1] in tuple(_BRACKETS) and _depths(text)[-1:] not in ([], [0])


def _literal(text: str) -> tuple[bool, Any]:
    quoted = text[:1] in _QUOTES and text[-1:] == text[0]
    word = not set(text) & set(' \t\n#_,()[]')  # Python reads 2024_05 as a number
    if not (quoted or word or _is_enclosed(text, '{')):
        return False, None
    try:
        value = ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False, None
    return isinstance(value, _LITERALS), value


def _scalar(text: str) -> Any:
    if '_' in text:  # Python's separator of digits
        return text
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {'true': True, 'false': False}.get(text.lower(), text)


def _is_enclosed(text: str, brackets: str) -> bool:
    """Return True if the first character is one of these opening brackets and the last one closes it."""
    return text[:1] in tuple(brackets) and _depths(text)[-1:] == [0] and 0 not in _depths(text)[:-1]


def _items(text: str) -> list[str]:
    """Split at the commas outside brackets and quotes; return the whole text if these do not match."""
    depths = _depths(text)
    if depths[-1:] != [0]:
        return [text] if text else []
    commas = [index for index, depth in enumerate(depths) if text[index] == ',' and depth == 0]
    items = [text[start:end].strip() for start, end in zip([0, *(i + 1 for i in commas)], [*commas, None], strict=True)]
    return items if items[-1] else items[:-1]


def _depths(text: str) -> list[int]:
    """Return the number of open brackets and quotes after each character; empty if a closing bracket matches none."""
    depths: list[int] = []
    closing: list[str] = []
    for index, character in enumerate(text):
        if closing and character == closing[-1]:
            closing.pop()
        elif closing and closing[-1] in _QUOTES:
            pass
        elif character in _BRACKETS:
            closing.append(_BRACKETS[character])
        elif character in _QUOTES and (index == 0 or text[index - 1] in ' ,([{:='):  # else an apostrophe
            closing.append(character)
        elif character in _BRACKETS.values():
            return []
        depths.append(len(closing))
    return depths
