"""A model that llama-server serves."""

from ..unit import ServedModel as ServedModel
