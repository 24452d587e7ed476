"""Writing what another language writes: pairs, batches, the split, and what is said where Babel is missing."""

import sys

import pytest
import torch

from refattn import data, train
from refattn.data.cldr import END, PAD, START, halves, is_test, letters, pairs_of, position, to_text
from refattn.reproduce.written_dates import edit_distance, write_dates

pytest.importorskip("babel", reason="Babel is missing: it comes with JupyterLab, the notebooks extra")
KINDS = [{"kind": "dates"}, {"kind": "territories"}, {"kind": "languages", "target": "fr"}]


def texts(batch, known):
    return {key: [to_text(row, known) for row in batch[key].tolist()] for key in ("inputs", "target", "targets")}


@pytest.mark.parametrize("options", KINDS, ids=lambda options: options["kind"])
def test_a_batch_holds_pairs_of_the_data_one_place_on(options):
    task, pairs = data.build("cldr", batch_size=16, test_size=32, **options), pairs_of(**options)
    known = letters(pairs)
    for batch in (task.batch(3), task.test):
        found = texts(batch, known)
        assert set(zip(found["inputs"], found["targets"], strict=True)) <= set(pairs)
        assert found["target"] == found["targets"], "what is read so far is what is to be written, one place on"
        assert (batch["target"][:, 0] == START).all() and batch["inputs"].max() < task.vocab_size
        ends = (batch["targets"] == END).sum(1)
        assert (ends == 1).all() and not (batch["targets"] == PAD).any()


@pytest.mark.parametrize("options", KINDS, ids=lambda options: options["kind"])
def test_no_source_is_in_both_parts_whatever_the_seed(options):
    pairs = pairs_of(**options)
    held_out = {source for source, _ in pairs if is_test(source, 0.1)}
    assert 0.05 < len(held_out) / len({source for source, _ in pairs}) < 0.15
    train, test = halves(pairs, 0.1, 10**6)
    known = letters(pairs)
    trained, tested = (set(texts(part, known)["inputs"]) for part in (train, test))
    assert not trained & tested and tested == held_out
    first, second = (data.build("cldr", batch_size=16, seed=seed, **options) for seed in (0, 1))
    assert torch.equal(first.test["inputs"], second.test["inputs"])
    assert not torch.equal(first.batch(0)["inputs"], second.batch(0)["inputs"])


def test_the_test_part_is_a_sample_by_hashes():
    task = data.build("cldr", test_size=32)
    held_out = sorted({source for source, _ in pairs_of() if is_test(source, 0.1)}, key=position)
    assert texts(task.test, letters(pairs_of()))["inputs"] == held_out[:32]


def test_what_follows_the_end_is_not_text():
    assert to_text([START, 3, PAD, 4, END, 4], "ab") == "ab"


@pytest.mark.parametrize(
    ("a", "b", "edits"),
    [("", "abc", 3), ("abc", "", 3), ("kitten", "sitting", 3), ("ab", "ba", 2), ("5.3.", "5.3.", 0)],
)
def test_an_edit_is_an_insertion_a_deletion_or_a_replacement(a, b, edits):
    assert edit_distance(a, b) == edit_distance(b, a) == edits


class Scribe:
    """Writes all targets without an error, but for the letter of one row that is `START`."""

    def __init__(self, task):
        self.right = task.test["targets"].clamp(min=END)  # what is not scored comes after the end

    def eval(self):
        return self

    def generate(self, inputs, start, length, *, end, beams):
        written = self.right.clone()
        written[1] = torch.cat([written[1, :2], torch.tensor([START]), written[1, 2:-1]])
        return torch.cat([start, written if beams > 1 else self.right], 1)


def test_written_dates_are_read_in_their_alphabet_and_start_is_a_mistake(monkeypatch):
    monkeypatch.setattr(train, "fit", lambda *_, **__: None)
    sizes = {"target": "fi", "style": "full", "batch_size": 4, "test_size": 4}
    found = write_dates({"scribe": lambda task, _: Scribe(task)}, {}, seeds=2, steps=1, beams=3, **sizes)["variants"]
    assert found["scribe"] == {"exact match": [1.0, 1.0], "character errors": [0.0, 0.0]}
    right = texts(data.build("cldr", **sizes).test, letters(pairs_of("dates", "en", "fi", "full")))["targets"]
    errors = round(1 / sum(map(len, right)), 6)
    assert found["scribe, 3 beams"] == {"exact match": [0.75] * 2, "character errors": [errors] * 2}


def test_known_pairs():
    assert ("Mar 5, 1974", "05.03.1974") in pairs_of() or ("Mar 6, 1974", "06.03.1974") in pairs_of()
    assert ("Cameroon", "Kamerun") in pairs_of("territories")
    assert pairs_of("dates", "en", "fi", "full")[0][1].startswith(("maanantai", "perjantai", "keskiviikko"))
    assert position("Cameroon") == position("Cameroon") != position("Kamerun")


WRONG = {
    "kind='times'": {"kind": "times"},
    "style='tiny'": {"style": "tiny"},
    "language='xx'": {"target": "xx"},
    "test_share=1.5": {"test_share": 1.5},
    "batch_size=0": {"batch_size": 0},
    "leaves one side empty": {"kind": "territories", "test_share": 1e-9},
}


@pytest.mark.parametrize("words", WRONG)
def test_wrong_options_are_named(words):
    with pytest.raises(ValueError, match=words):
        data.build("cldr", **WRONG[words])


def test_without_babel_one_line_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "babel", None)
    with pytest.raises(ValueError, match="pip install babel"):
        data.build("cldr", kind="territories", source="sv", target="da")
