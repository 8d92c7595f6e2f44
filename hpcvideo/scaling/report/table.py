"""A table as values, which the page, the Markdown and the terminal each render in their own way."""

from __future__ import annotations

from dataclasses import dataclass

NONE = "–"
"""Stands in a cell whose number does not exist."""


@dataclass(frozen=True)
class Cell:
    """`text`, and in smaller print what goes with it, as its interval."""

    text: str
    note: str = ""
    strong: bool = False

    def __str__(self) -> str:
        """Both in one line."""
        return f"{self.text} ({self.note})" if self.note else self.text


@dataclass(frozen=True)
class Column:
    """words: the column holds text, to be set left. colour: of the patch that ties it to a figure."""

    heading: str
    words: bool = False
    colour: str = ""


@dataclass(frozen=True)
class Table:
    """Columns and rows of equal length."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    title: str = ""
    """Where several tables of the same columns follow each other."""

    def __post_init__(self) -> None:
        """Raises ValueError where a row has another length than the columns."""
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"a row of {len(row)} cells in a table of {len(self.columns)} columns")


def markdown_table(table: Table) -> str:
    """The table in GitHub's Markdown, ending in a newline."""
    lines = [
        [column.heading for column in table.columns],
        ["---" if column.words else "---:" for column in table.columns],
        *([str(cell) for cell in row] for row in table.rows),
    ]
    title = f"**{table.title}**\n\n" if table.title else ""
    return title + "".join("| " + " | ".join(_escaped(text) for text in line) + " |\n" for line in lines)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")
