"""Processes of a distributed run: join their group before the runner is built, leave it at the end."""

import gc
import os

import torch
from mmengine.config import Config

from mmdefocus.apis.errors import UsageError


def prepare_launcher(cfg: Config) -> None:
    """Check ``cfg.launcher`` against this process; without a GPU, join a gloo group and set the config up for it.

    Raises:
        UsageError: The launcher did not start this process, or there are fewer GPUs than processes.
    """
    launcher = cfg.get('launcher', 'none')
    if launcher == 'none':
        return
    rank_variable = dict(pytorch='RANK', slurm='SLURM_PROCID', mpi='OMPI_COMM_WORLD_LOCAL_RANK')[launcher]
    if rank_variable not in os.environ:
        started_by = dict(pytorch='tools/dist_train.sh or torchrun', slurm='tools/slurm_train.sh or srun', mpi='mpirun')
        raise UsageError(
            f'--launcher {launcher} expects to be started by {started_by[launcher]}, but {rank_variable} is not '
            'set; use that command, or omit --launcher for one process'
        )
    if torch.cuda.is_available():
        local_rank = int(os.environ.get('LOCAL_RANK', 0))
        if local_rank >= torch.cuda.device_count():
            raise UsageError(
                f'process {local_rank} on this machine has no GPU: PyTorch sees '
                f'{torch.cuda.device_count()}; start at most that many processes'
            )
        return
    if launcher != 'pytorch':
        raise UsageError(
            f'--launcher {launcher} needs GPUs and PyTorch sees none; use --launcher pytorch (gloo) instead'
        )
    # MMEngine would select a GPU before it joins the group; it uses a group that exists as it is.
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group('gloo')
    env_cfg = cfg.get('env_cfg') or {}
    cfg.env_cfg = dict(env_cfg, dist_cfg=dict(env_cfg.get('dist_cfg') or {}, backend='gloo'))
    wrapper = cfg.get('model_wrapper_cfg') or dict(
        type='MMDistributedDataParallel',
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False),
    )
    cfg.model_wrapper_cfg = dict(wrapper, device_ids=None)


def leave_process_group() -> None:
    """Destroy the process group of a distributed program. Delete the runner first.

    Gloo's threads release the tensors of a finished collective with a delay. If the interpreter is shutting down by
    then, the process aborts. Destroying the group waits for these threads, once no parallel model refers to the group.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        gc.collect()
        torch.distributed.destroy_process_group()
