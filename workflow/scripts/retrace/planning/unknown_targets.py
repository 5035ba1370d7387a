"""The refusal of a name that is no target, with the nearest names that can run."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from retrace.config.yaml_files import names
from retrace.errors import ConfigError
from retrace.planning import container_images
from retrace.planning.snakemake_options import REQUESTS
from retrace.planning.targets import (
    DATA_VERBS,
    PAIR_VERBS,
    all_targets,
    named_dataset,
    reason_against,
)

if TYPE_CHECKING:
    from retrace.planning.experiment import Planner

LISTING = "`make list` shows what can run here"
SIMILAR, EQUAL = 0.6, 0.9
"""Similarity (difflib) from which a name is suggested, and from which it is suggested alone."""
SUGGESTIONS, CANDIDATES = 3, 20
"""Names in a message, and names that are tried for it."""


def named_words(options: Mapping[str, Any]) -> dict[str, bool]:
    """The words that options of Snakemake use as names, and whether they are targets."""
    found: dict[str, bool] = {}
    for option in REQUESTS:
        for word in options.get(option) or ():
            found[str(word)] = found.get(str(word), False) or option == "targets"
    return found


def check_named(planner: Planner, unknown: Mapping[str, Collection[str]]) -> None:
    """ConfigError for words that are no target, rule or file, with the rules that each may name."""
    messages = [unknown_target(planner, word, rules) for word, rules in unknown.items()]
    if messages:
        raise ConfigError("\n".join([*messages, LISTING]))


def unknown_target(planner: Planner, word: str, rules: Collection[str] = ()) -> str:
    """The message for a name that is no target; ConfigError for that of a container image."""
    container_images.check_published(planner.root, word)
    close = nearest_targets(planner, word, rules)
    problem, allowed = what_is_wrong(word)
    hint = f"; did you mean {_either(close)}?" if close else ""
    return f"{word}: {problem}{hint}{f' ({allowed})' if allowed else ''}"


def _either(close: list[str]) -> str:
    return " or ".join(part for part in (", ".join(close[:-1]), close[-1]) if part)


def nearest_targets(planner: Planner, word: str, rules: Collection[str] = ()) -> list[str]:
    """The most similar names that can run, the best first; one if it is almost the same."""
    written = as_name(word)
    allowed = {*all_targets(), *rules}
    if written in allowed:
        return [written]
    found: list[str] = []
    for name in difflib.get_close_matches(written, allowed, CANDIDATES, SIMILAR):
        is_target = name in all_targets()
        if is_target and reason_against(planner, name) is not None:
            continue
        found.append(name)
        similarity = difflib.SequenceMatcher(a=name, b=written).ratio()
        if len(found) == SUGGESTIONS or similarity >= EQUAL:
            break
    return found


def as_name(word: str) -> str:
    """A word as targets are written: lower case, with single underscores inside."""
    return re.sub("[-_ ]+", "_", word.lower()).strip("_")


def what_is_wrong(word: str) -> tuple[str, str]:
    """Which part of verb_DATASET_NETWORK a word lacks or misspells, and what is allowed there."""
    written = as_name(word)
    verb = _longest_start(written, [*PAIR_VERBS, *DATA_VERBS, "reproduce"])
    if written in all_targets():
        return "targets have lower case letters and single underscores", ""
    if verb is None:
        return _without_verb(written)
    rest = written.removeprefix(verb).removeprefix("_")
    if not rest:
        return f"name a dataset{' and a network' if verb in PAIR_VERBS else ''} too", _form(verb)
    dataset = _longest_start(rest, names("datasets"))
    if dataset is None:
        return f"no dataset {rest.split('_')[0]!r}", f"datasets: {', '.join(names('datasets'))}"
    network = rest.removeprefix(dataset).removeprefix("_")
    if verb not in PAIR_VERBS:
        return f"{verb} takes no network", _form(verb)
    return (f"no network {network!r}", "") if network else ("name a network too", _form(verb))


def _without_verb(written: str) -> tuple[str, str]:
    """The same for a word that starts with no verb."""
    dataset = named_dataset(written)
    if dataset is None:
        return "no target, rule or file has this name", ""
    verb = f"_{written}_".partition(f"_{dataset}_")[0].strip("_")
    verbs = f"verbs: {', '.join(sorted({*PAIR_VERBS, *DATA_VERBS}))}"
    return (f"no verb {verb!r}" if verb else "name a verb too"), verbs


def _form(verb: str) -> str:
    return f"{verb}_DATASET_NETWORK" if verb in PAIR_VERBS else f"{verb}_DATASET"


def _longest_start(text: str, allowed: Iterable[str]) -> str | None:
    """The longest name that a text starts with, up to an underscore or its end."""
    starts = [name for name in allowed if f"{text}_".startswith(f"{name}_")]
    return max(starts, key=len, default=None)
