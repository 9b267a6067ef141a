"""Run the blocks of a page in a copy of the checkout, with the stand-ins that their comments name."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import yaml
from document_blocks import ROOT, Block
from stub_commands import NEEDS

HERE = Path(__file__).parent
COPIED = ('.ci', 'configs', 'docs', 'requirements', 'tools')
LINKED = ('mmdefocus', 'tests')
SECONDS = 300
WITH_VALUE = (
    'coco',
    'imagenet',
    'imagenet21k',
    'images',
    'digit-images',
    'boxes',
    'yolo',
    'photo',
    'official',
    'checkpoint',
)
ALONE = ('download', 'gpus', 'slurm', 'packages', 'make', 'full-size', 'all-epochs', 'all-images')


class BlockError(Exception):
    """A block that does not do what its page says."""


def copy_checkout(folder: Path) -> None:
    """Copy what a block may change, and link the rest."""
    for name in COPIED:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns('__pycache__'))
    for name in LINKED:
        (folder / name).symlink_to(ROOT / name)
    for path in ROOT.iterdir():
        if path.is_file() and path.name != '.git':  # a work tree has a file of this name
            shutil.copy(path, folder)


def write_commands(folder: Path) -> None:
    """Write a ``.venv/bin`` whose programs are those of the stand-ins."""
    folder.mkdir(parents=True)
    here, python = HERE.as_posix(), sys.executable
    scripts = {name: f'exec {python} {here}/stub_commands.py {name} "$@"' for name in NEEDS}
    for name in ('python', 'python3'):
        scripts[name] = f'exec {python} -I -S {here}/python_client.py "$DOCUMENTS_SOCKET" "$@"'
    scripts['mmdefocus'] = f'exec {python} -I -S {here}/python_client.py "$DOCUMENTS_SOCKET" -m mmdefocus "$@"'
    for name, command in scripts.items():
        (folder / name).write_text(f'#!/bin/sh\n{command}\n')
        (folder / name).chmod(0o755)
    (folder / 'activate').write_text(f'export VIRTUAL_ENV={folder.parent}\nexport PATH={folder}:$PATH\n')


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


class PageSession:
    """The directory in which the blocks of one page run, and the output of the last one."""

    def __init__(self, folder: Path, python_socket: Path, file_server: str) -> None:
        self.folder = folder
        self.output = ''
        copy_checkout(folder)
        commands = folder / '.venv' / 'bin'
        write_commands(commands)
        (folder / '.home').mkdir()
        self.environment = {
            **{name: os.environ[name] for name in ('LANG', 'LC_ALL', 'TMPDIR', 'USER') if name in os.environ},
            'PATH': f'{commands}:{os.environ["PATH"]}',
            'HOME': str(folder / '.home'),
            'TORCH_HOME': str(folder / '.home' / 'torch'),
            'PYTHONPATH': str(ROOT),
            'OMP_NUM_THREADS': '1',
            'CUDA_VISIBLE_DEVICES': '',
            'MPLBACKEND': 'Agg',
            'PORT': str(free_port()),
            'DOCUMENTS_SOCKET': str(python_socket),
            'DOCUMENTS_PYTHON': str(commands / 'python'),
            'DOCUMENTS_FILE_SERVER': file_server,
        }

    def check(self, block: Block) -> None:
        """Run or parse a block, as its language and its comments say.

        Raises:
            BlockError: The block does not do what it should.
        """
        for item in block.items('needs'):
            self.provide(block, item)
        if 'before' in block.words:
            self.bash(block, block.words['before'])
        self.test(block, self.replaced(block))
        for text in block.items('prints', ';'):
            if text not in self.output:
                raise BlockError(f'{block} does not print {text!r}:\n{self.output[-3000:]}')

    def test(self, block: Block, code: str) -> None:
        written = [word for word in ('file', 'config', 'model', 'merge') if word in block.words]
        if 'output' in block.words:
            self.compare_output(block, code)
        elif 'paths' in block.words:
            self.find_paths(block, code)
        elif 'tested by' in block.words:
            find_test(block)
        elif written:
            self.write(block, written[0], code)
        elif block.language == 'bash' or 'bash' in block.words:
            self.run(block, code)
        elif block.language == 'python':
            script = self.folder / 'block.py'
            script.write_text(code)
            self.run(block, 'python block.py')
        else:
            parse(block, code)

    def provide(self, block: Block, item: str) -> None:
        word, _, value = item.partition(' ')
        if (word in WITH_VALUE and value) or (word in ALONE and not value):
            if word in WITH_VALUE:
                self.bash(block, f'python {HERE}/make_stand_in.py "{item}"')
            return
        raise BlockError(
            f'{block}: expected one of {", ".join(ALONE)}, or one of {", ".join(WITH_VALUE)} with a path, in '
            f'<!-- needs: … -->; got {item!r}. CONTRIBUTING.md explains them'
        )

    def replaced(self, block: Block) -> str:
        """Return the code with the values of the words that the reader replaces."""
        code = block.code
        for item in block.items('let'):
            name, _, value = item.partition('=')
            if not re.search(rf'\b{name}\b', code):
                raise BlockError(f'{block} has no {name!r} to replace')
            code = re.sub(rf'\b{name}\b', lambda _, value=value: value, code)
        return code

    def run(self, block: Block, code: str) -> None:
        """Run the commands of a block itself."""
        parse_only = {'DOCUMENTS_PARSE': 'yes'} if 'parse' in block.words else {}
        self.bash(block, code, block.words.get('fails'), parse_only)

    def bash(
        self, block: Block, code: str, expected: str | None = None, variables: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        """Run commands as a user's shell would, and keep their output."""
        environment = {**self.environment, **variables, 'DOCUMENTS_NEEDS': ','.join(block.items('needs'))}
        process = subprocess.Popen(
            ['bash', '-euo', 'pipefail', '-c', code],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            self.output, _ = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise BlockError(f'{block} takes more than {SECONDS} s') from None
        if expected is None and process.returncode:
            raise BlockError(f'{block} ended with status {process.returncode}:\n{code}\n{self.output[-4000:]}')
        if expected is not None and not (process.returncode and expected in self.output):
            raise BlockError(
                f'{block} should fail with {expected!r}, but ended with status {process.returncode}:\n'
                f'{code}\n{self.output[-4000:]}'
            )

    def write(self, block: Block, word: str, code: str) -> None:
        """Write a block to the file that its comment names, and use it there."""
        path = self.folder / block.words[word]
        if word == 'merge':
            code = f'_base_ = "./{path.name}"\n\n{code}'
            path = path.with_name(f'{path.stem}_changed.py')
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)
        name = path.relative_to(self.folder)
        if word in ('config', 'merge'):
            self.run(block, f'python tools/train.py {name} --work-dir work_dirs/{path.stem}')
        elif word == 'model':
            self.run(block, f'python {HERE}/build_model.py {name}')
        elif path.suffix == '.py' and block.language == 'python':
            self.run(block, f'python {name}')

    def compare_output(self, block: Block, code: str) -> None:
        rest = self.output
        for line in filter(None, map(str.strip, code.splitlines())):
            pattern = '.*'.join(map(re.escape, re.split(r'…|\.\.\.', line)))
            found = re.search(pattern, rest)
            if found is None:
                raise BlockError(f'{block}: the block before it did not print {line!r}:\n{self.output[-3000:]}')
            rest = rest[found.end() :]

    def find_paths(self, block: Block, code: str) -> None:
        for line in code.splitlines():
            if line[:1].strip() and not any_path(self.folder, line.split()[0]):
                raise BlockError(f'{block}: there is no {line.split()[0]!r}')


def any_path(folder: Path, path: str) -> bool:
    """Return True if a folder has this path; `<name>` stands for any name, `{a,b}` for both."""
    braces = re.fullmatch(r'(.*)\{(.*)\}(.*)', path)
    if braces:
        return all(any_path(folder, f'{braces[1]}{part}{braces[3]}') for part in braces[2].split(','))
    return any(True for _ in folder.glob(re.sub('<.*?>', '*', path).rstrip('/')))


def find_test(block: Block) -> None:
    path, _, name = block.words['tested by'].partition('::')
    if not (ROOT / path).is_file() or f'def {name}(' not in (ROOT / path).read_text():
        raise BlockError(f'{block}: there is no test {block.words["tested by"]!r}')


def parse(block: Block, code: str) -> None:
    """Parse a block of data."""
    try:
        {'json': json.loads, 'yaml': yaml.safe_load, 'bibtex': parse_bibtex}[block.language](code)
    except ValueError as error:
        raise BlockError(f'{block} is no {block.language}: {error}') from error


def parse_bibtex(code: str) -> dict[str, str]:
    """Return the fields of an entry."""
    entry = re.fullmatch(r'@\w+\{[\w:-]+,\n(.*)\n\}\s*', code, re.DOTALL)
    fields = dict(re.findall(r'^\s*(\w+)\s*=\s*\{([^{}]*)\},?$', entry[1] if entry else '', re.MULTILINE))
    if not {'title', 'author', 'year'} <= fields.keys():
        raise ValueError(f'expected an entry with title, author and year, got the fields {sorted(fields)}')
    return fields


@contextlib.contextmanager
def python_server(folder: Path) -> Iterator[Path]:
    """Start the process that runs the Python programs, with a log in ``folder``; the result is its socket."""
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': '', 'MPLBACKEND': 'Agg'}
    log = folder / 'server.log'
    # Not in the folder of the tests: the path of a socket has at most 107 characters.
    with tempfile.TemporaryDirectory(prefix='documents', dir='/tmp') as short, log.open('w') as output:
        path = Path(short, 'python')
        process = subprocess.Popen(
            [sys.executable, str(HERE / 'python_server.py'), str(path)],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        try:
            while not path.exists():
                if process.poll() is not None:
                    raise RuntimeError(log.read_text())
                time.sleep(0.1)
            yield path
        finally:
            process.kill()
            process.wait()
