"""Sphinx configuration. Formulas become MathML here, so that the site needs no script and no network."""

import re

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number

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
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
# A dollar next to a blank is a dollar.
myst_dmath_allow_space = False
html_math_renderer = "mathml"
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


# Delimiters and the slash without the spaces of a relation, and as high as a letter, as TeX sets them.
DELIMITER = re.compile(r'<mo(?: class="math(open|close)")?(?: stretchy="false")?>([‖|⟨⟩/])</mo>')


def set_delimiter(match):
    if match[2] == "/":
        return '<mo lspace="0" rspace="0" stretchy="false">/</mo>'
    form = "prefix" if match[1] == "open" or match[2] == "⟨" else "postfix"
    return f'<mo form="{form}" stretchy="false">{match[2]}</mo>'


def mathml(node, *, block):
    """The MathML of a formula, with a warning that names its page where docutils cannot read it."""
    try:
        return DELIMITER.sub(set_delimiter, tex2mathml(node.astext(), as_block=block))
    except MathError as error:
        logging.getLogger(__name__).warning("formula not understood: %s", error, location=node)
        return ""


def take_marks(app, doctree, docname):
    """Move a mark after an inline formula to the formula: Chromium would end a line between them."""
    if app.builder.format != "html":
        return
    for node in list(doctree.findall(nodes.math)):
        after = node.next_node(descend=False, siblings=True)
        if isinstance(after, nodes.Text) and (mark := re.match(r"[.,;:)]+", after)):
            node["mark"] = mark[0]
            after.parent.replace(after, nodes.Text(after[mark.end() :]))


def visit_math(translator, node):
    translator.body.append(f'<span class="formula">{mathml(node, block=False)}{node.get("mark", "")}</span>')
    raise nodes.SkipNode


def visit_math_block(translator, node):
    translator.body.append(translator.starttag(node, "div", CLASS="math"))
    if node["number"]:
        translator.body.append(f'<span class="eqno">({get_node_equation_number(translator, node)})</span>')
    translator.body.append(mathml(node, block=True) + "</div>\n")
    raise nodes.SkipNode


def setup(app):
    app.connect("doctree-resolved", take_marks)
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math_block, None))
    app.connect("doctree-resolved", shorten_citations)
