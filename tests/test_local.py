"""Local attention beyond the invariants table: the pattern of eq. (1), and what it cannot reach."""

import pytest
import torch

from refattn import attention
from refattn.attention import local

PATTERNS = [
    {"window": 4, "look_backward": 0, "look_forward": 0},
    {"window": 3, "look_backward": 1, "look_forward": 1},
    {"window": 3, "look_backward": 2, "look_forward": 0, "is_causal": True},
    {"window": 2, "look_backward": 1, "look_forward": 3, "exact_window": True},
    {"window": 3, "look_backward": 1, "look_forward": 0, "is_causal": True, "exact_window": True},
]


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_the_mask_is_the_definition_pair_by_pair(pattern):
    w, b, f = pattern["window"], pattern["look_backward"], pattern["look_forward"]
    allow = local.local_mask(11, **pattern)[0, 0]
    for i in range(11):
        for j in range(11):
            wanted = i // w - b <= j // w <= i // w + f
            wanted &= not pattern.get("is_causal") or j <= i
            wanted &= not pattern.get("exact_window") or -f * w <= i - j <= b * w
            assert allow[i, j] == wanted, (i, j)


def test_an_exact_window_is_a_band_that_moves_with_the_token():
    i = torch.arange(17)
    band = (i[:, None] - i).abs() <= 5
    assert torch.equal(local.local_mask(17, window=5, exact_window=True)[0, 0], band)


def test_separate_blocks_are_short_sequences_of_their_own():
    layer = attention.build("local", 8, 2, window=5, look_backward=0, look_forward=0).double()
    x = torch.randn(2, 13, 8, dtype=torch.float64)
    alone = torch.cat([layer(x[:, i : i + 5])[0] for i in (0, 5, 10)], 1)
    torch.testing.assert_close(layer(x)[0], alone)


def test_one_window_over_all_tokens_is_softmax_attention():
    torch.manual_seed(0)
    whole = attention.build("softmax", 8, 2).double()
    layer = attention.build("local", 8, 2, window=7, projections=whole.projections)
    x = torch.randn(2, 7, 8, dtype=torch.float64)
    torch.testing.assert_close(layer(x)[0], whole(x)[0])


def test_the_output_is_the_map_times_values():
    layer = attention.build("local", 8, 2, window=4).double()
    x = torch.randn(2, 11, 8, dtype=torch.float64)
    mask = torch.arange(11)[None] >= torch.tensor([[11], [6]])
    effective = layer.attention_maps(x, key_padding_mask=mask)["effective"]
    y = layer.projections.merge(effective @ layer.projections.keys_values(x)[1])
    torch.testing.assert_close(y, layer(x, key_padding_mask=mask)[0])


def test_the_causal_layer_looks_back_alone_unless_told_how_far():
    assert attention.build("local", 8, 2).look_forward == 1
    assert attention.build("local", 8, 2, is_causal=True).look_forward == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"window": 0}, "window=0"),
        ({"look_backward": -1}, "look_backward=-1"),
        ({"look_forward": 1, "is_causal": True}, "look_forward=1 with is_causal=True"),
    ],
)
def test_a_wrong_option_is_named(options, words):
    with pytest.raises(ValueError, match=words):
        attention.build("local", 8, 2, **options)
