"""Sphinx configuration. Formulas are Unicode text, so the site needs no script from elsewhere."""

import re

from docutils import nodes

import lowrank_unitary

project = "lowrank_unitary"
author = "the lowrank_unitary developers"
copyright = f"2026, {author}"
version = release = lowrank_unitary.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.doctest",
    "sphinx_design",
]
templates_path = ["_templates"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# Tables of a page link to the entries below them; there are no stub pages.
autosummary_generate = False
autodoc_typehints = "none"
autodoc_member_order = "bysource"
# Shown as written: a representation of a default would be resolved, `xp=np` to a long module path.
autodoc_preserve_defaults = True
numpydoc_show_class_members = False

html_theme = "pydata_sphinx_theme"
html_title = "lowrank_unitary"
html_static_path = ["_static"]
html_css_files = ["site.css", "layout.css"]
# A page shows its section on the left; these two have none.
html_sidebars = {"index": [], "quickstart": ["site-nav.html"]}
html_show_sourcelink = False
# In the list at the right a method goes without the name of its class.
toc_object_entries_show_parents = "hide"
html_theme_options = {
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "show_prev_next": True,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}


def shorten_citations(app, doctree, docname):
    """Show [1] for a citation of a docstring, to which numpydoc has given a label of its own."""
    for text in list(doctree.findall(nodes.Text)):
        label = re.fullmatch(r"\[?R[0-9a-f]{12}-(\d+)\]?", text.astext())
        if label:
            text.parent.replace(text, nodes.Text(f"[{label[1]}]"))


def setup(app):
    app.connect("doctree-resolved", shorten_citations)
