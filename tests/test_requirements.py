"""Check that set-up, README and pyproject.toml name the pinned versions, and that documented commands install them."""

import re
import shlex
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

try:
    import tomllib
except ImportError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
README = (ROOT / 'README.md').read_text()
PROJECT = tomllib.loads((ROOT / 'pyproject.toml').read_text())
SETUP = (ROOT / 'tools' / 'setup.sh').read_text()
CONSTRAINTS = ('-c', 'requirements/constraints.txt')


def pins() -> dict[str, set[str]]:
    """Return all pinned versions of each package; they may differ between versions of Python."""
    found: dict[str, set[str]] = {}
    for line in (ROOT / 'requirements' / 'constraints.txt').read_text().splitlines():
        if not line.startswith('#'):
            pin = Requirement(line)
            (version,) = pin.specifier
            assert version.operator == '==', line
            found.setdefault(pin.name.lower(), set()).add(version.version)
    return found


PINS = pins()
EXTRAS = PROJECT['project']['optional-dependencies']
REQUIRED = [*PROJECT['project']['dependencies'], *PROJECT['build-system']['requires']]
DECLARED = [*REQUIRED, *EXTRAS['det'], *EXTRAS['analysis'], *EXTRAS['dev']]


def array(name: str) -> list[str]:
    """Return the words of an array in tools/setup.sh."""
    return re.search(rf'^{name}=\(([^)]*)\)$', SETUP, re.MULTILINE)[1].split()


def commands_for_own_environment() -> list[list[str]]:
    block = README.partition('**Into your own environment**')[2].split('```')[1].removeprefix('bash\n')
    return [shlex.split(line, comments=True) for line in block.replace('\\\n', ' ').strip().splitlines()]


@pytest.mark.parametrize('requirement', sorted(set(DECLARED)))
def test_pinned_versions_satisfy_the_declared_requirements(requirement):
    declared = Requirement(requirement)
    assert all(declared.specifier.contains(version) for version in PINS[declared.name.lower()])


def test_set_up_installs_only_pinned_packages():
    packages = [*array('BUILD_TOOLS'), *array('OPENMMLAB'), *array('DEVELOPMENT'), 'torch', 'torchvision', 'onedl-mmcv']
    assert len(packages) > 10
    assert not {package.lower() for package in packages} - PINS.keys()


def test_set_up_installs_the_development_extra():
    assert array('DEVELOPMENT') == EXTRAS['dev']


def test_opencv_replacement_has_the_pinned_version():
    replacement = tomllib.loads((ROOT / 'requirements' / 'opencv-python' / 'pyproject.toml').read_text())['project']
    assert PINS['opencv-python'] == {replacement['version']} == PINS['opencv-python-headless']
    assert replacement['dependencies'] == [f'opencv-python-headless=={replacement["version"]}']


def test_documented_commands_install_the_pinned_packages_of_set_up():
    packages = set()
    for command in commands_for_own_environment():
        words = command[command.index('pip') + 2 :]
        if any(word.startswith(('.', './')) for word in words):
            assert '--no-deps' in words, f'{command} would install unpinned packages'
            continue
        assert tuple(words[:2]) == CONSTRAINTS, command
        packages |= {word for word in words[2:] if not word.startswith('-')}
    assert packages == {*array('BUILD_TOOLS'), *array('OPENMMLAB'), 'torch', 'torchvision', 'onedl-mmcv'}


def test_documented_commands_compile_mmcv_against_the_installed_torch():
    commands = commands_for_own_environment()
    mmcv = next(index for index, command in enumerate(commands) if 'onedl-mmcv' in command)
    assert any('torch' in command for command in commands[:mmcv])
    assert '--no-build-isolation' in commands[mmcv]


def test_readme_table_names_the_pinned_versions():
    rows = dict(re.findall(r'^\| (PyTorch|OpenMMLab) \| (.*?) \|', README, re.MULTILINE))
    named = dict(re.findall(r'(onedl-\w+) ([\d.]+)', rows['OpenMMLab']), torch=rows['PyTorch'])
    assert len(named) == 5
    for package, version in named.items():
        (pinned,) = PINS[package]
        assert Version(pinned).release[: version.count('.') + 1] == Version(version).release


def test_lowest_torch_is_the_same_everywhere():
    """README and pyproject.toml name the lowest version that the checkpoint reader accepts."""
    reading = (ROOT / 'mmdefocus' / 'models' / 'checkpoint' / 'reading.py').read_text()
    lowest = re.search(r'needs PyTorch (\d\.\d+) or newer', reading)[1]
    assert f'| from {lowest}, since' in README
    for requirements in (PROJECT['project']['dependencies'], PROJECT['build-system']['requires']):
        assert f'torch>={lowest}' in requirements
