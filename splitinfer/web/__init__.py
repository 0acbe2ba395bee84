"""A live page of an edge or a run: what happens, in the browser of whoever watches. Extra ``[web]``."""
