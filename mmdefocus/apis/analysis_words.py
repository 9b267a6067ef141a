"""Words of a command that name networks and images to analyse."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from urllib.parse import urlparse

from .errors import UsageError
from .images import IMAGE_SUFFIXES, list_images

TIMM = 'timm:'
MODEL_FORMS = '[LABEL=]SOURCE[@CHECKPOINT], where SOURCE is a config file, the name of a model, or timm:NAME'
IMAGE_FORMS = f'a file or URL with one of the suffixes {", ".join(IMAGE_SUFFIXES)}, or a folder of images'
_NO_LABEL = frozenset('@/\\:')


@dataclass(frozen=True)
class ModelWord:
    """What ``[LABEL=]SOURCE[@CHECKPOINT]`` says.

    Attributes:
        label: The label; by default the stem of a config file, or the name.
        source: Config file, name, or ``timm:NAME``.
        checkpoint: Path or URL; None if the word has none.
    """

    label: str
    source: str
    checkpoint: str | None


def parse_model(word: str) -> ModelWord:
    """Split ``[LABEL=]SOURCE[@CHECKPOINT]``.

    Paths may contain ``=`` and ``@``: a reading whose source is an existing file wins, first without a label, with the
    longest such source. Otherwise the source ends at the first ``@``. A label ends at the first ``=`` and has none of
    the characters ``@ / \\ :``, so that neither paths with a folder, nor URLs, nor drives are labels.

    Raises:
        UsageError: A part is empty.
    """
    label = ''
    source, at, checkpoint = _split_checkpoint(word)
    before, equals, rest = word.partition('=')
    if equals and not _NO_LABEL & set(before) and not Path(source).is_file():
        label = before
        source, at, checkpoint = _split_checkpoint(rest)
    if not source or (at and not checkpoint) or (equals and not before):
        raise UsageError(f"expected {MODEL_FORMS}, got '{word}' with an empty part; complete it")
    default = PureWindowsPath(source).stem if source.endswith('.py') else source.removeprefix(TIMM)
    return ModelWord(label or default, source, checkpoint or None)


def split_words(words: Sequence[str]) -> tuple[list[ModelWord], list[str]]:
    """Sort words into networks and images, in their order.

    Images are existing folders, URLs, and files with the suffix of an image. Networks are config files (``.py``), names
    of the model index or of MMPreTrain, and words with ``timm:``, a label or a checkpoint.

    Returns:
        The networks, and the images and folders.

    Raises:
        UsageError: A word is neither, there is no network or no image, or two networks have the same label.
    """
    models = []
    images = []
    for word in words:
        if _is_image(word):
            images.append(word)
            continue
        model = parse_model(word)
        if not _is_model(model, word):
            raise UsageError(
                f"'{word}' is neither a network nor an image: expected {MODEL_FORMS}; or {IMAGE_FORMS}; "
                f'{_suggest(word)}'
            )
        models.append(model)
    for kind, found, forms in (('network', models, MODEL_FORMS), ('image', images, IMAGE_FORMS)):
        if not found:
            raise UsageError(f'no {kind} among the arguments ({" ".join(words)}); add {forms}')
    labels = [model.label for model in models]
    for label in labels:
        if labels.count(label) > 1:
            raise UsageError(
                f"{labels.count(label)} networks have the label '{label}'; give each its own: LABEL=SOURCE[@CHECKPOINT]"
            )
    return models, images


def named_images(sources: Sequence[str]) -> dict[str, str]:
    """Return the paths and URLs of files and of the images in folders, by name.

    The name of an image is that of its file, or the whole path where two files have the same name. A file that is
    named twice is listed once.

    Raises:
        FileNotFoundError: A folder has no image.
    """
    paths = list(dict.fromkeys(path for source in sources for path in list_images(source)))
    names = [PurePosixPath(urlparse(path).path).name if '://' in path else Path(path).name for path in paths]
    return {path if names.count(name) > 1 else name: path for name, path in zip(names, paths, strict=True)}


def model_names() -> list[str]:
    """Return the names of the model index and of MMPreTrain's."""
    from mmpretrain.apis import list_models

    from .model_index import list_names

    return sorted({*list_names(), *list_models()})


def _is_image(word: str) -> bool:
    if word.startswith(('http://', 'https://')):
        return True
    path = urlparse(word).path if '://' in word else word
    return Path(word).is_dir() or Path(path).suffix.lower() in IMAGE_SUFFIXES


def _is_model(model: ModelWord, word: str) -> bool:
    if model.source.endswith('.py') or model.source.startswith(TIMM) or model.source != word:
        return True
    return not Path(word).exists() and word.lower() in map(str.lower, model_names())


def _suggest(word: str) -> str:
    if Path(word).is_file():
        return 'rename the file if it is an image or a config'
    close = difflib.get_close_matches(word.lower(), model_names(), n=3)
    return f'did you mean {", ".join(close)}?' if close else 'correct it'


def _split_checkpoint(text: str) -> tuple[str, str, str]:
    if Path(text).is_file():
        return text, '', ''
    ends = [index for index, character in enumerate(text) if character == '@']
    for end in reversed(ends):
        if Path(text[:end]).is_file():
            return text[:end], '@', text[end + 1 :]
    return text.partition('@')
