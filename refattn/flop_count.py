"""FLOPs of any call: torch's own counter, with formulas for the operators that it misses or miscounts.

A multiply-add counts as 2. torch's counter knows matrix products, convolutions and most attention kernels; `FORMULAS`
adds the rest, each from the shapes of an operator's arguments and result.
"""

import math
from contextlib import contextmanager

import torch
from torch.utils.flop_counter import FlopCounterMode

aten = torch.ops.aten


def _entries(matrix, *_, **__):
    """Matrix-vector and dot products: one multiply-add per entry of the matrix."""
    return 2 * math.prod(matrix)


def _entries_of_second(_, matrix, *__, **___):
    return 2 * math.prod(matrix)


def _attention(q, k, v, *_, **__):
    """Two products over the whole N × M map (causal or not): q [B, H, N, d], k [B, H, M, d], v [B, H, M, d_v]."""
    return 2 * math.prod(q[:3]) * k[2] * (q[3] + v[3])


def _attention_backward(_, q, k, v, *__, **___):
    """The map once more, then the gradients of the map, q, k (width d or d_v each) and v."""
    return 2 * math.prod(q[:3]) * k[2] * (3 * q[3] + 2 * v[3])


def _convolution_backward(gradient, x, weight, _bias, _stride, _padding, _dilation, transposed, *rest, **__):
    """As much as forward for each of the gradients of input and weight that are wanted (groups counted as they are)."""
    wanted = rest[-1][:2]
    places = math.prod((x if transposed else gradient)[2:])
    return sum(wanted) * 2 * x[0] * places * math.prod(weight)


def _fft(x, dims, *_, out_shape, complex_to_complex=False, **__):
    """5 n log2 n for a complex transform of n points; half of it where input or output is real."""
    full = max(x, out_shape, key=math.prod)
    points = math.prod(full[d] for d in dims)
    return round((5 if complex_to_complex else 2.5) * math.prod(full) * math.log2(points)) if points else 0


def _complex_fft(*shapes, **options):
    return _fft(*shapes, complex_to_complex=True, **options)


FORMULAS = {
    aten.mv: _entries,
    aten.addmv: _entries_of_second,
    aten.dot: _entries,
    aten.vdot: _entries,
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,  # torch has these two only in later versions
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    aten.convolution_backward: _convolution_backward,  # torch's own counts a grouped convolution as if it had no groups
    aten._fft_r2c: _fft,
    aten._fft_c2r: _fft,
    aten._fft_c2c: _complex_fft,
}


def flops(function, *args, by_operator=False, **kwargs):
    """Floating-point operations of `function(*args, **kwargs)`, a multiply-add as 2; backward too if it runs inside.

    Counted are matrix products, convolutions, attention kernels (the whole map, even if causal) and FFTs (real ones as
    half a complex one, 5 n log2 n). Sums, softmaxes, outer products and other element-wise work are not: they grow as
    the tensors that `peak_bytes` counts.

    Args:
        function: a callable or module. Run backward in it by `.backward()`: torch's counter follows modules by hooks
            that `torch.autograd.grad` towards a module's own input does not bear.
        by_operator: return {operator: FLOPs} and not the sum.
    """
    with FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter, _slow_path():
        function(*args, **kwargs)
    if not by_operator:
        return counter.get_total_flops()
    return {str(operator): count for operator, count in counter.get_flop_counts().get("Global", {}).items()}


@contextmanager
def _slow_path():
    """Keep nn.MultiheadAttention from calling one fused operator, which hides all its products, in evaluation mode."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)
