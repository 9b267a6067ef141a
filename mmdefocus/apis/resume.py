"""The checkpoint that an interrupted training goes on from."""

import logging
from pathlib import Path

from mmengine.logging import print_log

from mmdefocus.apis.config_options import UsageError
from mmdefocus.engine.resume_check import missing_for_resuming
from mmdefocus.models.checkpoint import CheckpointError, read_checkpoint


def find_newest_checkpoint(directory: str | Path) -> Path | None:
    """Find the checkpoint of a training's directory that is the furthest by its own count of iterations.

    Only what is in the directory counts, so that it may be copied or moved. Files that cannot be read are passed over
    with a warning. Checkpoints of other programs and published weights are no part of a training.

    Args:
        directory: Where a training wrote its checkpoints; it need not exist.

    Returns:
        Path of the checkpoint, or None if the directory has none of a training.

    Raises:
        UsageError: There are checkpoints, but no training can go on from any of them.
    """
    found: dict[Path, tuple[int, int]] = {}
    broken: list[str] = []
    incomplete: list[str] = []
    for path in sorted(Path(directory).glob('*.pth')):
        try:
            content = read_checkpoint(path, map_location='meta')  # everything but the numbers
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
            print_log(f'Passed over to resume: {"; ".join(broken)}', level=logging.WARNING)
        return max(found, key=lambda path: found[path])
    if broken or incomplete:
        raise UsageError(
            f'{directory} has checkpoints, but no training can go on from any of them: '
            f'{"; ".join(broken + incomplete)}. Put a whole one there, or start anew in another work directory'
        )
    return None
