"""Write the results of a program of the GPU report."""

import json
from collections.abc import Mapping
from pathlib import Path


def write_facts(path: Path, facts: Mapping[str, object]) -> None:
    """Write results as JSON, and print them."""
    text = json.dumps(facts, indent=1)
    path.write_text(text, encoding='utf-8')
    print(text)
