"""Settings of Sphinx, which turns the pages that build.py collects into the site."""

project = "retrace"
extensions = ["myst_parser"]
myst_heading_anchors = 4
html_theme = "pydata_sphinx_theme"
html_title = "retrace"
html_show_sourcelink = False
html_copy_source = False

html_theme_options = {
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "show_prev_next": False,
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_sidebars = {"index": []}
html_context = {"default_mode": "auto"}
# Summaries are fetched, which browsers refuse to pages of a disk.
html_show_search_summary = False
