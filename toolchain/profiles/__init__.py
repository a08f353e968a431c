"""Configurations of clients for the service: rendered from templates, with the context that fits."""
