"""The whole story as one page that opens without a server.

    report.py --settings JSON --template page.html.jinja --output report.html

The settings are one JSON object: `config`, and `experiments`, each with `dataset`, `network`,
`segment`, `recipe_iterations`, `volume`, `layers` (as view.py reads them) and `folder`, where the
results of the experiment lie. Comparisons and reproductions that are there are taken in.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from retrace import __version__
from retrace.errors import run
from retrace.evaluation.comparison import HEADINGS, footnote
from retrace.files import atomic_write, read_json
from retrace.progress import progress
from retrace.reporting.drawings import embedded, graph, learning_curve
from retrace.reporting.manifests import costs, edges, machine, read_made
from retrace.reporting.methods import paragraph
from retrace.viewing.layers import open_layers
from retrace.viewing.picture import draw_sections

SHOWN = ("raw", "labels", "affinities", "lsds", "boundary", "segments")
"""Layers of the pictures."""
PANEL_ROW = (1400, 350)
"""Pixels of a row of four panels (width, height)."""


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--settings", required=True, type=json.loads, help="one JSON object")
    parser.add_argument("--template", required=True, type=Path)
    parser.add_argument("--output", required=True, type=Path)
    return parser.parse_args(argv)


def number(value: Any) -> str:
    """A cell of a table."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def scalars(entry: Mapping[str, Any]) -> dict[str, float]:
    """The scores of an entry of an evaluation: its own numbers, not those of its parts."""
    return {
        key: value
        for key, value in entry.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }


def score_tables(experiments: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows for every experiment and entry, those with the same metrics in one table."""
    tables: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for one in experiments:
        for entry, content in one["evaluation"]["volumes"].items():
            values = scalars(content)
            row = {"experiment": one["name"], "entry": entry, "scores": values}
            tables.setdefault(tuple(values), []).append(row)
    return [{"metrics": metrics, "rows": rows} for metrics, rows in tables.items()]


def picture(layers: Sequence[Mapping[str, Any]], folder: Path) -> str:
    """The central sections of those layers that are there."""
    opened, _ = open_layers([layer for layer in layers if layer["kind"] in SHOWN])
    path = folder / "picture.png"
    draw_sections(opened, path, (PANEL_ROW[0], PANEL_ROW[1] * -(-len(opened) // 4)))
    return embedded(path)


def deviations(one: Mapping[str, Any]) -> Iterator[str]:
    """Where a run left its network's recipe."""
    done, recipe = one["history"]["iterations"], one["recipe_iterations"]
    if recipe and done != recipe:
        yield f"{done:,} iterations of {recipe:,}"
    if one["network"]["name"].endswith("_small"):
        yield "the small form of the network, for computers without a GPU"


def published_rows(one: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The paper's numbers beside those of this experiment, where they were compared."""
    path = Path(one["folder"]).parent / "reproduction.json"
    if not path.is_file():
        return []
    rows = read_json(path)["rows"]
    return [row for row in rows if row["network"] == one["network"]["name"]]


def read_experiment(content: Mapping[str, Any]) -> dict[str, Any]:
    """An experiment with its results and its pictures."""
    folder = Path(content["folder"])
    one = {
        **content,
        "name": f"{content['dataset']['name']}_{content['network']['name']}",
        "history": read_json(folder / "training.json"),
        "evaluation": read_json(folder / "evaluation.json"),
    }
    plot = folder / "evaluation.png"
    with tempfile.TemporaryDirectory() as scratch:
        return {
            **one,
            "methods": paragraph(one),
            "deviations": list(deviations(one)),
            "picture": picture(content["layers"], Path(scratch)),
            "curve": learning_curve(one["history"]),
            "plot": embedded(plot) if plot.is_file() else None,
            "published": published_rows(one),
            "convention": one["evaluation"].get("convention"),
        }


def read_comparison(folder: Path) -> dict[str, Any] | None:
    """The comparison of a dataset's networks, where it was made."""
    path = folder / "comparison.json"
    if not path.is_file():
        return None
    content = read_json(path)
    keys = [key for key in HEADINGS if any(row.get(key) is not None for row in content["rows"])]
    published = content.get("published")
    return {
        **content,
        "footnote": footnote(published) if published else None,
        "headings": [HEADINGS[key] for key in keys],
        "rows": [[row.get(key) for key in keys] for row in content["rows"]],
        "picture": embedded(path.with_suffix(".png")),
    }


def page(settings: Mapping[str, Any], template: str) -> str:
    """The page."""
    asked = settings["experiments"]
    experiments = [read_experiment(one) for one in progress(asked, len(asked), "report", "pages")]
    datasets = sorted({Path(one["folder"]).parent for one in asked})
    made = read_made([*(Path(one["folder"]) for one in asked), *(d / "masks" for d in datasets)])
    compared = [found for folder in datasets if (found := read_comparison(folder))]
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["number"] = number
    return environment.from_string(template).render(
        version=__version__,
        experiments=experiments,
        scores=score_tables(experiments),
        comparisons=compared,
        graph=graph(edges(made)),
        costs=costs(made, {one["name"]: one["history"] for one in experiments}),
        machine=machine(),
        images=sorted({one.image for one in made if one.image}),
        configuration=json.dumps(settings["config"], indent=1, sort_keys=True),
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point; `argv` without the program's name."""
    args = parse_args(argv)
    text = page(args.settings, args.template.read_text())
    atomic_write(args.output, text)
    print(f"[report] {args.output}, {len(text) / 1e6:.1f} MB", flush=True)


if __name__ == "__main__":
    run(main)
