"""The linear rule: a learning rate proportional to the number of images of an optimiser step."""

from mmengine.config import Config

from .errors import UsageError


def base_batch_size(cfg: Config) -> int | None:
    """Return the number of images per step for which the recipe's learning rate is made; None if it names none."""
    return (cfg.get('auto_scale_lr') or {}).get('base_batch_size')


def enable_lr_rule(cfg: Config) -> None:
    """Make the training scale its learning rate by the linear rule, in place.

    Args:
        cfg: Config whose ``auto_scale_lr`` has a ``base_batch_size``.

    Raises:
        UsageError: It has none.
    """
    if base_batch_size(cfg) is None:
        raise UsageError(
            'the linear rule needs the number of images per step for which the learning rate of the recipe is made, '
            'which the config does not name; set auto_scale_lr=dict(base_batch_size=...), or set lr and leave the rule '
            'out'
        )
    cfg.auto_scale_lr.enable = True


def scaled_lr(cfg: Config, batch_size: int, world_size: int = 1) -> float:
    """Return the learning rate of a training with this batch size: that of the config where the rule is off.

    Args:
        cfg: Config with an optimiser.
        batch_size: Images per process and batch.
        world_size: Number of processes.
    """
    base, lr = base_batch_size(cfg), cfg.optim_wrapper.optimizer.lr
    return lr * _step(cfg, batch_size, world_size) / base if base is not None and _is_enabled(cfg) else lr


def describe_lr(cfg: Config, batch_size: int, world_size: int = 1) -> str:
    """Say what the learning rate of a training is, and why.

    Args:
        cfg: Config with an optimiser.
        batch_size: Images per process and batch.
        world_size: Number of processes.

    Returns:
        Such as ``'learning rate 0.001 × 8/16 = 0.0005 (linear rule)'``.
    """
    base, lr, step = base_batch_size(cfg), cfg.optim_wrapper.optimizer.lr, _step(cfg, batch_size, world_size)
    if base is not None and _is_enabled(cfg):
        return f'learning rate {lr:g} × {step}/{base} = {scaled_lr(cfg, batch_size, world_size):g} (linear rule)'  # noqa: RUF001
    if base is None:
        return f'learning rate {lr:g} (the recipe names no base batch size for the linear rule)'
    return f'learning rate {lr:g} (linear rule off; it is made for {base} images per step, and there are {step})'


def _is_enabled(cfg: Config) -> bool:
    return bool((cfg.get('auto_scale_lr') or {}).get('enable'))


def _step(cfg: Config, batch_size: int, world_size: int) -> int:
    return batch_size * world_size * cfg.optim_wrapper.get('accumulative_counts', 1)
