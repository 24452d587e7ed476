"""Lesson 13: a correct answer to each exercise, and the classic wrong ones, named after exercise and mistake."""

import torch
from torch.nn import functional as F


def evolve(A_prev, A_cur, C, b, alpha, beta):
    if A_prev is None:
        return A_cur
    A_in = alpha * A_prev + (1 - alpha) * A_cur  # α weighs the past
    k_r, k_c = C.shape[-2:]
    convolved = F.conv2d(A_in, C, b, padding=(k_r // 2, k_c // 2)).relu()
    return beta * convolved + (1 - beta) * A_in  # β weighs the convolution


def evolve_swapped(A_prev, A_cur, C, b, alpha, beta):
    return evolve(A_prev, A_cur, C, b, beta, alpha)


def evolve_past_and_present(A_prev, A_cur, C, b, alpha, beta):
    return evolve(A_prev, A_cur, C, b, 1 - alpha, beta)


def evolve_no_relu(A_prev, A_cur, C, b, alpha, beta):
    if A_prev is None:
        return A_cur
    A_in = alpha * A_prev + (1 - alpha) * A_cur
    return beta * F.conv2d(A_in, C, b, padding=tuple(k // 2 for k in C.shape[-2:])) + (1 - beta) * A_in


def evolve_relu_of_all(A_prev, A_cur, C, b, alpha, beta):
    return A_cur if A_prev is None else evolve_no_relu(A_prev, A_cur, C, b, alpha, beta).relu()


def evolve_current_only(A_prev, A_cur, C, b, alpha, beta):
    """The convolution sees the current map, not the mixture."""
    if A_prev is None:
        return A_cur
    A_in = alpha * A_prev + (1 - alpha) * A_cur
    return beta * F.conv2d(A_cur, C, b, padding=tuple(k // 2 for k in C.shape[-2:])).relu() + (1 - beta) * A_in


def evolve_probabilities(A_prev, A_cur, C, b, alpha, beta):
    return A_cur if A_prev is None else evolve(A_prev.softmax(-1), A_cur.softmax(-1), C, b, alpha, beta)


def evolve_always(A_prev, A_cur, C, b, alpha, beta):
    return evolve(A_cur if A_prev is None else A_prev, A_cur, C, b, alpha, beta)


def causal_convolution(A, C, kind):
    k_r, k_c = C.shape[-2:]
    if kind == "causal":
        frame = (k_c - 1, 0, k_r - 1, 0)  # left, right, top, bottom: rows and columns up to the cell's own
        A = A.tril()  # what nobody may see is zero before the kernel comes
    else:
        frame = (k_c // 2, k_c // 2, k_r - 1, 0)  # a decoder's rows are in time, the source's columns are not
    return F.conv2d(F.pad(A, frame), C)


def causal_convolution_centred(A, C, kind):
    A = A.tril() if kind == "causal" else A
    return F.conv2d(A, C, padding=(C.shape[-2] // 2, C.shape[-1] // 2))


def causal_convolution_unmasked(A, C, kind):
    """Right frame, but the upper triangle speaks."""
    k_r, k_c = C.shape[-2:]
    left, right = (k_c - 1, 0) if kind == "causal" else (k_c // 2, k_c // 2)
    return F.conv2d(F.pad(A, (left, right, k_r - 1, 0)), C)


def causal_convolution_infinite(A, C, kind):
    k_r, k_c = C.shape[-2:]
    left, right = (k_c - 1, 0) if kind == "causal" else (k_c // 2, k_c // 2)
    if kind == "causal":
        A = A.masked_fill(torch.ones_like(A, dtype=torch.bool).triu(1), -1e9)
    return F.conv2d(F.pad(A, (left, right, k_r - 1, 0)), C)


def causal_convolution_rows_only(A, C, kind):
    A = A.tril() if kind == "causal" else A
    return F.conv2d(F.pad(A, (C.shape[-1] // 2, C.shape[-1] // 2, C.shape[-2] - 1, 0)), C)


def causal_convolution_both(A, C, kind):
    A = A.tril() if kind == "causal" else A
    return F.conv2d(F.pad(A, (C.shape[-1] - 1, 0, C.shape[-2] - 1, 0)), C)


def causal_convolution_turned(A, C, kind):
    """Left and top exchanged: the frame's order is that of the last axis first."""
    k_r, k_c = C.shape[-2:]
    frame = (k_r - 1, 0, k_c - 1, 0) if kind == "causal" else (k_r - 1, 0, k_c // 2, k_c // 2)
    return F.conv2d(F.pad(A.tril() if kind == "causal" else A, frame), C)


def merge_heads(heads):
    return heads.transpose(1, 2).flatten(0, 1)  # [H, d, N], then channels h·d …


def merge_heads_scrambled(heads):
    H, N, d = heads.shape
    return heads.reshape(H * d, N)


def merge_heads_width_first(heads):
    return heads.permute(2, 0, 1).flatten(0, 1)


def merge_heads_time_first(heads):
    return heads.transpose(0, 1).flatten(1)


def ngrams_by_hand(ids, layer):
    kernel = torch.zeros(3, 3)
    kernel[2, 1] = 20.0  # my own row, the key before: its token is mine
    kernel[1, 0] = 20.0  # the row before, the key before that: and its token was mine before
    return layer(ids, kernel)


def with_taps(*taps, height=20.0):
    """`ngrams_by_hand` with other taps."""

    def ngrams_by_hand(ids, layer):
        kernel = torch.zeros(3, 3)
        for row, column in taps:
            kernel[row, column] = height
        return layer(ids, kernel)

    return ngrams_by_hand


ngrams_by_hand_same_token = with_taps((2, 2), (1, 1))
ngrams_by_hand_one_tap = with_taps((2, 1))
ngrams_by_hand_turned = with_taps((1, 2), (0, 1))
ngrams_by_hand_soft = with_taps((2, 1), (1, 0), height=1.0)
