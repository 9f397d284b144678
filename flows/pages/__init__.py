"""The one design of all pages: report, statistics, studies, search.

A page is a Jinja2 template that extends `base.html.j2` and is rendered by `flows.pages.page.render_page`:

    {% extends "base.html.j2" %}
    {% import "components.html.j2" as ui %}
    {% block nav %}{{ ui.nav([("results", "Results"), ("data", "Data")]) }}{% endblock %}
    {% block main %}
    <section id="results">
    <h2>Results</h2>
    {% call ui.scroll("Results by setting") %}<table>...</table>{% endcall %}
    </section>
    {% endblock %}

    render_page(Path(__file__).with_name("template"), "mine.html.j2", title="...", lead="...", ...)

`title` is the heading, `lead` one sentence in plain words on what the page shows; both are required. The
style sheet (`template/style.css`) is inlined, follows the reader's light or dark scheme, and prints.
Everything that a template inserts is escaped; only `Markup` is not. Filters: `percent` (a fraction as
"12.3"), `duration` (seconds), `size` (bytes), `count` (thousands separated), `named` (an SVG, for
screen readers). A page that a server gives out is rendered with `policy=SERVED`.

Components; `ui.` are macros of `components.html.j2`, the rest is plain HTML:

- header, title, lead: from `base.html.j2`; its blocks are `head`, `nav`, `main` and `end` (after main)
- section: `<section id=ID><h2>`; subsections are `<h3>`; no level is skipped
- plot: `ui.plots([Figure(title, svg, caption)])`, or `ui.plot(figure)`
- table that may scroll: `{% call ui.scroll(NAME) %}<table>`; every `th` has a scope; it says that it scrolls
  where it does; `tr.best` and `tr.total` stand out
- facts, a table of two columns: `ui.facts([(name, value)])`
- figures in large type: `<dl class="headline"><div><dt>mAP</dt><dd>12.3<small>%</small></dd></div></dl>`
- terms, explained where they stand: `ui.terms([(term, explanation)])`
- strip of pictures: `{% call ui.strip(caption) %}{{ ui.tile(src, width, height, alt, label, style, note) }}`;
  styles are query, right, wrong, none
- filters and inputs: `<form class="filters">` with `<div class="field"><label for=ID>...<input id=ID>`;
  also selects, ranges and checkboxes
- buttons: `<button>` for the main action; `class="quiet"` for others; `<a class="button">` for links
- notice, empty state, error: `ui.warning(text)`, `ui.empty(what, todo)`, `ui.error(what, todo)`
"""
