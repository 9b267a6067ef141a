"""Checks of classes within and across splits."""

from collections.abc import Mapping

from ..prepared.source_data import Task
from .annotated_split import AnnotatedSplit, count_of, make_finding
from .findings import Example, Finding

_FEW = 10
_IMBALANCE = 100


def count_classes(splits: Mapping[str, AnnotatedSplit], task: Task) -> dict[str, dict[str, int]]:
    """Return the number of boxes (of images, for classification) by class and split, classes in their order."""
    counts: dict[str, dict[str, int]] = {
        name: dict.fromkeys(splits, 0) for annotated in splits.values() for name in annotated.names.values()
    }
    for split, annotated in splits.items():
        entries = annotated.boxed if task == 'detection' else annotated.images
        for entry in entries:
            name = annotated.names.get(entry.get('category_id'))
            if name is not None:
                counts[name][split] += 1
    return counts


def check_classes(
    splits: Mapping[str, AnnotatedSplit], counts: Mapping[str, Mapping[str, int]], task: Task
) -> list[Finding]:
    """Report unused, rare and missing classes, and categories that differ between splits.

    Args:
        splits: All splits.
        counts: Result of :func:`count_classes`.
        task: What the annotations are for.
    """
    thing = 'box' if task == 'detection' else 'image'
    unused = [name for name, numbers in counts.items() if not any(numbers.values())]
    message = f'{len(unused)} of {count_of(len(counts), "category")} without {thing}{_s(thing)}: {_names(unused)}.'
    findings = make_finding('unused_category', '', message, len(unused), _examples(unused, f'no {thing}'))
    findings += _similar_names(list(counts))
    findings += _different_names(splits) or _different_ids(splits)
    used = {name: numbers for name, numbers in counts.items() if any(numbers.values())}
    if len(splits) > 1:
        for split in splits:
            lacking = [name for name, numbers in used.items() if not numbers[split]]
            message = f'No {thing} of {count_of(len(lacking), "class")} that other splits have: {_names(lacking)}.'
            findings += make_finding('class_in_one_split', split, message, len(lacking), _examples(lacking, 'missing'))
    if 'train' in splits:
        findings += _rare({name: numbers['train'] for name, numbers in used.items() if numbers['train']}, thing)
    return findings


def _rare(counts: Mapping[str, int], thing: str) -> list[Finding]:
    rare = sorted((name for name, count in counts.items() if count < _FEW), key=lambda name: counts[name])
    listed = _names([f'{name} ({counts[name]})' for name in rare])
    message = f'{len(rare)} of {count_of(len(counts), "class")} with fewer than {_FEW} training {thing}{_s(thing)}: '
    examples = tuple(Example('', detail=f'{name}: {count_of(counts[name], thing)}') for name in rare)
    findings = make_finding('few_examples', 'train', f'{message}{listed}.', len(rare), examples)
    if counts and max(counts.values()) >= _IMBALANCE * min(counts.values()):
        ordered = sorted(counts, key=lambda name: counts[name])
        most, least = ordered[-1], ordered[0]
        message = (
            f'{most} has {count_of(counts[most], thing)}, {least} has {counts[least]}: '
            f'{counts[most] // counts[least]} times as many.'
        )
        findings += make_finding('imbalance', 'train', message, 1)
    return findings


def _similar_names(names: list[str]) -> list[Finding]:
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(''.join(name.casefold().split()), []).append(name)
    alike = [' and '.join(map(repr, group)) for group in groups.values() if len(group) > 1]
    message = (
        f'{count_of(len(alike), "class")} with several spellings: {_names(alike)}. Each spelling is a class of its own.'
    )
    return make_finding('similar_names', '', message, len(alike), tuple(Example('', detail=one) for one in alike))


def _different_names(splits: Mapping[str, AnnotatedSplit]) -> list[Finding]:
    names = {split: set(annotated.names.values()) for split, annotated in splits.items()}
    everywhere, anywhere = set.intersection(*names.values()), set.union(*names.values())
    different = sorted(anywhere - everywhere)
    examples = tuple(
        Example('', detail=f'{name!r} only in {", ".join(split for split in names if name in names[split])}')
        for name in different
    )
    message = f'{count_of(len(different), "category")} that some splits do not list: {_names(different)}.'
    return make_finding('category_names', '', message, len(different), examples)


def _different_ids(splits: Mapping[str, AnnotatedSplit]) -> list[Finding]:
    ids = {split: list(annotated.names.items()) for split, annotated in splits.items()}
    first, *others = ids
    different = [split for split in others if ids[split] != ids[first]]
    examples = tuple(
        Example(
            '', detail=f'{name!r}: {_position(ids[first], name)} in {first}, {_position(ids[split], name)} in {split}'
        )
        for split in different
        for _, name in ids[first]
        if _position(ids[first], name) != _position(ids[split], name)
    )
    message = (
        f'The same names, but {", ".join(different)} and {first} give them other ids or another order. mmdefocus finds '
        'classes by name; other programs mix them up.'
    )
    return make_finding('category_ids', '', message, len(examples), examples)


def _position(items: list[tuple[object, str]], name: str) -> str:
    position = next(position for position, (_, own) in enumerate(items) if own == name)
    return f'id {items[position][0]!r}, position {position}'


def _names(names: list[str], most: int = 10) -> str:
    return ', '.join(names[:most]) + (f' and {len(names) - most} more' if len(names) > most else '')


def _examples(names: list[str], what: str) -> tuple[Example, ...]:
    return tuple(Example('', detail=f'{name}: {what}') for name in names)


def _s(thing: str) -> str:
    return 'es' if thing.endswith('x') else 's'
