"""docs/syscalls.md says what the table says."""

from __future__ import annotations

import re
from pathlib import Path

from sentry import syscalls
from sentry.abi.syscall_nr import NAMES
from sentry.syscalls.document import describe, document
from sentry.syscalls.table import REFUSED, TABLE

DOCS = Path(__file__).resolve().parents[2] / "docs"
REMEDY = "run: python -m sentry.syscalls.document > docs/syscalls.md"


def test_the_document_is_up_to_date() -> None:
    assert (DOCS / "syscalls.md").read_text() == document(), REMEDY


def test_every_known_call_has_one_row() -> None:
    rows = [line for line in document().splitlines() if line.startswith("| ") and line[2].isdigit()]
    assert len(rows) == len(NAMES)


def test_support_levels() -> None:
    syscalls.load_all()
    for nr in NAMES:
        support, notes = describe(nr)
        assert (nr in TABLE) == (support in ("full", "partial"))
        assert (nr in REFUSED) == support.startswith("refused")
        assert "|" not in notes and "\n" not in notes


def test_every_handler_cites_its_man_page() -> None:
    syscalls.load_all()
    missing = [entry.name for entry in TABLE.values() if not (entry.handler.__doc__ or "").strip()]
    assert missing == []


def test_documents_name_files_that_exist() -> None:
    pages = [DOCS / "architecture.md", *sorted((DOCS / "decisions").glob("*.md"))]
    for page in pages:
        for name in re.findall(r"`((?:sentry|gofer|csrc|tests|docs)/[\w./-]*)`", page.read_text()):
            assert (DOCS.parent / name).exists(), (page.name, name)
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / link).exists(), (page.name, link)
