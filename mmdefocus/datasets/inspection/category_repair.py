"""The repair of categories, which concerns all splits."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..prepared.source_data import SourceSplit, Task
from .annotated_split import AnnotatedSplit, count_of, is_id
from .class_checks import count_classes


def repair_categories(splits: Mapping[str, AnnotatedSplit], task: Task) -> tuple[dict[str, SourceSplit], str]:
    """Give all splits the same categories: those that anything refers to, in the order and with the ids of the first.

    What refers to a category that its file does not list is dropped.

    Returns:
        New splits, and what was done.
    """
    referred = {
        _name(annotated, entry)
        for annotated in splits.values()
        for entry in annotated.split.content.get('annotations' if task == 'detection' else 'images', [])
    }
    used = [name for name in count_classes(splits, task) if name in referred]
    ids = _common_ids(splits, used)
    repaired, dropped, renamed = {}, 0, 0
    for name, annotated in splits.items():
        content = annotated.split.content
        listed = 'annotations' if task == 'detection' else 'images'
        kept = []
        for entry in content.get(listed, []):
            new = ids.get(_name(annotated, entry))
            if isinstance(entry, dict) and new is not None:
                renamed += new != entry['category_id']
                kept.append(entry | dict(category_id=new))
        dropped += len(content.get(listed, [])) - len(kept)
        own = {entry.get('name'): entry for entry in reversed(content['categories']) if isinstance(entry, dict)}
        categories = [own.get(one, {}) | dict(id=ids[one], name=one) for one in used]
        repaired[name] = replace(annotated.split, content=content | {listed: kept, 'categories': categories})
    before = len({name for annotated in splits.values() for name in annotated.names.values()})
    what = count_of(dropped, 'box' if task == 'detection' else 'image')
    return repaired, (
        f'dropped {what} of unknown categories, removed {before - len(used)} unused categories, gave '
        f'{count_of(renamed, "label")} another id'
    )


def _common_ids(splits: Mapping[str, AnnotatedSplit], used: list[str]) -> dict[str, Any]:
    """Return the id of each category in the first split that lists it; new ones from 1 on if these are not distinct."""
    ids: dict[str, Any] = {}
    for annotated in splits.values():
        for key, name in annotated.names.items():
            ids.setdefault(name, key)
    ids = {name: ids[name] for name in used}
    return ids if len(set(ids.values())) == len(ids) else {name: number for number, name in enumerate(used, 1)}


def _name(annotated: AnnotatedSplit, entry: Any) -> str:
    key = entry.get('category_id') if isinstance(entry, dict) else None
    return annotated.names.get(key, '') if is_id(key) else ''
