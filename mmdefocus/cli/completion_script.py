"""Scripts with which a shell completes the commands. Needs shtab, but no torch."""

import argparse

import shtab

from mmdefocus.apis.zoo_table import CLASSIFIERS, DETECTORS

from .main import make_parser

# What a placeholder of the help, as in --out DIR, completes to.
PLACEHOLDERS = {
    'FILE': shtab.FILE,
    'CHECKPOINT': shtab.FILE,
    'IMAGES': shtab.FILE,
    'DATA': shtab.FILE,
    'PATH': shtab.FILE,
    'DIR': shtab.DIRECTORY,
    'FOLDER': shtab.DIRECTORY,
    'WORK_DIR': shtab.DIRECTORY,
}


def completion_script(shell: str) -> str:
    """Return a script for ``bash``, ``zsh`` or ``tcsh``.

    Arguments with one of the placeholders above complete files or folders; ``MODEL`` completes models of the zoo and
    files.
    """
    parser = make_parser()
    for action in _actions(parser):
        metavar = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
        if metavar == 'MODEL':
            if not action.option_strings:
                action.nargs = None  # shtab gives all further words to an optional positional argument
            action.complete = _models_or_files(sorted({row[0] for row in DETECTORS + CLASSIFIERS}))  # type: ignore[attr-defined]
        elif metavar in PLACEHOLDERS and action.choices is None:
            action.complete = PLACEHOLDERS[metavar]  # type: ignore[attr-defined]
    return shtab.complete(parser, shell)


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Return all arguments of a parser and of its commands."""
    found = []
    for action in parser._actions:
        found.append(action)
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                found += _actions(command)
    return found


def _models_or_files(names: list[str]) -> dict:
    words = ' '.join(names)
    return {
        'bash': '_mmdefocus_model_or_file',
        'zsh': f'{{compadd -- {words}; _files}}',
        'tcsh': 'f',
        'preamble': {
            'bash': f'_mmdefocus_model_or_file() {{\n  compgen -W \'{words}\' -- "$1"\n  compgen -f -- "$1"\n}}\n',
        },
    }
