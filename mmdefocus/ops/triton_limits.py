"""What the Triton kernels take, as far as it is less than the operators allow."""

# Larger tiles of channels and states would not fit into registers.
MAX_STATE = 32
MAX_GROUP_SIZE = 128
MAX_WIDTH = 4


def defocus_scan_limit(state: int, group_size: int) -> str | None:
    """Why the Triton kernels cannot scan with this state and group size, or None."""
    if state > MAX_STATE:
        return f'its kernels take a state of up to {MAX_STATE}, got {state}'
    if group_size > MAX_GROUP_SIZE:
        return f'its kernels take a group_size of up to {MAX_GROUP_SIZE}, got {group_size}'
    return None


def causal_conv1d_limit(width: int) -> str | None:
    """Why the Triton kernels cannot convolve with a kernel of this width, or None."""
    return f'its kernels take a width of up to {MAX_WIDTH}, got {width}' if width > MAX_WIDTH else None
