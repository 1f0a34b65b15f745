"""Sphinx settings of the documentation site; `docs/site/make_site.py` lays out the pages that it reads."""

project = "embedtrain"
author = "The embedtrain authors"
extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 4
suppress_warnings = ["misc.highlighting_failure"]  # a command with `...` is no Bash
root_doc = "docs/index"
html_theme = "furo"
html_title = "embedtrain"
html_copy_source = False
