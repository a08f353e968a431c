"""Upstream and forks: watched and assessed, never built."""
