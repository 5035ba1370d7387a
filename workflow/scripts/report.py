"""Writes the report of finished experiments: one HTML page that opens without a server.

    report.py --settings JSON --template page.html.jinja --output report.html

The settings are one JSON object: `config`, and `experiments`, each with `dataset`, `network`,
`segment`, `recipe_iterations`, `volume`, `layers` (as view.py reads them) and `folder`, the
experiment's results; `alignments` are networks that align sections. Comparisons and reproductions
are included where they exist.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from retrace.command_line import add_job, parse_job
from retrace.config.schema import check
from retrace.errors import run
from retrace.files import atomic_write
from retrace.planning.report_settings import ReportSettings
from retrace.reporting.page import report_page
from retrace.reporting.size_limit import within_limit


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_job(parser, file=["template"])
    parser.add_argument("--output", required=True, type=Path)
    return parse_job(parser, argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point; `argv` without the program's name."""
    args = parse_args(argv)
    settings = check(ReportSettings, args.settings, "--settings")
    text = within_limit(report_page(settings, args.template.read_text()))
    atomic_write(args.output, text)
    print(f"[report] {args.output}, {len(text) / 1e6:.1f} MB", flush=True)


if __name__ == "__main__":
    run(main)
