"""Compares evaluations with the numbers of the paper, and judges the comparison.

    reproduce.py table --settings JSON --published FILE.yaml --evaluations NETWORK=FILE.json ...
                       --output table.json --text table.txt
    reproduce.py judge --table table.json --output verdict.txt

`table` writes all numbers; `judge` fails if one is outside its tolerance. They are separate
commands, so that the table exists even if `judge` fails.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from retrace.command_line import add_job, parse_job
from retrace.config.schema import check
from retrace.config.yaml_files import read_yaml
from retrace.errors import StateError, run
from retrace.evaluation.reproduction import compare_with_published, passes, reproduction_table
from retrace.files import atomic_write, read_json, write_json
from retrace.planning.score_settings import ReproductionSettings
from retrace.reading import reading_content


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    table = verbs.add_parser("table", help="write every number next to the paper's")
    add_job(table, file=["published"], files_by_name=["evaluations"])
    table.add_argument("--text", required=True, type=Path, help="the same as a text table")
    judge = verbs.add_parser("judge", help="fail where a number is outside its tolerance")
    add_job(judge, file=["table"], has_settings=False)
    for verb in (table, judge):
        verb.add_argument("--output", required=True, type=Path)
    return parse_job(parser, argv)


def write_table(args: argparse.Namespace) -> None:
    """Writes the table as JSON and as text, and prints it."""
    published = read_yaml(args.published)
    evaluations = {n: read_json(path) for n, path in args.evaluations.items()}
    settings = check(ReproductionSettings, args.settings, "settings of the comparison")
    rows = [row.as_dict() for row in compare_with_published(settings, published, evaluations)]
    content = {
        "dataset": settings.dataset,
        "source": published["source"],
        "threshold": settings.threshold,
        "tolerance": settings.plain()["tolerance"],
        "passes": passes(rows),
        "rows": rows,
    }
    write_json(args.output, content)
    atomic_write(args.text, reproduction_table(rows) + "\n")
    print(reproduction_table(rows), flush=True)


def judge_table(args: argparse.Namespace) -> None:
    """Writes the verdict; StateError names the numbers outside their tolerance."""
    table = read_json(args.table)
    with reading_content(args.table, "compare again"):
        rows = [{**row, "within": row["within"]} for row in table["rows"]]
    print(reproduction_table(rows), flush=True)
    outside = [row for row in rows if row["within"] is False]
    judged = [row for row in rows if row["within"] is not None]
    if not passes(rows):
        first = "\n".join(f"  {_name(row)}" for row in outside)
        raise StateError(
            f"{table['dataset']}: {len(outside)} of {len(judged)} judged numbers are outside their "
            f"tolerance, or missing; all of them are in {args.table}\n{first}"
        )
    verdict = f"{table['dataset']}: all {len(judged)} judged numbers are within their tolerance\n"
    atomic_write(args.output, verdict)
    print(verdict, end="", flush=True)


def _name(row: dict[str, object]) -> str:
    return " ".join(str(row[key]) for key in ("region", "truth", "network", "metric", "note"))


def main(argv: Sequence[str] | None = None) -> None:
    """Runs one command; `argv` without the program's name."""
    args = parse_args(argv)
    if args.verb == "table":
        write_table(args)
    else:
        judge_table(args)


if __name__ == "__main__":
    run(main)
