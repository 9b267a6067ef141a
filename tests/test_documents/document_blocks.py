"""Find the code blocks of a Markdown page, and the invisible comments that say how each is tested.

CONTRIBUTING.md explains the words of the comments.
"""

import ast
import re
from dataclasses import dataclass, field
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]
WORDS = {
    'needs': True,
    'let': True,
    'before': True,
    'prints': True,
    'fails': True,
    'output': False,
    'file': True,
    'config': True,
    'model': True,
    'merge': True,
    'bash': False,
    'parse': False,
    'paths': False,
    'tested by': True,
}  # by word: whether it has a value
RUN, PARSED = ('bash', 'python'), ('json', 'yaml', 'bibtex')
# One of these says how a block in another language is tested.
SUFFICIENT = ('output', 'file', 'bash', 'paths', 'tested by')
# tools/benchmark*.py write these reports; their commands measured for minutes.
REPORTS = 'docs/benchmarks/[0-9]*.md'
COMMENT = re.compile(r'<!--\s*(.*?)\s*-->', re.DOTALL)


class PageError(Exception):
    """A block of a page that has no test, or whose comment is wrong."""


@dataclass
class Block:
    """A code block; ``line`` is its first one in the page, ``words`` are its comments by their first word."""

    page: str
    line: int
    language: str
    code: str
    words: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f'{self.page}:{self.line}'

    def items(self, word: str, separator: str = ',') -> list[str]:
        """Return the parts of a comment's value."""
        return [part.strip() for part in self.words.get(word, '').split(separator) if part.strip()]


def pages() -> list[str]:
    """Return the paths of all Markdown pages of the repository."""
    found = [
        *ROOT.glob('*.md'),
        *(path for folder in ('docs', 'configs', 'tests') for path in (ROOT / folder).rglob('*.md')),
    ]
    return sorted(str(path.relative_to(ROOT)) for path in found)


def read_blocks(page: str, text: str | None = None) -> list[Block]:
    """Return the code blocks of a page, in order.

    Raises:
        PageError: A block has no test, or a comment directly above a block has an unknown word.
    """
    tokens = MarkdownIt('commonmark').enable('table').parse((ROOT / page).read_text() if text is None else text)
    blocks = []
    comments: list[Token] = []  # directly above the present token
    for token in tokens:
        if token.type == 'html_block':
            comments = [*(comments if comments and comments[-1].map[1] == token.map[0] else []), token]
            continue
        if token.type not in ('fence', 'code_block'):
            continue
        language = token.info.split()[0] if token.info.strip() else ''
        block = Block(page, token.map[0] + 1, language, token.content)
        if comments and comments[-1].map[1] == token.map[0]:
            block.words = read_words(block, ''.join(comment.content for comment in comments))
        if Path(page).match(REPORTS) and not language:
            block.words = {'bash': '', 'parse': ''}
        check_words(block)
        blocks.append(block)
    return blocks


def read_words(block: Block, comments: str) -> dict[str, str]:
    words: dict[str, str] = {}
    for comment in COMMENT.findall(comments):
        word, _, value = comment.partition(':')
        if word not in WORDS:
            raise PageError(f'{block}: expected one of the comments {", ".join(WORDS)} above the block, got {word!r}')
        if bool(value.strip()) != WORDS[word]:
            raise PageError(f'{block}: expected <!-- {word}{": …" if WORDS[word] else ""} -->, got {comment!r}')
        words[word] = value.strip()
    return words


def is_settings(code: str) -> bool:
    """Return True if Python code only assigns values, as configs do."""
    return all(isinstance(statement, ast.Assign) for statement in ast.parse(code).body)


def check_words(block: Block) -> None:
    if block.language == 'python' and is_settings(block.code) and not {'config', 'model', 'merge'} & block.words.keys():
        raise PageError(
            f'{block}: these are settings, which do nothing by themselves; write one of <!-- config: … -->, '
            '<!-- model: … -->, <!-- merge: … --> directly above the block; CONTRIBUTING.md explains them'
        )
    if block.language in RUN + PARSED or any(word in block.words for word in SUFFICIENT):
        return
    raise PageError(
        f'{block}: nothing tests this block. Name its language, one of {", ".join(RUN + PARSED)}, or write one of '
        f'{", ".join(f"<!-- {word} -->" for word in SUFFICIENT)} directly above it; CONTRIBUTING.md explains them'
    )
