"""A broken input: what is broken, how a user meets it, and what the message must say."""

import itertools
import re
import runpy
import shutil
import sys
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

TOOLS = Path(__file__).parents[2] / 'tools'
TOYS = Path(__file__).parent / 'toys'
numbers = itertools.count()


class Workplace:
    """A directory with valid toy inputs, in which the tools run."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
        self.root = root
        self.monkeypatch = monkeypatch
        self.capsys = capsys
        monkeypatch.chdir(root)
        monkeypatch.setattr('torch.cuda.is_available', lambda: False)
        for display in ('DISPLAY', 'WAYLAND_DISPLAY'):
            monkeypatch.delenv(display, raising=False)
        # Loggers of earlier tests write to their streams, which are closed.
        monkeypatch.setattr('mmengine.logging.MMLogger._instance_dict', OrderedDict())
        # MMEngine formats the whole config three times per run, which takes most of the time of a case.
        monkeypatch.setattr('yapf.yapflib.yapf_api.FormatCode', lambda text, **_: (text, True))

    def run(self, tool: str, *words: str | Path) -> str:
        """Run a tool that is to end with an error, and return the message."""
        self.capsys.readouterr()
        self.monkeypatch.setattr(sys, 'argv', [tool, *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(str(TOOLS / tool), run_name='__main__')
        printed = self.capsys.readouterr()
        assert stop.value.code == 2
        assert 'Traceback' not in printed.out + printed.err
        message = re.search(r'^(?:\S+: )?error: (.*)', printed.err, re.MULTILINE | re.DOTALL)
        assert message is not None, printed.err
        return message[1].strip()

    def train(self, config: str = 'detector.py', *words: str | Path) -> str:
        return self.run('train.py', config, '--work-dir', 'runs', *words, *self._name())

    def train_with_warning(self, config: str = 'detector.py') -> str:
        """Run a training, which is to succeed with one warning about the data, and return it."""
        self.capsys.readouterr()
        self.monkeypatch.setattr(sys, 'argv', ['train.py', config, '--work-dir', 'runs', *self._name()])
        runpy.run_path(str(TOOLS / 'train.py'), run_name='__main__')
        printed = self.capsys.readouterr()
        found = re.findall(r"WARNING - ('.*)", printed.out + printed.err)  # those of MMEngine do not begin with a file
        assert len(set(found)) == 1, found
        return f'warning: {found[0]}'

    def test(self, config: str = 'classifier.py', checkpoint: str = 'weights.pth', *words: str | Path) -> str:
        return self.run('test.py', config, checkpoint, '--work-dir', 'runs', *words, *self._name())

    def demo(self, image: str = 'images/a.jpg', *words: str | Path, config: str = 'classifier.py') -> str:
        given = () if '--checkpoint' in words else ('--checkpoint', 'weights.pth')
        return self.run('image_demo.py', image, config, *given, '--device', 'cpu', *words)

    def refusal(self, call: Callable[..., Any], *given: Any, **options: Any) -> str:
        """Call a function that is to raise an error of Python with a message, and return the message."""
        with pytest.raises((ValueError, TypeError, OSError)) as raised:
            call(*given, **options)
        return f'{type(raised.value).__name__}: {raised.value}'

    @staticmethod
    def _name() -> tuple[str, str]:
        return '--cfg-options', f'experiment_name=broken_{next(numbers)}'  # MMEngine keeps state under this name


@dataclass(frozen=True)
class Case:
    """A broken input.

    Attributes:
        what: What is broken, as the page says it.
        attempt: Breaks a valid toy input, uses it as a user would, and returns the message.
        says: Parts of the message, separated by `` | ``: what came, what was expected, what to do.
    """

    what: str
    attempt: Callable[[Workplace], str]
    says: str


def each(cases: list[Case]) -> pytest.MarkDecorator:
    """Parametrize a test by these cases."""
    return pytest.mark.parametrize('case', cases, ids=[case.what for case in cases])


def copied(source: Path, destination: Path) -> Path:
    """Copy the valid inputs, which are shared by all tests."""
    return Path(shutil.copytree(source, destination))
