"""Write dated benchmark reports in Markdown."""

import datetime
import importlib.metadata
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from compile_cuda import LOG, ROOT, resources

from mmdefocus.ops import available_backends
from mmdefocus.ops.backends import ENVIRONMENT_VARIABLE

BEGIN_MARK, END_MARK = '<!-- begin of the benchmark -->\n', '<!-- end of the benchmark -->\n'


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a Markdown table with aligned columns; columns of numbers are right-aligned."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    right = [all(row[i][:1].isdigit() or not row[i] for row in rows) for i in range(len(header))]
    rule = ['-' * (width - 1) + (':' if to_right else '-') for width, to_right in zip(widths, right, strict=True)]
    lines = [header, rule, *rows]
    return '\n'.join(
        '| '
        + ' | '.join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(line, widths, right, strict=True)
        )
        + ' |'
        for line in lines
    )


def dated_report(title: str, machine: str, body: str) -> str:
    """Format a report with the machine, the revision and the command that reproduces it."""
    command = shlex.join(['python', f'tools/{Path(sys.argv[0]).name}', *sys.argv[1:]])
    return f"""# {title}, {datetime.date.today().isoformat()}
{machine} mmdefocus {revision()}.

    {command}

[README.md](README.md) explains the columns.

{body}"""


def revision() -> str:
    """Return the package version, followed by the commit in a Git checkout."""
    version = importlib.metadata.version('mmdefocus') if installed('mmdefocus') else 'not installed'
    command = ['git', 'describe', '--always', '--dirty']
    try:
        commit = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return version
    return f'{version}, commit {commit}'


def installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def backends() -> str:
    """List the backends that can run here and the reasons why others cannot."""
    lines = [f'- `{name}`: {reason or "runs"}' for name, reason in available_backends().items()]
    if ENVIRONMENT_VARIABLE in os.environ:
        lines.append(f'- `{ENVIRONMENT_VARIABLE}={os.environ[ENVIRONMENT_VARIABLE]}`')
    return '\n'.join(['## Backends', *lines, ''])


def cuda_kernels() -> str:
    """Format registers and spills per CUDA kernel; empty unless tools/compile_cuda.py has left its log."""
    if not LOG.exists():
        return ''
    date = datetime.date.fromtimestamp(LOG.stat().st_mtime).isoformat()
    header = ('kernel', 'for', 'registers', 'bytes spilled / reloaded')
    return f"""## CUDA kernels
As ptxas reported on {date} to `tools/compile_cuda.py`:

{table(header, resources(LOG.read_text()))}
"""


def around_marks(path: Path) -> tuple[str, str]:
    """Split a document at the marks between which the benchmark is written; both parts keep their mark.

    Raises:
        ValueError: If the document does not exist or lacks the marks.
    """
    document = path.read_text(encoding='utf-8') if path.exists() else ''
    before, begin, rest = document.partition(BEGIN_MARK)
    _, end, after = rest.partition(END_MARK)
    if not (begin and end):
        raise ValueError(f"'{path}' has no lines '{BEGIN_MARK.strip()}' and '{END_MARK.strip()}' to write between")
    return before + begin, end + after
