"""How Sphinx builds the site."""

import os
import sys
import warnings
from pathlib import Path
from urllib.parse import urlsplit

_HERE = Path(__file__).parent
sys.path[:0] = [str(_HERE / "_extensions"), str(_HERE.parent)]

import flask_sse  # noqa: E402 - found by means of the line before

# sphinx-autodoc-typehints 3.6 calls what Sphinx 10 will drop; nothing of ours does.
warnings.filterwarnings("ignore", message=".*_RstSnippetParser.set_application' is deprecated")

project = "Flask-SSE"
author = "The Flask-SSE maintainers"
project_copyright = author
release = flask_sse.__version__
version = ".".join(release.split(".")[:2])
is_unreleased = "dev" in release

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinx.ext.intersphinx",
    "sphinx_autodoc_typehints",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_sitemap",
    "sphinxext.opengraph",
    "notfound.extension",
    "benchmark",
    "captions",
    "documented_api",
    "llms",
    "summaries",
    "terms",
    "unreleased",
]
exclude_patterns = ["_build", "examples", "performance-table.rst"]
nitpicky = True

# The small local inventories come first, so that a build needs no network.
intersphinx_mapping = {
    "python": ("https://docs.python.org/3/", "_inventory/python.inv"),
    "flask": ("https://flask.palletsprojects.com/en/stable/", "_inventory/flask.inv"),
    "blinker": ("https://blinker.readthedocs.io/en/stable/", "_inventory/blinker.inv"),
    "itsdangerous": (
        "https://itsdangerous.palletsprojects.com/en/stable/",
        "_inventory/itsdangerous.inv",
    ),
    "redis": ("https://redis.readthedocs.io/en/stable/", "_inventory/redis.inv"),
    "werkzeug": ("https://werkzeug.palletsprojects.com/en/stable/", "_inventory/werkzeug.inv"),
}

autodoc_member_order = "alphabetical"
# An object as a default, such as a blueprint, is shown as in the source.
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
always_use_bars_union = True
typehints_use_signature = True
typehints_use_signature_return = True
typehints_defaults = "comma"
typehints_document_rtype = False
myst_heading_anchors = 3

doctest_test_doctest_blocks = "default"
doctest_global_setup = """
__name__ = "__main__"
from flask import Flask, url_for
from flask_sse import Message, ServerSentEventsBlueprint, sse

app = Flask("docs")
app.config["REDIS_URL"] = "memory://"
app.config["SSE_HISTORY"] = {"news": 100}
app.config["SSE_PRESENCE"] = ["room.*"]
app.register_blueprint(sse, url_prefix="/stream")
"""

_REPOSITORY = "https://github.com/singingwolfboy/flask-sse"
# Read the Docs sets the variable to the URL of the version that it builds.
html_baseurl = os.environ.get(
    "READTHEDOCS_CANONICAL_URL", "https://flask-sse.readthedocs.io/en/latest/"
)
_ROOT = urlsplit(html_baseurl).path

html_theme = "furo"
html_title = f"Flask-SSE {version} (unreleased)" if is_unreleased else f"Flask-SSE {version}"
html_logo = html_favicon = "_static/logo.svg"
templates_path = ["_templates"]
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["scrolling.js"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "announcement": f"Version {version} is unreleased: install it from a checkout."
    if is_unreleased
    else "",
    "navigation_with_keys": True,
    "source_repository": _REPOSITORY,
    "source_branch": "main",
    "source_directory": "docs/",
    "footer_icons": [
        {"name": "Source code", "url": _REPOSITORY, "html": "Source code", "class": "repository"}
    ],
}
# Both keep a contrast of 4.5:1 for everything, comments and output included.
pygments_style = "a11y-light"
pygments_dark_style = "github-dark"

# Neither prompts nor output are copied.
copybutton_exclude = ".linenos, .gp, .go"

ogp_site_url = html_baseurl
ogp_site_name = "Flask-SSE"
ogp_image = "_static/demo.png"
ogp_image_alt = "Four windows of a page that receives events from Flask-SSE"

sitemap_url_scheme = "{link}"
sitemap_excludes = ["404.html", "genindex.html", "py-modindex.html", "search.html"]

# The page is served for any path, so its links begin with that of the site.
notfound_urls_prefix = _ROOT
notfound_context = {
    "title": "Page not found",
    "body": (
        "<h1>Page not found</h1>"
        "<p>There is no page at this URL. It may have moved: look for it in the "
        f'<a href="{_ROOT}search.html">search</a>, or begin at the '
        f'<a href="{_ROOT}index.html">first page</a>.</p>'
    ),
}
