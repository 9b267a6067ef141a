"""Sets of images in one folder per class."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmdefocus.datasets.prepared.image_headers import list_images, read_size
from mmdefocus.datasets.prepared.source_data import SourceSplit
from mmdefocus.datasets.prepared.split_names import paths_by_split

LAYOUT = """\
class folders: train/daisy/*.jpg, train/rose/*.jpg, val/daisy/*.jpg, …; or daisy/*.jpg, rose/*.jpg"""
# Folders that belong to other formats.
_NO_CLASSES = {'images', 'labels', 'annotations', 'jpegimages', 'imagesets', 'masks', 'segmentationclass'}


@dataclass(frozen=True)
class FolderLayout:
    """Folder of every split, which has a folder per class."""

    folders: dict[str, Path]


def find_class_folders(root: Path) -> FolderLayout | None:
    """Return the folder of every split; None unless each has folders with images, and none of another format."""
    if not root.is_dir():
        return None
    folders = paths_by_split(path for path in root.iterdir() if path.is_dir()) or {'train': root}
    classes = [path for folder in folders.values() for path in _class_folders(folder)]
    if any(path.name.lower() in _NO_CLASSES for path in classes):
        return None
    if not all(any(list_images(path, nested=True) for path in _class_folders(folder)) for folder in folders.values()):
        return None
    return FolderLayout(folders)


def read_class_folders(layout: FolderLayout) -> dict[str, SourceSplit]:
    """List the images of all splits. The classes are the names of all folders, sorted, with ids from 0."""
    names = sorted({path.name for folder in layout.folders.values() for path in _class_folders(folder)})
    categories = [dict(id=number, name=name) for number, name in enumerate(names)]
    splits = {}
    for split, folder in layout.folders.items():
        images: list[dict[str, Any]] = []
        for label, name in enumerate(names):
            for path in list_images(folder / name, nested=True) if (folder / name).is_dir() else []:
                width, height = read_size(path) or (None, None)
                images.append(
                    dict(
                        id=len(images) + 1,
                        file_name=path.relative_to(folder).as_posix(),
                        width=width,
                        height=height,
                        category_id=label,
                    )
                )
        splits[split] = SourceSplit(split, folder, dict(images=images, annotations=[], categories=categories))
    return splits


def _class_folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith('.'))
