"""Categories that all splits of a detection set share."""

from typing import Any

from mmdefocus.datasets.coco_checks import abbreviate
from mmdefocus.datasets.errors import DataError
from mmdefocus.datasets.prepared.source_data import SourceData


def common_categories(source: SourceData) -> tuple[list[dict[str, Any]], dict[str, dict[Any, Any]], list[str]]:
    """Return the categories of the training split, without the empty supercategory that Roboflow adds.

    Returns:
        The categories in the order of the labels; for every split, its ids by those of training; notes.

    Raises:
        DataError: Another split has boxes of a category that training does not list.
    """
    notes = []
    used = {
        name: {ann.get('category_id') for ann in split.content['annotations']} for name, split in source.splits.items()
    }
    categories = list(source.splits['train'].content['categories'])
    empty = superfluous_category(source)
    if empty is not None:
        categories = [category for category in categories if category['id'] != empty['id']]
        notes.append(
            f'Category {empty["id"]} {empty["name"]!r} is left out: no box has it, and it is the supercategory of all '
            'others, as Roboflow writes it.'
        )
    own = {category['name']: category['id'] for category in categories}
    ids: dict[str, dict[Any, Any]] = {}
    for name, split in source.splits.items():
        named = {category['id']: category['name'] for category in split.content['categories']}
        unknown = [one for number, one in named.items() if one not in own and number in used[name]]
        if unknown:
            raise DataError(
                f'{name} has boxes of the categories {abbreviate(unknown)}, which train does not list; train has '
                f'{abbreviate(own)}: correct the names, or add images of them to train'
            )
        ids[name] = {number: own[one] for number, one in named.items() if one in own}
        others = [one for one in named.values() if one not in own and (empty is None or one != empty['name'])]
        if others:
            notes.append(f'{name}: the categories {abbreviate(others)} are left out: no box has them, nor does train.')
        if any(number != same for number, same in ids[name].items()):
            notes.append(f'{name}: the ids of its categories differ from those of train, which are used.')
        if named and (lacking := [one for one in own if one not in named.values()]):
            notes.append(f'{name}: it does not list the categories {abbreviate(lacking)} of train.')
    return categories, ids, notes


def superfluous_category(source: SourceData) -> dict[str, Any] | None:
    """Return the category without boxes that Roboflow writes as the supercategory of all others; None without it."""
    categories = source.splits['train'].content['categories']
    used = {ann.get('category_id') for split in source.splits.values() for ann in split.content['annotations']}
    for category in categories:
        others = [other for other in categories if other is not category]
        if (
            category.get('supercategory') == 'none'
            and category['id'] not in used
            and others
            and all(other.get('supercategory') == category['name'] for other in others)
        ):
            return category
    return None
