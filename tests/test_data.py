"""Tasks: batches are pure in the step, tests are never trained on, answers are right, wrong options are named."""

import gzip
import hashlib
import random
import struct
from pathlib import Path
from statistics import median

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from refattn import data
from refattn.data import vision
from refattn.data.listops import evaluate, grow, to_text
from refattn.data.text import TEST_SHARE

SMALL = {
    "recall": {},
    "look_back": {},
    "pointers": {},
    "associative_recall": {},
    "colour": {},
    "colour, all asked": {"asked": "all"},
    "copying": {"max_len": 24},
    "ngrams": {},
    "ngrams, first round tested": {"asked": "all", "tested": "first"},
    "markers": {},
    "markers, beyond a border": {"beyond": 16},
    "listops": {"num_train": 200, "num_test": 50},
    "digits": {},
    "digits as sequence": {"as_sequence": True},
    "text": {"length": 32},
}


@pytest.fixture(scope="module", params=SMALL)
def task(request):
    return data.build(request.param.split()[0].rstrip(","), **SMALL[request.param])


def test_a_batch_is_a_pure_function_of_the_step(task):
    first, other = task.batch(3), task.batch(4)
    task.batch(99)
    again = task.batch(3)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["inputs"], other["inputs"])


def test_a_batch_is_what_the_task_says(task):
    for batch in (task.batch(0), task.test):
        inputs, targets = batch["inputs"], batch["targets"]
        assert len(inputs) == len(targets) and targets.dtype == torch.int64
        scored = targets[targets != data.IGNORED]
        assert len(scored) and 0 <= scored.min() and scored.max() < task.num_classes
        if task.vocab_size is None:
            assert inputs.is_floating_point() and 0 <= inputs.min() and inputs.max() <= 1
        else:
            sizes = torch.tensor(task.vocab_size).reshape(-1)
            columns = inputs.reshape(*inputs.shape[:2], -1)
            assert columns.shape[1] <= task.max_len and columns.min() >= 0
            assert (columns.flatten(0, 1).amax(0) < sizes).all()


@pytest.mark.parametrize("name", ["recall", "pointers", "colour", "copying", "ngrams", "markers", "listops", "digits"])
def test_another_seed_gives_other_batches(name):
    one, two = (data.build(name, seed=seed, **SMALL[name]).batch(0)["inputs"] for seed in (0, 1))
    assert not torch.equal(one, two)


@pytest.mark.parametrize("name", ["listops", "digits"])
def test_finite_data_is_seen_once_an_epoch_and_never_in_the_test(name):
    task = data.build(name, batch_size=30, **SMALL[name])
    size = 200 if name == "listops" else 1437
    rows = torch.cat([task.batch(step)["inputs"].flatten(1) for step in range(-(-size // 30))])[:size]
    unique = {tuple(row.tolist()) for row in rows}
    assert len(unique) == size
    assert not unique & {tuple(row.tolist()) for row in task.test["inputs"].flatten(1)}


def test_the_latest_marker_is_asked_for_where_it_lies_beyond_the_border():
    task = data.markers(length=12, beyond=4, test_size=30)
    for scored, batch in ((False, task.batch(0)), (True, task.test)):
        for tokens, targets in zip(batch["inputs"].tolist(), batch["targets"].tolist(), strict=True):
            assert tokens[0] < 2
            for place, target in enumerate(targets):
                last = max(i for i in range(place + 1) if tokens[i] < 2)
                hidden = scored and last // 4 == place // 4
                assert target == (data.IGNORED if hidden else tokens[last])


def test_recall_asks_for_what_was_told():
    batch = data.recall(num_keys=5, num_values=3, num_queries=7).batch(0)
    for tokens, targets in zip(batch["inputs"].tolist(), batch["targets"].tolist(), strict=True):
        told, asked = dict(tokens[:5]), tokens[5:]
        assert sorted(told) == list(range(5)) and all(blank == 3 for _, blank in asked)
        assert targets == [data.IGNORED] * 5 + [told[key] for key, _ in asked]


@pytest.mark.parametrize("asked", ["last", "all"])
def test_the_colour_is_asked_of_every_place_with_every_colour(asked):
    task = data.colour(length=5, num_colours=3, asked=asked)
    assert {tuple(row) for row in task.test["inputs"].tolist()} == {
        tuple(colour * (place == p) for p in range(5)) for place in range(5) for colour in (1, 2, 3)
    }
    for batch in (task.test, task.batch(0)):
        scored = batch["targets"] != data.IGNORED
        assert scored[:, -1].all() and scored[:, :-1].all() == (asked == "all")
        assert torch.equal(batch["targets"][:, -1], batch["inputs"].amax(1) - 1)


def test_copying_scores_the_separator_and_the_copy():
    batch = data.copying(max_len=24, num_symbols=9).batch(0)
    lengths = set()
    for tokens, targets in zip(batch["inputs"].tolist(), batch["targets"].tolist(), strict=True):
        n = tokens.index(0)
        lengths.add(n)
        assert tokens[n + 1 : 2 * n + 1] == tokens[:n] and set(tokens[2 * n + 1 :]) <= {0}
        scored = [place for place, target in enumerate(targets) if target != data.IGNORED]
        assert scored == list(range(n - 1, 2 * n)) and [targets[p] for p in scored] == [0, *tokens[:n]]
    assert lengths == set(range(6, 11))


def test_ngrams_repeat_their_segment_and_ask_where_it_can_or_cannot_be_known():
    both = [data.ngrams(asked="all", tested=tested).test for tested in ("repeats", "first")]
    for tokens, known, unknown in zip(both[0]["inputs"].tolist(), *(b["targets"].tolist() for b in both), strict=True):
        period = unknown.index(data.IGNORED) + 1  # the first target of the second round
        assert 6 <= period <= 14 and all(tokens[i] == tokens[i - period] for i in range(period, 32))
        assert unknown[: period - 1] == tokens[1:period] and known[:period] == [data.IGNORED] * period
        assert known[period:31] == tokens[period + 1 :]


def by_python(expression):
    """The value of an expression by Python's own evaluation: "[MAX 2 [MIN 4 7 ] ]" becomes "MAX([2,MIN([4,7,]),])"."""
    functions = {"MIN": min, "MAX": max, "MED": lambda v: int(median(v)), "SM": lambda v: sum(v) % 10}
    written = {"]": "]),", **{f"[{name}": f"{name}([" for name in functions}}
    code = "".join(written.get(token, f"{token},") for token in expression.split())
    return eval(code.rstrip(","), functions)


def test_listops_answers_agree_with_python():
    task = data.listops(num_train=300, num_test=20)
    batch = task.test
    for row, target in zip(batch["inputs"].tolist(), batch["targets"].tolist(), strict=True):
        expression = to_text(row)
        assert evaluate(expression) == target == by_python(expression), expression


def test_listops_known_values():
    assert evaluate("[MAX 2 9 [MIN 4 7 ] 0 ]") == 9
    assert evaluate("[SM 8 [MED 3 9 5 ] 1 ]") == 4
    assert evaluate("[MED 1 2 ]") == 1, "the integer part of 1.5"


def test_listops_lengths_depth_arguments_and_masks_are_those_asked_for():
    task = data.listops(max_depth=4, max_args=5, min_len=6, max_len=40, num_train=400, num_test=1)
    batch = task.batch(0)
    depths, arguments = set(), set()
    for row, mask in zip(batch["inputs"].tolist(), batch["key_padding_mask"].tolist(), strict=True):
        tokens = to_text(row).split()
        assert 6 < len(tokens) < 40 and mask == [token == 0 for token in row]
        open_lists = []
        for token in tokens:
            if token == "]":
                arguments.add(open_lists.pop())
            if open_lists and token != "]":
                open_lists[-1] += 1
            if token.startswith("["):
                open_lists.append(0)
                depths.add(len(open_lists))
    assert max(depths) <= 3 and min(arguments) == 2 and max(arguments) == 5


def test_three_listops_nodes_in_four_are_digits():
    numbers, nodes = random.Random(0), [[] for _ in range(4000)]
    for tokens in nodes:
        grow(tokens, 2, 2, numbers, depth=1)
    assert sum(len(tokens) == 1 for tokens in nodes) / len(nodes) == pytest.approx(0.75, abs=0.03)


@settings(max_examples=30, deadline=None)
@given(st.text(alphabet="[]MINSX 0123", max_size=20))
def test_listops_evaluate_answers_or_names_the_fault(expression):
    try:
        assert 0 <= evaluate(expression) <= 9
    except ValueError as error:
        assert str(error)


def test_text_predicts_the_next_character_and_tests_on_the_end():
    task = data.text(length=32)
    batch = task.batch(0)
    assert torch.equal(batch["inputs"][:, 1:], batch["targets"][:, :-1])
    assert task.test["inputs"].shape == (64, 32) and "sha256" in task.description
    assert TEST_SHARE == 0.1


def idx(array):
    """An array of bytes in the format of the MNIST family."""
    return struct.pack(f">BBBB{array.dim()}I", 0, 0, 8, array.dim(), *array.shape) + array.numpy().tobytes()


@pytest.fixture
def tiny_fashion(tmp_path, monkeypatch):
    """Four small files in a folder like Debian's, with their checksums."""
    source = tmp_path / "system"
    source.mkdir()
    generator = torch.Generator().manual_seed(0)
    checksums = {}
    for name in vision.FASHION_FILES:
        shape = ((20 if "train" in name else 8), *((28, 28) if "images" in name else ()))
        content = idx(torch.randint(256 if "images" in name else 10, shape, generator=generator).to(torch.uint8))
        (source / f"{name}.gz").write_bytes(gzip.compress(content))
        checksums[name] = hashlib.sha256(content).hexdigest()
    monkeypatch.setattr(vision, "FASHION_FILES", checksums)
    monkeypatch.setattr(vision.unpack_system_files, "__defaults__", (source,))
    return tmp_path / "root"


def test_fashion_mnist_reads_the_system_s_files_and_pools(tiny_fashion):
    task = data.fashion_mnist(root=tiny_fashion, batch_size=4)
    pooled = data.fashion_mnist(root=tiny_fashion, batch_size=4, size=14)
    sequence = data.fashion_mnist(root=tiny_fashion, batch_size=4, size=14, as_sequence=True)
    assert task.test["inputs"].shape == (8, 1, 28, 28) and sequence.test["inputs"].shape == (8, 196, 1)
    block = task.test["inputs"][0, 0, 2:4, 4:6].mean()
    torch.testing.assert_close(pooled.test["inputs"][0, 0, 1, 2], block)
    torch.testing.assert_close(sequence.test["inputs"][0, 16, 0], block)


@pytest.mark.parametrize("damage", ["no gzip", "cut short", "other content"])
def test_a_damaged_system_file_is_not_used(tiny_fashion, damage):
    name = "t10k-labels-idx1-ubyte"
    path = tiny_fashion.parent / "system" / f"{name}.gz"
    whole = path.read_bytes()
    path.write_bytes({"no gzip": b"?", "cut short": whole[:-9], "other content": gzip.compress(b"other")}[damage])
    vision.unpack_system_files(tiny_fashion)
    raw = tiny_fashion / "FashionMNIST" / "raw"
    assert not (raw / name).exists() and (raw / "t10k-images-idx3-ubyte").exists()


@pytest.mark.skipif(
    not vision.SYSTEM_FASHION.exists(), reason="Debian's package dataset-fashion-mnist is not installed"
)
def test_the_real_fashion_mnist_files_are_read(tmp_path):
    task = data.fashion_mnist(root=tmp_path, train_size=500)
    assert task.test["inputs"].shape == (10000, 1, 28, 28)
    assert torch.bincount(task.test["targets"]).tolist() == [1000] * 10


def test_a_data_set_that_cannot_be_had_is_one_clear_error(tmp_path, monkeypatch):
    from torchvision import datasets

    def offline(*args, **options):
        raise OSError("no network")

    monkeypatch.setattr(datasets, "CIFAR10", offline)
    with pytest.raises(RuntimeError, match="CIFAR10 is not in .* could not be downloaded"):
        data.cifar10(root=tmp_path)


WRONG = {
    "unknown task": (lambda: data.build("recal"), "'recal'.*recall"),
    "no batch": (lambda: data.recall(batch_size=0), "batch_size=0"),
    "asked nobody": (lambda: data.colour(asked="nobody"), "asked='nobody'.*last, all"),
    "no colour": (lambda: data.colour(num_colours=0), "num_colours=0"),
    "too short to copy": (lambda: data.copying(max_len=7), "max_len=7"),
    "segment beyond the sequence": (lambda: data.ngrams(length=14), "most=14, length=14"),
    "asked nobody of n-grams": (lambda: data.ngrams(tested="none"), "tested='none'.*repeats, first, all"),
    "unknown series": (lambda: data.uea(dataset="Heartbeat"), "'Heartbeat'.*JapaneseVowels"),
    "one argument": (lambda: data.listops(max_args=1), "max_args=1"),
    "more expressions than there are": (
        lambda: data.listops(max_depth=2, max_args=2, min_len=3, max_len=5, num_train=5000),
        "different expressions",
    ),
    "batch beyond the data": (lambda: data.digits(batch_size=2000), "batch_size=2000"),
    "window beyond the text": (lambda: data.text(length=10**8), "length=100000000"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_option_is_named(wrong):
    call, words = WRONG[wrong]
    with pytest.raises(ValueError, match=words):
        call()


def test_importing_the_tasks_loads_no_heavy_library():
    import subprocess
    import sys

    code = "import sys, refattn.data; print({'sklearn', 'torchvision'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parent)
    assert found.stdout.strip() == "set()", found.stderr
