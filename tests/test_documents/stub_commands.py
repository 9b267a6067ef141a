"""Commands that would install something, take long or need a cluster: ``stub_commands.py NAME ARGUMENTS``.

They check what can be checked here, and do nothing else.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

NEEDS = {
    'apt': 'packages',
    'pip': 'packages',
    'pre-commit': 'packages',
    'make': 'make',
    'pytest': 'make',
    'srun': 'slurm',
}


def canonical(name: str) -> str:
    return re.sub(r'[-_.]+', '-', name).lower()


def apt(arguments: list[str]) -> str | None:
    """Compare with the packages that the tools ask for where one is missing."""
    asked = re.findall(r'apt install ([\w+. -]+)', Path('tools/setup.sh').read_text() + Path('.ci/run').read_text())
    missing = {name for names in asked for name in names.split()} - set(arguments)
    if arguments[:1] != ['install'] or len(arguments) < 2:
        return f'expected "apt install NAME…", got {arguments}'
    return f'the tools also ask for {sorted(missing)}' if missing else None


def pip(arguments: list[str]) -> str | None:
    """Let pip parse the options, and find every name in the constraints and every path in the checkout."""
    from pip._internal.commands import create_command

    options, names = create_command(arguments[0]).parse_args(arguments[1:])
    for path in [*options.editables, *[name for name in names if name.startswith('.')]]:
        if not Path(path, 'pyproject.toml').exists():
            return f'{path!r} is no Python package'
    for path in options.constraints:
        if not Path(path).exists():
            return f'there is no {path!r}'
        pinned = {canonical(re.split('==|;', line)[0]) for line in Path(path).read_text().splitlines() if '==' in line}
        missing = [name for name in names if not name.startswith('.') and canonical(name) not in pinned]
        if missing:
            return f'{path} does not have {missing}'
    return None


def pre_commit(arguments: list[str]) -> str | None:
    """Find the programs of all hooks where `make setup` installs them."""
    entries = re.findall(r'entry: \.venv/bin/(\S+)', Path('.pre-commit-config.yaml').read_text())
    missing = [entry for entry in entries if not Path(sys.executable).with_name(entry).exists()]
    if arguments != ['install'] or not entries:
        return f'expected "pre-commit install" and hooks from .venv, got {arguments} and {entries}'
    return f'there is no {missing}' if missing else None


def pytest(arguments: list[str]) -> str | None:
    missing = [path for path in arguments if not path.startswith('-') and not Path(path.partition('::')[0]).exists()]
    return f'there is no {missing}' if missing else None


def make(arguments: list[str]) -> str | None:
    """Print the commands of the targets; run the demo, which is a script without them."""
    own = str(Path(os.environ['DOCUMENTS_PYTHON']).parent)
    real = shutil.which('make', path=os.pathsep.join(x for x in os.environ['PATH'].split(os.pathsep) if x != own))
    if real is None:
        return 'there is no make on this machine'
    done = subprocess.run([real, '-n', *arguments], check=False)
    if done.returncode == 0 and 'demo' in arguments:
        os.execvp('bash', ['bash', 'tools/demo.sh'])
    return f'make -n ended with status {done.returncode}' if done.returncode else None


def srun(arguments: list[str]) -> str | None:
    """Check the options with their types, and run the command once without its launcher."""
    parser = argparse.ArgumentParser(prog='srun', allow_abbrev=False)
    for option in ('partition', 'job-name', 'gres'):
        parser.add_argument(f'--{option}', required=True)
    for option in ('ntasks', 'ntasks-per-node', 'cpus-per-task', 'kill-on-bad-exit'):
        parser.add_argument(f'--{option}', type=int, required=True)
    parser.add_argument('command', nargs=argparse.REMAINDER)
    command = parser.parse_args(arguments).command
    launcher = command.index('--launcher') + 1
    if command[launcher] != 'slurm':
        return f'expected --launcher slurm, got {command[launcher]}'
    command[launcher] = 'none'
    return os.execvp(command[0], command)


if __name__ == '__main__':
    name, *words = sys.argv[1:]
    if NEEDS[name] not in os.environ['DOCUMENTS_NEEDS'].split(','):
        sys.exit(f'the block needs the comment <!-- needs: {NEEDS[name]} --> for {name}')
    complaint = globals()[name.replace('-', '_')](words)
    if complaint:
        sys.exit(f'{name} {" ".join(words)}: {complaint}')
