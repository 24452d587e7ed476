"""The catalogue says what is really there: papers, forms, lessons, exercises, experiments, glossary, routes."""

import re
from pathlib import Path

import pytest

from refattn import attention, catalog

ROOT = Path(__file__).parent.parent
KINDS = {"attention": 8, "architecture": 3, "search": 6, "pruning": 3}


def test_the_twenty_papers_are_listed_by_kind():
    papers = [r for r in catalog.RECORDS if r.kind != "baseline"]
    assert len(papers) == 20
    assert {kind: sum(r.kind == kind for r in papers) for kind in KINDS} == KINDS


def test_slugs_and_lesson_numbers_are_unique():
    assert len({r.slug for r in catalog.RECORDS}) == len(catalog.RECORDS)
    assert len({e.number for e in catalog.LESSONS}) == len(catalog.LESSONS)


@pytest.mark.parametrize("record", catalog.RECORDS, ids=lambda r: r.slug)
def test_a_record_is_well_formed(record):
    assert re.fullmatch(r"\d{4}\.\d{5}", record.arxiv) and 2015 <= record.year <= 2026
    assert set(record.forms) <= set(catalog.ALL_FORMS) and set(record.ready) <= set(catalog.PARTS)
    assert catalog.lesson(record.lesson)


@pytest.mark.parametrize("record", catalog.RECORDS, ids=lambda r: r.slug)
def test_ready_parts_are_those_that_stand(record):
    entry = catalog.lesson(record.lesson)
    stands = {
        "code": record.slug in attention.names()
        or (record.kind == "architecture" and (ROOT / "refattn" / "models" / f"{record.slug}.py").exists()),
        "lesson": (ROOT / "notebooks" / f"{entry.file}.ipynb").exists(),
        "exercises": (ROOT / "exercises" / f"{entry.file}.ipynb").exists(),
        "experiment": (ROOT / "refattn" / "reproduce" / f"{record.slug}.py").exists(),
    }
    assert set(record.ready) == {part for part, there in stands.items() if there}


@pytest.mark.parametrize("entry", catalog.LESSONS, ids=lambda e: e.file)
def test_ready_lessons_are_those_that_stand(entry):
    assert entry.ready == (ROOT / "notebooks" / f"{entry.file}.ipynb").exists()
    assert all(catalog.lesson(number).number < entry.number for number in entry.needs), "a lesson needs earlier ones"


def test_no_lesson_stands_that_the_catalogue_does_not_know():
    known = {entry.file for entry in catalog.LESSONS}
    assert {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")} <= known


def test_a_route_holds_what_its_lessons_need_before_them():
    for route in catalog.routes().values():
        seen = set()
        for entry in route:
            assert set(entry.needs) <= seen
            seen.add(entry.number)


def test_every_mechanism_has_its_symbols_in_the_glossary():
    for name in attention.names():
        assert catalog.symbol_box(name).count("\n") > 2


@pytest.mark.parametrize("call", [catalog.get, catalog.lesson, catalog.symbol_box])
def test_an_unknown_name_is_answered_with_the_known_ones(call):
    with pytest.raises(ValueError, match="wanted one of .*"):
        call("nothing")
