"""Sizes that the GPU kernels support, and integer division for launch grids."""

from dataclasses import dataclass

from mmdefocus.ops.backends import KERNEL_CONSTANTS


@dataclass(frozen=True)
class KernelLimits:
    """Largest sizes that the kernels of a backend support.

    Args:
        max_state: N of the scan.
        max_group_size: Channels per group of the norm.
        max_width: K of the convolution.
    """

    max_state: int
    max_group_size: int
    max_width: int

    def unsupported_scan(self, state: int, group_size: int) -> str | None:
        """Return the reason if the kernels do not support a scan of this state and group size, else None."""
        if state > self.max_state:
            return f'its kernels take a state of up to {self.max_state}, got {state}'
        if group_size > self.max_group_size:
            return f'its kernels take a group_size of up to {self.max_group_size}, got {group_size}'
        return None

    def unsupported_convolution(self, width: int) -> str | None:
        """Return the reason if the kernels do not support a convolution of this width, else None."""
        return f'its kernels take a width of up to {self.max_width}, got {width}' if width > self.max_width else None


# All zero without the extension, which the backend `cuda` needs anyway.
CUDA_LIMITS = KernelLimits(
    max_state=KERNEL_CONSTANTS.get('cuda_max_state', 0),
    max_group_size=KERNEL_CONSTANTS.get('cuda_max_group_size', 0),
    max_width=KERNEL_CONSTANTS.get('cuda_max_conv_width', 0),
)
# Larger tiles of channels and states would not fit into registers.
TRITON_LIMITS = KernelLimits(max_state=32, max_group_size=128, max_width=4)


def check_supported(op: str, reason: str | None) -> None:
    """Raise ValueError with the unsupported ``reason``, if there is one, for an operator that was called directly."""
    if reason is not None:
        raise ValueError(f'{op}: {reason}')


def ceil_div(size: int, part: int) -> int:
    """Return how many parts of size ``part`` cover ``size``."""
    return (size + part - 1) // part
