"""What came out of a stage of the GPU report."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

Status = Literal['passed', 'failed', 'not measured']


@dataclass(frozen=True)
class Finding:
    """What the output of a stage says.

    Attributes:
        status: ``failed`` if the stage did not do what it should, ``not measured`` if it cannot run here.
        reason: Why the stage failed or was not measured, in one line; for a stage that passed, what it found.
        facts: Its results, as data.
    """

    status: Status
    reason: str = ''
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome(Finding):
    """The finding of a stage, and when and on what it was made.

    Attributes:
        seconds: Time that the stage took.
        date: Local date and time of its start.
        commit: Commit of the checkout, with ``-dirty`` for uncommitted changes.
    """

    seconds: float = 0.0
    date: str = ''
    commit: str = ''

    def save(self, folder: Path) -> None:
        """Write the outcome into the folder of its stage."""
        (folder / 'outcome.json').write_text(json.dumps(asdict(self), indent=1), encoding='utf-8')


def load_outcome(folder: Path, commit: str) -> Outcome:
    """Read the outcome of an earlier run; it counts only if it is of the same commit."""
    path = folder / 'outcome.json'
    if not path.exists():
        return Outcome('not measured', 'the stage has not run')
    outcome = Outcome(**json.loads(path.read_text(encoding='utf-8')))
    if outcome.commit != commit:
        return Outcome('not measured', f'it ran on {outcome.commit}, this is {commit}; run the stage again')
    return outcome
