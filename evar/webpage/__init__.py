"""`evar report`: a results folder as one HTML file that needs no network, no server and no torch.

The page is made by Jinja2 with autoescape; its charts are drawn by plotly.js, which comes in the wheel of plotly. Numbers
travel as JSON in elements that no browser runs. A strict Content-Security-Policy names the hash of every script.
`docs/report.md` says how to read it, and why it is made so.
"""

from evar.webpage.command import AUDIO_CHOICES, write_report

__all__ = ["AUDIO_CHOICES", "write_report"]
