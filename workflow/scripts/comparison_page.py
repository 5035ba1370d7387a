"""Writes a comparison as one HTML page, with a table that sorts and plots with values.

comparison_page.py --comparison comparison.json --template page.html.jinja
                   --output comparison_page.html
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from retrace.command_line import add_job, parse_job
from retrace.errors import run
from retrace.files import atomic_write
from retrace.reporting.comparisons import comparison_page


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_job(parser, file=["comparison", "template"], has_settings=False)
    parser.add_argument("--output", required=True, type=Path)
    return parse_job(parser, argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point; `argv` without the program's name."""
    args = parse_args(argv)
    text = comparison_page(args.comparison, args.template.read_text())
    atomic_write(args.output, text)
    print(f"[comparison page] {args.output}, {len(text) / 1e6:.1f} MB", flush=True)


if __name__ == "__main__":
    run(main)
