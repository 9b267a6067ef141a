"""Make the packages of tools/ importable, as they are for the scripts in it."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / 'tools'))
