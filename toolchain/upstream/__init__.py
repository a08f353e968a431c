"""Upstream and forks, watched and judged; nothing is built here."""
