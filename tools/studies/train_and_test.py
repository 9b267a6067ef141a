"""Train with a config file, test the model of the last step, and write the metrics to ``work_dir/result.json``.

The runs of an ablation execute this program: ``train_and_test.py CONFIG``. The result file holds ``metrics`` and, since
the runner may overwrite the config file, its text as ``config``.
"""

import json
import sys
from pathlib import Path

from mmdefocus.apis.runs.config_file import load_config
from mmdefocus.apis.runs.run_options import apply_train_options
from mmdefocus.apis.runs.runner import train


def train_and_test(config: str) -> None:
    text = Path(config).read_text(encoding='utf-8')
    cfg = load_config(config)
    apply_train_options(cfg)
    runner = train(cfg)
    metrics = {name: float(value) for name, value in runner.test().items()}
    path = Path(cfg.work_dir) / 'result.json'
    unfinished = path.with_suffix('.unfinished')
    unfinished.write_text(json.dumps(dict(config=text, metrics=metrics)), encoding='utf-8')
    unfinished.replace(path)


if __name__ == '__main__':
    train_and_test(sys.argv[1])
