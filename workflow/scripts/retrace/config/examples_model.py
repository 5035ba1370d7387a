"""A dataset of single examples with a class each: its file, and with everything filled in."""

from __future__ import annotations

from pydantic import Field

from retrace.config.dataset_model import DatasetBase, DatasetName
from retrace.config.obtain_model import Obtain
from retrace.formats.examples_source import ExamplesSource
from retrace.settings_model import SettingsModel


class ExamplesFile(SettingsModel):
    """Images or vectors with a class each, instead of volumes.

    Networks of the family elektronn with the mode img-scalar or vect-scalar learn from them.
    """

    name: DatasetName = Field(
        description="Letters, digits and _; the same as the file's name. A target is "
        "verb_dataset_network."
    )
    examples: ExamplesSource = Field(
        description="Where the examples are, and how they are divided."
    )
    obtain: Obtain | None = Field(
        None,
        description="Where files come from that a user has to download; shown when one is missing.",
    )


class ExamplesDataset(DatasetBase):
    """Single examples with a class each, with everything filled in; it has no volumes."""

    examples: ExamplesSource = Field(
        description="Where the examples are, and how they are divided."
    )
