"""What the GPU kernels take, as far as it is less than the operators allow."""

from dataclasses import dataclass


@dataclass(frozen=True)
class KernelLimits:
    """The largest sizes that the kernels of a backend take.

    Args:
        max_state: N of the scan.
        max_group_size: channels per group of the norm.
        max_width: K of the convolution.
    """

    max_state: int
    max_group_size: int
    max_width: int

    def scan_obstacle(self, state: int, group_size: int) -> str | None:
        """Why the kernels cannot scan with this state and group size, or None."""
        if state > self.max_state:
            return f'its kernels take a state of up to {self.max_state}, got {state}'
        if group_size > self.max_group_size:
            return f'its kernels take a group_size of up to {self.max_group_size}, got {group_size}'
        return None

    def convolution_obstacle(self, width: int) -> str | None:
        """Why the kernels cannot convolve with a kernel of this width, or None."""
        return f'its kernels take a width of up to {self.max_width}, got {width}' if width > self.max_width else None


def refuse(op: str, obstacle: str | None) -> None:
    """Raises ValueError where there is an obstacle, for calls of an operator that chose no backend."""
    if obstacle is not None:
        raise ValueError(f'{op}: {obstacle}')


def ceil_div(size: int, part: int) -> int:
    """How many parts cover ``size``."""
    return (size + part - 1) // part


# csrc/cuda/defocus_scan.h: kMaxState, kBlockChannels, kChunk; csrc/cuda/causal_conv1d.h: kMaxWidth.
CUDA_LIMITS = KernelLimits(max_state=32, max_group_size=64, max_width=4)
CUDA_CHUNK = 16
# Larger tiles of channels and states would not fit into registers.
TRITON_LIMITS = KernelLimits(max_state=32, max_group_size=128, max_width=4)
