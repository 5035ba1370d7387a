"""Names that a shell, an option, a container or a format string could take for something else."""

from __future__ import annotations

from hypothesis import strategies as st

PIECES = (
    *("a", " ", "  ", "'", '"', "$(touch X)", "`touch X`", ";touch X", "\n", "\t", "\\", "\\n"),
    *(":", ",", "{", "}", "{dataset}", "{input}", "%", "%j", "%(x)s", "&", "|", "<b>", "*", "?"),
    *("#", "!", "~", "=", "é", "e\u0301", "ß", "日本", "\u200b", "\u202e", "--help", "-x", "[a]"),
)
EXAMPLES = ("my data $(touch X);x", "it's $(touch X)", "-rf", "--version", "a:b,c", "{dataset}")
NAMES = st.one_of(
    st.sampled_from(EXAMPLES),
    st.lists(st.sampled_from(PIECES), min_size=1, max_size=5).map("".join),
    st.text(
        st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1, max_size=40
    ),
).filter(lambda name: name not in (".", ".."))
