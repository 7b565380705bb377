"""An inventory as one page of HTML that needs nothing beside it."""

from __future__ import annotations

import linecache
from collections.abc import Sequence
from html import escape

from anyolo.audit.rows import SEVERITY, Row, calls, number_of, place

COLUMNS = ("verdict", "calls", "operator", "phase", "line of the program", "what the backend says")
LIMITS = (
    "A native operator is one that the backend has; that it computes right is for "
    "<code>anyolo doctor</code> to tell, on the card."
)
STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; --dim: #888;
  --unsupported: #d4351c; --fallback: #e08a00; --unknown: #7a68c8; --native: #2e8b57; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1200px; padding: 0 1rem; }
h1 { font-size: 1.3rem; font-weight: 600; }
nav { display: flex; flex-wrap: wrap; gap: .6rem; margin: 1.2rem 0; }
button { font: inherit; color: inherit; background: var(--soft); border: 1px solid var(--line);
  cursor: pointer; border-radius: 8px; border-left: 6px solid var(--tint); padding: .3rem .9rem; }
button[aria-pressed=false] { opacity: .4; }
table { border-collapse: collapse; width: 100%; }
th { text-align: left; font-weight: 600; position: sticky; top: 0; background: Canvas; }
th, td { padding: .35rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
td.count { text-align: right; font-variant-numeric: tabular-nums; }
td:first-child { border-left: 4px solid var(--tint); color: var(--tint); font-weight: 600; }
td:nth-child(3) { min-width: 15rem; }
td:nth-child(5) { min-width: 19rem; }
td:nth-child(6) { font-size: .93em; }
code { font: 13px/1.5 ui-monospace, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
small { display: block; color: var(--dim); overflow-wrap: anywhere; }
footer { color: var(--dim); margin-top: 1.5rem; }
""" + "".join(f".{verdict} {{ --tint: var(--{verdict}); }}\n" for verdict in SEVERITY)
SCRIPT = """
for (const button of document.querySelectorAll("nav button")) button.onclick = () => {
  const shown = button.getAttribute("aria-pressed") !== "true";
  button.setAttribute("aria-pressed", shown);
  for (const row of document.querySelectorAll("tr." + button.className)) row.hidden = !shown;
};
"""


def page_of(summary: str, rows: Sequence[Row], facts: str) -> str:
    """The rows as given, with the line of source behind every place that can be read here."""
    parts = [
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{escape(summary)}</title>',
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>',
        f"<h1>{escape(summary)}</h1>",
        f"<nav>{''.join(_button(verdict, rows) for verdict in SEVERITY)}</nav>",
        f"<table><thead><tr>{''.join(f'<th>{title}</th>' for title in COLUMNS)}</tr></thead><tbody>",
        *(_row(row, facts) for row in rows),
        f"</tbody></table><footer>Facts: {escape(facts)}. {LIMITS}</footer>",
        f"<script>{SCRIPT}</script></body></html>",
    ]
    return "\n".join(parts) + "\n"


def _button(verdict: str, rows: Sequence[Row]) -> str:
    own = [row for row in rows if row.verdict == verdict]
    if not own:
        return ""
    counts = f"{number_of(len({row.op for row in own}), 'operator')}, {number_of(calls(own), 'call')}"
    return f'<button class="{verdict}" aria-pressed="true">{verdict}: {counts}</button>'


def _row(row: Row, facts: str) -> str:
    within = f"<small>of {escape(row.within)}</small>" if row.within else ""
    cells = [
        f"<td>{escape(row.verdict)}</td>",
        f'<td class="count">{row.count:,}</td>',
        f"<td><code>{escape(row.op)}</code>{within}</td>",
        f"<td>{escape(row.phase)}</td>",
        f'<td><code title="{escape(row.where)}">{escape(place(row.where))}</code>'
        f"{_source_line(row.where)}</td>",
        f"<td>{escape(row.message)}{_source(row.source, facts)}</td>",
    ]
    return f'<tr class="{escape(row.verdict)}">{"".join(cells)}</tr>'


def _source_line(where: str) -> str:
    name, _, number = where.rpartition(":")
    text = linecache.getline(name, int(number)).strip() if number.isdigit() else ""
    return f"<small><code>{escape(text)}</code></small>" if text else ""


def _source(source: str, facts: str) -> str:
    """How it is known, unless the foot of the page says so of all."""
    if source.startswith(("https://", "http://")):
        return f'<small><a href="{escape(source)}">{escape(source)}</a></small>'
    return f"<small>{escape(source)}</small>" if source not in {"", facts} else ""
