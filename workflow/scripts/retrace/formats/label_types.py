"""Refusals of labels by their type. Standard library only, because planning uses it too."""

from __future__ import annotations


def needs_ids(name: str, dtype: str) -> str:
    """The message for an array that holds no ids of objects; `dtype` is its type."""
    remedy = "write the ids of the objects in an integer type"
    if dtype == "bool":
        remedy = (
            "it is a mask. If objects are separated in it, say so in the dataset with `objects: "
            "cells` or `membranes`; else number the objects (connected components)"
        )
    return f"{name} is {dtype}; labels must be of an integer type, one id for each object: {remedy}"
