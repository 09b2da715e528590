"""Text in columns: the one place that lines things up."""

from collections.abc import Sequence


def aligned_table(
    rows: Sequence[Sequence[str]], *, header: Sequence[str] | None = None, align: str | None = None
) -> str:
    """Columns two blanks apart, under a header with a rule when one is given.

    A column whose name is empty has no rule.

    Args:
      rows: cells as text, every row as long as the others; none at all gives the header alone.
      header: names of the columns.
      align: one letter per column, 'l' or 'r'; all left when not given.

    Returns:
      Lines joined by newlines, without trailing blanks and without a last newline.

    Raises:
      ValueError: rows, header and `align` do not agree on the number of columns.
    """
    lines = ([list(header)] if header is not None else []) + [list(row) for row in rows]
    if not lines:
        return ""
    num_columns = len(lines[0])
    align = align or "l" * num_columns
    if any(len(line) != num_columns for line in lines) or len(align) != num_columns:
        raise ValueError(
            f"Every row, the header and align must have the same number of columns. "
            f"Received: {[len(line) for line in lines]} and align={align!r}."
        )
    widths = [max(len(line[column]) for line in lines) for column in range(num_columns)]
    if header is not None:
        rule = ["-" * width if name else "" for name, width in zip(header, widths, strict=True)]
        lines.insert(1, rule)
    return "\n".join(
        "  ".join(
            cell.rjust(width) if side == "r" else cell.ljust(width)
            for cell, width, side in zip(line, widths, align, strict=True)
        ).rstrip()
        for line in lines
    )
