"""Lesson 12: a correct answer to each exercise, and the classic wrong ones, named after exercise and mistake."""

import torch


def kronecker_map(A, A_bar):
    h, w = len(A), len(A_bar)
    M = A[:, None, :, None] * A_bar[None, :, None, :]  # [i, j, i', j']
    return M.reshape(h * w, h * w)


def kronecker_map_swapped(A, A_bar):
    return torch.kron(A_bar, A)


def kronecker_map_transposed(A, A_bar):
    return torch.kron(A, A_bar).T


def kronecker_map_mean(A, A_bar):
    M = (A[:, None, :, None] / len(A_bar) + A_bar[None, :, None, :] / len(A)) / 2
    return M.reshape(len(A) * len(A_bar), -1)


def logits(q, k):
    h, w, c = q.shape
    R = q.reshape(h, w * c) @ k.reshape(h, w * c).T
    q, k = q.transpose(0, 1), k.transpose(0, 1)  # swap the grid's axes before flattening
    C = q.reshape(w, h * c) @ k.reshape(w, h * c).T
    return R * c**-0.25, C * c**-0.25


def logits_unswapped(q, k):
    h, w, c = q.shape
    return logits(q, k)[0], q.reshape(w, h * c) @ k.reshape(w, h * c).T * c**-0.25


def logits_means(q, k):
    h, w, c = q.shape
    R, C = q.mean(1) @ k.mean(1).T, q.mean(0) @ k.mean(0).T
    return R * w * c**-0.25, C * h * c**-0.25


def logits_root(q, k):
    c = q.shape[-1]
    return tuple(x * c**-0.25 for x in logits(q, k))


def logits_exchanged(q, k):
    R, C = logits(q, k)
    return C, R


def coupled_attention(q, k, v, merge):
    if merge == "pooling":
        s = q.shape[-1] ** -0.25
        q, k = q.amax(-1, keepdim=True), k.amax(-1, keepdim=True)
        R, C = (s * x for x in logits(q, k))
    else:
        R, C = logits(q, k)
    return mixed(R.softmax(-1), C.softmax(-1), v)


def coupled_attention_with(pool=torch.amax, scale=lambda c: c**-0.25, axis=-1, scores=logits):
    """`coupled_attention` with one thing otherwise."""

    def coupled_attention(q, k, v, merge):
        s = scale(q.shape[-1])
        if merge == "pooling":
            q, k = pool(q, -1, keepdim=True), pool(k, -1, keepdim=True)
        R, C = (s * x * q.shape[-1] ** 0.25 for x in scores(q, k))
        return mixed(R.softmax(axis), C.softmax(axis), v)

    return coupled_attention


coupled_attention_mean = coupled_attention_with(pool=torch.mean)
coupled_attention_root = coupled_attention_with(scale=lambda c: c**-0.5)
coupled_attention_queries = coupled_attention_with(axis=0)
coupled_attention_unswapped = coupled_attention_with(scores=logits_unswapped)


def coupled_attention_norescale(q, k, v, merge):
    if merge == "pooling":
        q, k = q.amax(-1, keepdim=True), k.amax(-1, keepdim=True)
    R, C = logits(q, k)
    return mixed(R.softmax(-1), C.softmax(-1), v)


def mixed(A, A_bar, V):
    Y = torch.einsum("iy,yxe->ixe", A, V)  # rows
    return torch.einsum("jx,ixe->ije", A_bar, Y)  # columns: Āᵀ from the right


def mixed_untransposed(A, A_bar, V):
    return torch.einsum("iy,yxe,xj->ije", A, V, A_bar)


def mixed_row_transposed(A, A_bar, V):
    return torch.einsum("yi,yxe,jx->ije", A, V, A_bar)


def mixed_rows_only(A, A_bar, V):
    return torch.einsum("iy,yje->ije", A, V)


def rearranged(M, grid):
    """[h², w²]: rows (i, i'), columns (j, j')."""
    h, w = grid
    return M.reshape(h, w, h, w).permute(0, 2, 1, 3).reshape(h * h, w * w)


def nearest_product(M, grid):
    h, w = grid
    U, sigma, Vh = torch.linalg.svd(rearranged(M, grid))
    best = sigma[0] * torch.outer(U[:, 0], Vh[0])  # [h², w²], rank one
    return best.reshape(h, h, w, w).permute(0, 2, 1, 3).reshape(h * w, h * w)


def nearest_product_low_rank(M, grid):
    U, sigma, Vh = torch.linalg.svd(M)
    return sigma[0] * torch.outer(U[:, 0], Vh[0])


def nearest_product_margins(M, grid):
    h, w = grid
    four = M.reshape(h, w, h, w)
    A, A_bar = four.sum(3).mean(1), four.sum(2).mean(0)
    return kronecker_map(A, A_bar)


def nearest_product_unpermuted(M, grid):
    h, w = grid
    U, sigma, Vh = torch.linalg.svd(M.reshape(h * h, w * w))
    return (sigma[0] * torch.outer(U[:, 0], Vh[0])).reshape(h * w, h * w)
