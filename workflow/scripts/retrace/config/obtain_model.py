"""Where files come from that a user has to download: a dataset's `obtain`."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from retrace.formats.examples_source import Sha256, Url
from retrace.setting_types import AnyText, Text
from retrace.settings_model import SettingsModel


class ObtainedFile(SettingsModel):
    """One file that a user has to download."""

    check: Text | None = Field(
        None, description="What shows that it is the right file, such as its shape and type."
    )
    sha256: Sha256 | None = Field(None, description="Its SHA-256.")
    url: Url | None = Field(
        None,
        description="Address of this very file, from which `fetch_DATASET` downloads it; for files "
        "in data/DATASET, and with `sha256`.",
    )

    @model_validator(mode="after")
    def _is_verified(self) -> Self:
        if self.url is not None and self.sha256 is None:
            raise ValueError("`url` needs `sha256`, which verifies the downloaded file")
        return self


class Obtain(SettingsModel):
    """Where the files of a dataset come from; shown when one of them is missing."""

    address: Text = Field(
        description="Where the files are offered: an address, or whom to ask for them."
    )
    licence: Text = Field(description="The licence or terms of the files.")
    steps: Text | None = Field(
        None, description="What else to do, such as how to unpack or convert a download."
    )
    files: dict[AnyText, ObtainedFile] = Field(
        {}, description="What is known of each file, by its path as in this dataset."
    )

    @property
    def origin(self) -> str:
        """Source, licence and steps, a line each."""
        steps = [f"Steps: {self.steps}"] if self.steps else []
        return "\n".join([f"Source: {self.address}", f"Licence: {self.licence}", *steps])
