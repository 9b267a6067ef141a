"""Checkpoints that the command line names, and the one from which an interrupted training resumes."""

import logging
from pathlib import Path

from mmengine.logging import print_log

from mmdefocus.apis.errors import UsageError
from mmdefocus.engine.checkpoint_check_hook import check_weights_are_there
from mmdefocus.engine.resume_check import missing_for_resuming
from mmdefocus.models.checkpoint import CheckpointError, is_official_checkpoint, read_checkpoint

from .suggestions import similar_files


def find_newest_checkpoint(directory: str | Path) -> Path | None:
    """Find the checkpoint with the most iterations in the directory of a training.

    The iteration is read from the checkpoints themselves, so that the directory may be copied or moved. Unreadable
    files are skipped with a warning. Checkpoints without training state, such as published weights, are ignored.

    Args:
        directory: Directory of the checkpoints; it need not exist.

    Returns:
        Path of the checkpoint, or None if the directory has none of a training.

    Raises:
        UsageError: There are checkpoints, but none of them can be resumed.
    """
    found: dict[Path, tuple[int, int]] = {}
    broken: list[str] = []
    incomplete: list[str] = []
    for path in sorted(Path(directory).glob('*.pth')):
        try:
            content = read_checkpoint(path, map_location='meta')  # everything but the values of the tensors
        except CheckpointError as error:
            broken.append(str(error))
            continue
        missing = missing_for_resuming(content)
        if not missing:
            found[path] = (content['meta']['iter'], content['meta']['epoch'])
        elif 'meta' not in missing:
            incomplete.append(f'{path} has no {" and ".join(missing)}')
    if found:
        if broken:
            print_log(f'Skipped in the search for a checkpoint: {"; ".join(broken)}', level=logging.WARNING)
        return max(found, key=lambda path: found[path])
    if broken or incomplete:
        raise UsageError(
            f'{directory} has checkpoints, but none of them can be resumed: {"; ".join(broken + incomplete)}. Put a '
            'complete one there, or start a new training in another work directory'
        )
    return None


def check_checkpoint(checkpoint: str, to_resume: bool = False) -> str:
    """Check that a checkpoint exists, is readable and, with ``to_resume``, has the state of a training.

    Args:
        checkpoint: Path, or a URL, which is not checked.
        to_resume: Require optimiser state and counters.

    Returns:
        ``checkpoint``.

    Raises:
        UsageError: The checkpoint does not meet this.
    """
    if '://' in checkpoint:
        return checkpoint
    path = Path(checkpoint).expanduser()
    if not path.exists():
        similar = similar_files(path, '.pth') or '; expected the path or the URL of a checkpoint: correct it'
        raise UsageError(f"checkpoint '{checkpoint}' does not exist{similar}")
    try:
        content = read_checkpoint(path, map_location='meta')  # everything but the values of the tensors
        check_weights_are_there(content, str(path))
    except CheckpointError as error:
        raise UsageError(str(error)) from error
    remedy = (
        f'to start a new training from its weights, omit --resume and set load_from={checkpoint} with --cfg-options'
    )
    if to_resume and is_official_checkpoint(content):
        raise UsageError(f"'{checkpoint}' is an official file and cannot be resumed; {remedy}")
    missing = ' and '.join(missing_for_resuming(content)) if to_resume else ''
    if missing:
        raise UsageError(f"'{checkpoint}' has no {missing} and cannot be resumed; {remedy}")
    return checkpoint
