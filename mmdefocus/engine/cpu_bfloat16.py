"""Whether the CPU of this machine computes in bfloat16."""

import platform

import torch

NO_BFLOAT16 = (
    'this CPU has no bfloat16 instructions (AVX512-BF16, AMX or Arm BF16), so mixed precision (--amp) is not used: '
    'everything is computed in float32'
)


def cpu_has_bfloat16() -> bool:
    """Return True if the CPU has instructions for products in bfloat16."""
    if platform.machine().lower() in ('aarch64', 'arm64'):
        check = getattr(torch.ops.mkldnn, '_is_mkldnn_bf16_supported', None)  # builds without oneDNN lack it
        return check is not None and check()
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
