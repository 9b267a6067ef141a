"""Checks that both inferencers make of their arguments."""

from pathlib import Path
from typing import Any

import torch

from .errors import UsageError
from .images import list_images


class InferencerChecks:
    """Mixin for inferencers of MMEngine: errors for no images and for unknown arguments of a call."""

    preprocess_kwargs: set[str]
    forward_kwargs: set[str]
    visualize_kwargs: set[str]
    postprocess_kwargs: set[str]

    def _inputs_to_list(self, inputs: Any) -> list[Any]:
        if isinstance(inputs, str | Path):
            return list_images(inputs)
        items = super()._inputs_to_list(inputs)  # type: ignore[misc]
        if len(items) == 0:
            raise UsageError('expected at least one image, got an empty list; pass the images, or skip the call')
        for item in items:
            if isinstance(item, dict) and not {'img', 'img_path'} & item.keys():
                raise TypeError(
                    f'expected a dictionary with img or img_path, got the keys {", ".join(map(str, item)) or "none"}; '
                    'pass the image itself'
                )
        return [str(item) if isinstance(item, Path) else item for item in items]

    def _dispatch_kwargs(self, **kwargs: Any) -> tuple[dict, dict, dict, dict]:
        known = self.preprocess_kwargs | self.forward_kwargs | self.visualize_kwargs | self.postprocess_kwargs
        unknown = sorted(kwargs.keys() - known)
        if unknown:
            raise UsageError(
                f'expected arguments among {", ".join(sorted(known))}; got {", ".join(unknown)}: correct the name'
            )
        return super()._dispatch_kwargs(**kwargs)  # type: ignore[misc]


def check_device(device: Any) -> None:
    """Raise ``UsageError`` unless PyTorch can use a device; None is the default one."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            f"device must be 'cpu', or 'cuda' where PyTorch sees a GPU, got {str(device)!r}; use 'cpu'"
        ) from error


def check_config_file(model: Any) -> None:
    """Raise ``FileNotFoundError`` for the name of a config file that does not exist."""
    if isinstance(model, str | Path) and str(model).endswith('.py') and not Path(model).is_file():
        raise FileNotFoundError(
            f"config file '{model}' does not exist (current directory '{Path.cwd()}'); expected the path of a config "
            'file, or the name of a model: correct it'
        )
