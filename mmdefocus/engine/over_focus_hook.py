"""Scores and pictures of what a network looks at, while it trains."""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mmdefocus.analysis.errors import AnalysisError
from mmdefocus.analysis.eval_mode import eval_mode
from mmdefocus.analysis.networks import TokenNetwork
from mmdefocus.analysis.prepared_image import PreparedImage

from .errors import SetupError
from .over_focus_images import read_images, validation_images
from .random_state import random_state, restore_random_state


@HOOKS.register_module()
class DefocusOverFocusHook(Hook):
    """Log the scores of over-focus and a picture every few epochs, to the visualisers of the run.

    The scores are those of :func:`mmdefocus.analysis.scores`, as scalars ``over_focus/SCORE/layer_N``: means over
    images and heads. The picture ``over_focus`` has a row per image: the image, and, for every layer, where the class
    token looks (without one, the central token): the mean of the heads' absolute attention, or, for networks without
    attention, the norm of the gradient of the class logit; the scale of a map ends at its maximum. Of a detector, the
    backbone is analysed.

    The network is analysed with its current weights, those that the optimiser changes, also if the run keeps an average
    of them, in evaluation mode and float32, and once before the training, so that mistakes in the settings end the run
    at its start. A later failure is a warning in the log. The training is the same, bit by bit, as without the hook.
    In a distributed run, the first process does this while the others wait.

    Args:
        interval: Epochs, or iterations with ``by_epoch=False``.
        by_epoch: Whether ``interval`` counts epochs.
        layers: Numbers of layers from 0, or from -1, the last; None for all.
        images: Paths of images, to which the pipeline of the validation set is applied without its loading steps; None
            for the first images of the validation set.
        num_images: Number of these images; without ``images`` only.
        scores: Names of the scores to log; None for all.

    Raises:
        ValueError: An argument is outside its range.
        SetupError: At the start of the run: there is no validation set, an image cannot be read, the network cannot be
            analysed, or a layer or score does not exist.
    """

    # Before the hooks that write logs and checkpoints.
    priority = 'NORMAL'

    def __init__(
        self,
        interval: int = 1,
        by_epoch: bool = True,
        layers: Sequence[int] | None = None,
        images: Sequence[str] | None = None,
        num_images: int = 2,
        scores: Sequence[str] | None = None,
    ) -> None:
        for name, value in (('interval', interval), ('num_images', num_images)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f'{name} must be a whole number of at least 1, got {value!r}')
        for name, values in (('layers', layers), ('images', images), ('scores', scores)):
            if values is not None and (isinstance(values, str | int) or not len(values)):
                raise ValueError(f'{name} must be None or a list with at least one entry, got {values!r}')
        self.interval, self.by_epoch = interval, by_epoch
        self.layers, self.images, self.num_images = layers, images, num_images
        self.scores = scores
        self._prepared: list[PreparedImage] = []

    def before_run(self, runner: Runner) -> None:
        """Check the settings that need no weights."""
        if self.by_epoch and runner._train_loop is not None and not isinstance(runner.train_loop, EpochBasedTrainLoop):
            raise SetupError(
                f'DefocusOverFocusHook counts epochs, but the {type(runner.train_loop).__name__} of this run counts '
                'iterations: set by_epoch=False and interval to a number of iterations'
            )
        if is_model_wrapper(runner.model) and not isinstance(runner.model, DistributedDataParallel):
            raise SetupError(
                'DefocusOverFocusHook needs all weights in one process, but the model is a '
                f'{type(runner.model).__name__}: remove the hook, or train with DistributedDataParallel'
            )
        if is_main_process():
            with _explained():
                TokenNetwork(_model(runner)).select(self.layers)
                self._check_scores()

    def before_train(self, runner: Runner) -> None:
        """Prepare the images, and analyse the network before its training."""
        if is_main_process():
            with _undisturbed(runner), _explained():
                if self.images is None:
                    self._prepared = validation_images(runner, self.num_images)
                else:
                    self._prepared = read_images(runner, self.images)
                self._log(runner, runner.epoch if self.by_epoch else runner.iter)

    def after_train_epoch(self, runner: Runner) -> None:
        """Analyse the network after every ``interval``-th epoch."""
        if self.by_epoch and self.every_n_epochs(runner, self.interval):
            self._try(runner, runner.epoch + 1)

    def after_train_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        """Analyse the network after every ``interval``-th iteration."""
        if not self.by_epoch and self.every_n_train_iters(runner, self.interval):
            self._try(runner, runner.iter + 1)

    def _try(self, runner: Runner, step: int) -> None:
        if not is_main_process():
            return
        try:
            with _undisturbed(runner):
                self._log(runner, step)
        except Exception as error:  # noqa: BLE001 (a picture is no reason to end a training)
            runner.logger.warning(f'DefocusOverFocusHook: no scores at {step} ({type(error).__name__}: {error})')

    def _log(self, runner: Runner, step: int) -> None:
        from .over_focus_log import draw, mean_scores  # needs the whole analysis

        network = TokenNetwork(_model(runner))
        layers = list(dict.fromkeys(network.select(self.layers)))
        inputs = [image.inputs for image in self._prepared]
        scalars = mean_scores(network, inputs, layers, self.scores)
        runner.visualizer.add_scalars(
            {f'over_focus/{name}/layer_{layer}': value for (name, layer), value in scalars.items()}, step=step
        )
        runner.visualizer.add_image('over_focus', draw(network, self._prepared, layers), step=step)
        means = {
            name: [value for (_, _), value in entries]
            for name, entries in itertools.groupby(scalars.items(), key=lambda entry: entry[0][0])
        }
        text = ', '.join(f'{name} {sum(values) / len(values):.3f}' for name, values in means.items())
        runner.logger.info(f'Over-focus at {step}, mean of {len(layers)} layers: {text}')

    def _check_scores(self) -> None:
        from mmdefocus.analysis.scores import SCORES

        unknown = sorted(set(self.scores or ()) - set(SCORES))
        if unknown:
            raise AnalysisError(
                f'expected scores among {", ".join(SCORES)}; got {", ".join(unknown)}: correct the name'
            )


def _model(runner: Runner) -> nn.Module:
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


@contextmanager
def _undisturbed(runner: Runner) -> Iterator[None]:
    """Put the network in evaluation mode inside the block, and restore modes and random numbers afterwards."""
    state = random_state()
    try:
        with eval_mode(_model(runner)):
            yield
    finally:
        restore_random_state(state)


@contextmanager
def _explained() -> Iterator[None]:
    """Name the hook in the errors that arise inside the block."""
    try:
        yield
    except (AnalysisError, OSError) as error:
        raise SetupError(f'DefocusOverFocusHook: {error}') from error
