"""What the processes of processes.py share: all imports of a training of a classifier."""

import gc

import mmpretrain.datasets
import mmpretrain.engine
import mmpretrain.evaluation
import mmpretrain.models
import mmpretrain.visualization  # noqa: F401
import torch
import yapf.yapflib.yapf_api

import mmdefocus.apis.runs.config_file
import mmdefocus.apis.runs.run_options
import mmdefocus.apis.runs.runner
import mmdefocus.cli.run_tool
import mmdefocus.datasets
import mmdefocus.engine
import mmdefocus.models  # noqa: F401

torch.set_num_threads(1)  # A process with a pool of threads cannot be forked.
# Every checkpoint holds the config; formatting its text takes longer than the rest of a training of this size.
yapf.yapflib.yapf_api.FormatCode = lambda code, **_: (code, True)
gc.freeze()
