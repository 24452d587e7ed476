"""Lesson 14: a correct answer to each exercise, and the classic wrong ones, named after exercise and mistake."""

import torch
from torch.nn import functional as F


def all_maps(q, k):
    S = torch.einsum("ind,jld->ijnl", q, k) / q.shape[-1] ** 0.5  # [M, M, N, L]
    return S.flatten(0, 1)  # [M², N, L], the key head running fastest


def all_maps_by_key(q, k):
    return (torch.einsum("ind,jld->jinl", q, k) / q.shape[-1] ** 0.5).flatten(0, 1)


def all_maps_whole_width(q, k):
    return (torch.einsum("ind,jld->ijnl", q, k) / (q.shape[0] * q.shape[-1]) ** 0.5).flatten(0, 1)


def all_maps_unscaled(q, k):
    return torch.einsum("ind,jld->ijnl", q, k).flatten(0, 1)


def all_maps_one_to_one(q, k):
    return q @ k.transpose(1, 2) / q.shape[-1] ** 0.5


def key_convolution(maps, kernel, bias, groups):
    return F.conv2d(maps, kernel[:, :, None], bias, padding=(0, kernel.shape[-1] // 2), groups=groups)


def key_convolution_along_queries(maps, kernel, bias, groups):
    return F.conv2d(maps, kernel[:, :, :, None], bias, padding=(kernel.shape[-1] // 2, 0), groups=groups)


def key_convolution_flipped(maps, kernel, bias, groups):
    return key_convolution(maps, kernel.flip(-1), bias, groups)


def key_convolution_ahead(maps, kernel, bias, groups):
    padded = F.pad(maps, (0, kernel.shape[-1] - 1))
    return F.conv2d(padded, kernel[:, :, None], bias, groups=groups)


def key_convolution_no_bias(maps, kernel, bias, groups):
    return key_convolution(maps, kernel, None, groups)


def interactions(S, f0, f1, g0, g1):
    M = f1[0].shape[0]
    inner = key_convolution(key_convolution(S, *f0, M).relu(), *f1, M)  # [M, N, L]: one map a query head
    return key_convolution(key_convolution(inner, *g0, 1).relu(), *g1, 1)


def interactions_relu_between(S, f0, f1, g0, g1):
    M = f1[0].shape[0]
    inner = key_convolution(key_convolution(S, *f0, M).relu(), *f1, M).relu()
    return key_convolution(key_convolution(inner, *g0, 1).relu(), *g1, 1)


def interactions_relu_last(S, f0, f1, g0, g1):
    return interactions(S, f0, f1, g0, g1).relu()


def interactions_linear(S, f0, f1, g0, g1):
    M = f1[0].shape[0]
    inner = key_convolution(key_convolution(S, *f0, M), *f1, M)
    return key_convolution(key_convolution(inner, *g0, 1), *g1, 1)


def interactions_less_maximum(S, f0, f1, g0, g1):
    return interactions(S - S.amax(-1, keepdim=True), f0, f1, g0, g1)


def interactions_by_key(S, f0, f1, g0, g1):
    M = f1[0].shape[0]
    return interactions(S.unflatten(0, (M, M)).transpose(0, 1).flatten(0, 1), f0, f1, g0, g1)


def hidden_keys(S, seen, f, g):
    hidden = S.masked_fill(~seen, 0.0)
    hidden = key_convolution(hidden, *f, 1).relu().masked_fill(~seen, 0.0)
    logits = key_convolution(hidden, *g, 1)
    return logits.masked_fill(~seen, -torch.inf).softmax(-1)


def hidden_keys_once(S, seen, f, g):
    hidden = key_convolution(S.masked_fill(~seen, 0.0), *f, 1).relu()
    return key_convolution(hidden, *g, 1).masked_fill(~seen, -torch.inf).softmax(-1)


def hidden_keys_at_the_end(S, seen, f, g):
    logits = key_convolution(key_convolution(S, *f, 1).relu(), *g, 1)
    return logits.masked_fill(~seen, -torch.inf).softmax(-1)


def hidden_keys_infinite(S, seen, f, g):
    hidden = key_convolution(S.masked_fill(~seen, -torch.inf), *f, 1).relu()
    return key_convolution(hidden, *g, 1).masked_fill(~seen, -torch.inf).softmax(-1)


def hidden_keys_not_at_the_end(S, seen, f, g):
    hidden = key_convolution(S.masked_fill(~seen, 0.0), *f, 1).relu().masked_fill(~seen, 0.0)
    return key_convolution(hidden, *g, 1).softmax(-1)


def hidden_keys_zero_at_the_end(S, seen, f, g):
    hidden = key_convolution(S.masked_fill(~seen, 0.0), *f, 1).relu().masked_fill(~seen, 0.0)
    return key_convolution(hidden, *g, 1).masked_fill(~seen, 0.0).softmax(-1)


def recall_by_hand(ids, num_keys, num_values, layer):
    D = num_keys + num_values
    W_q, W_k, W_v = torch.eye(D)[:num_keys], torch.eye(D)[:num_keys], torch.eye(D)[num_keys:]
    return layer(ids, W_q, W_k, W_v, torch.tensor([30.0, 0.0, 0.0]))  # what stood one key before, sharpened


def with_kernel(*kernel):
    """`recall_by_hand` with another kernel."""

    def recall_by_hand(ids, num_keys, num_values, layer):
        eye = torch.eye(num_keys + num_values)
        return layer(ids, eye[:num_keys], eye[:num_keys], eye[num_keys:], torch.tensor(kernel))

    return recall_by_hand


recall_by_hand_backwards = with_kernel(0.0, 0.0, 30.0)
recall_by_hand_in_place = with_kernel(0.0, 30.0, 0.0)
recall_by_hand_soft = with_kernel(1.0, 0.0, 0.0)


def recall_by_hand_values_as_keys(ids, num_keys, num_values, layer):
    eye = torch.eye(num_keys + num_values)
    return layer(ids, eye[:num_keys], eye[-num_keys:], eye[num_keys:], torch.tensor([30.0, 0.0, 0.0]))
