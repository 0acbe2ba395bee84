"""Halves of a model as files: written from a captured model, run on devices that have no torch."""
