"""Logs of an edge on standard error: a line per request, with the id that its device gave it; no tensors, no tokens."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

from splitinfer.errors import InputError
from splitinfer.runtime.events import Event, Refused

logger = logging.getLogger(__name__)

FORMS = ("text", "json")


class _Json(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message, and the fields of an event."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line | getattr(record, "fields", {}))


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = " ".join(f"{key}={value}" for key, value in getattr(record, "fields", {}).items() if key != "event")
        return f"{super().format(record)} {fields}".rstrip()


def log_to_stderr(form: str) -> None:
    """Write what the package says to standard error, as ``text`` or ``json``.

    Raises:
        InputError: there is no such form.
    """
    if form not in FORMS:
        raise InputError(f"--log: must be one of {', '.join(FORMS)}, not {form!r}")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if form == "json" else _Text("%(asctime)s %(levelname)s %(message)s"))
    of_package = logging.getLogger("splitinfer")
    of_package.handlers = [handler]
    of_package.setLevel(logging.INFO)
    of_package.propagate = False


def log_event(event: Event) -> None:
    """Write an event; an observer."""
    level = logging.WARNING if isinstance(event, Refused) else logging.INFO
    logger.log(level, event.kind, extra={"fields": event.to_dict()})
