"""How Sphinx builds the documentation: ``sphinx-build -W -b html docs docs/_build/html``.

Pages of the API and copies of the lessons are generated in ``docs/api`` and ``docs/lessons``, which git ignores.
"""

from __future__ import annotations

import inspect
import shutil
import sys
from pathlib import Path

from sphinx import addnodes

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import e2llm  # noqa: E402

API = """# API reference

`help(e2llm)` shows the pipeline in ten lines. The pages below hold every public function and class, one page a module.
A folder of the package imports only from the folders that stand above it here.
"""
ROOMS = {"core": "the words of the domain", "data": "recordings to a dataset", "models": "tensors in, tensors out",
         "tasks": "questions and thoughts as text", "training": "arrays in, weights out",
         "evaluation": "predictions in, tables out", "viz": "figures and widgets", "app": "runs, command line, sharing",
         "teaching": "exercises, quizzes, toy models"}
PAGES: list[tuple[str, list[tuple[str, str]]]] = []  # caption; title and name of each page

project = "e2llm"
author = "the contributors of e2llm"
copyright = "the contributors of e2llm, MIT license"
version = release = e2llm.__version__

extensions = ["myst_nb", "numpydoc", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.viewcode"]
source_suffix = {".rst": "restructuredtext", ".md": "myst-nb", ".ipynb": "myst-nb"}
templates_path = ["_templates"]
exclude_patterns = ["_build", "**/.ipynb_checkpoints"]
myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "off"
nb_ipywidgets_js = {}  # the committed outputs hold no live widget

autosummary_generate = True
autodoc_typehints = "none"  # the docstrings say types, shapes and units
autodoc_member_order = "bysource"
numpydoc_show_class_members = False

html_theme = "pydata_sphinx_theme"
html_title = "e2llm"
html_show_sourcelink = False
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_theme_options = {"navigation_with_keys": False, "show_toc_level": 2, "navbar_center": [],
                      "secondary_sidebar_items": ["page-toc"]}
html_sidebars = {"**": ["pages.html"]}


def _copy_lessons() -> None:
    """Sphinx reads only files below docs/: the lessons and the tables that they link are copied there for the build."""
    target = ROOT / "docs" / "lessons"
    shutil.rmtree(target, ignore_errors=True)
    (target / "results").mkdir(parents=True)
    for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")):
        shutil.copy(path, target)
    for path in (ROOT / "notebooks" / "results").iterdir():
        shutil.copy(path, target / "results")
    shutil.copytree(ROOT / "notebooks" / "solutions", target / "solutions")


def _list_modules() -> None:
    """Write the index of the API: every module of the package, folder by folder in the order of their layers."""
    target, package = ROOT / "docs" / "api", Path(e2llm.__file__).parent
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    lines = [API]
    for room, purpose in ROOMS.items():
        found = [path.parent if path.name == "__init__.py" else path.with_suffix("")
                 for path in (package / room).rglob("*.py") if path != package / room / "__init__.py"]
        names = sorted(".".join(("e2llm", *path.relative_to(package).parts)) for path in found)
        directive = ".. autosummary::\n   :toctree: .\n   :template: room.rst\n\n   " + "\n   ".join(names)
        lines.append(f"\n## {room}: {purpose}\n\n```{{eval-rst}}\n{directive}\n```\n")
    (target / "index.md").write_text("".join(lines), encoding="utf-8")


def _skip_inherited(app, what: str, name: str, obj: object, skip: bool, options) -> bool | None:
    """Leave out what a class takes from a library and does not document anew."""
    home = getattr(inspect.unwrap(obj) if callable(obj) else obj, "__module__", None)
    foreign = isinstance(home, str) and not home.startswith("e2llm")
    return True if foreign and (what == "class" or inspect.isclass(obj) or inspect.isroutine(obj)) else None


def _link_lessons(app, page: str, source: list[str]) -> None:
    """Links between pages and lessons hold in the repository; the copies of the lessons lie elsewhere."""
    source[0] = source[0].replace("](../notebooks/", "](lessons/").replace("](../docs/", "](../")


def _list_pages(app, page: str, template: str, context: dict, doctree) -> None:
    """Groups of pages for the sidebar, read once: Sphinx would walk through the whole API again for every page."""
    if not PAGES:
        PAGES.extend((tree["caption"], [(title, name) for title, name in tree["entries"]])
                     for tree in app.env.get_doctree("index").findall(addnodes.toctree))
    context["pages"] = PAGES


def setup(app) -> None:
    """Called by Sphinx before it reads the pages."""
    _copy_lessons()
    _list_modules()
    app.connect("autodoc-skip-member", _skip_inherited)
    app.connect("source-read", _link_lessons)
    app.connect("html-page-context", _list_pages)
