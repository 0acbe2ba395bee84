"""Recorded arrivals and links in the forms that people have them, read into seconds and bits per second.

A column of times may hold seconds from the start, seconds or milliseconds since 1970, ISO 8601 times, or the
``2019.12.14_10.16.30`` of drive tests. Which it is follows from its values: no trace starts three years (1e8 s) after
its run. Times count from the first row, unless they are seconds from the start. What is out of range is refused with
its line.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from splitinfer.errors import ScenarioError
from splitinfer.files import read_text as read_given_text

Floats = NDArray[np.float64]

MAX_BYTES = 200_000_000
"""Largest trace file read."""

MAX_SPAN_S = 1e7
"""Longest time that a trace covers: about 115 days."""

MAX_RATE_BPS = 1e12
"""Highest rate of a link trace."""

EPOCH_FROM_S, EPOCH_FROM_MS = 1e8, 1e11

MAHIMAHI_PACKET_BITS = 1504 * 8
"""One line of a mahimahi trace is one chance to send so much."""

UNITS_BPS = {"bit/s": 1.0, "kbit/s": 1e3, "Mbit/s": 1e6, "Gbit/s": 1e9, "B/s": 8.0, "KiB/s": 8192.0}

TIME_COLUMNS = ("time_s", "time", "timestamp", "epoch_s", "epoch_ms", "time_ms", "datetime", "date")

_DRIVE_TEST_TIME = re.compile(r"(\d{4})\.(\d{2})\.(\d{2})_(\d{2})\.(\d{2})\.(\d{2})")


def read_text(path: str | Path, field: str, *, max_bytes: int = MAX_BYTES) -> str:
    """Return a trace file's text, without a byte-order mark.

    Raises:
        ScenarioError: it cannot be read, or is too large.
    """
    try:
        return read_given_text(path, max_bytes=max_bytes)
    except OSError as error:
        raise ScenarioError(f"{field}: cannot read {path}: {error.strerror}") from None


def read_columns(path: str | Path, field: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return a CSV file's header and its rows with their line numbers; empty lines are skipped.

    Raises:
        ScenarioError: it cannot be read, has no rows, or a row has another length than the header.
    """
    text = read_text(path, field)
    delimiter = ";" if text.partition("\n")[0].count(";") > text.partition("\n")[0].count(",") else ","
    try:
        table = [(n, row) for n, row in enumerate(csv.reader(io.StringIO(text), delimiter=delimiter), 1) if any(row)]
    except csv.Error as error:
        raise ScenarioError(f"{field}: {path} is no CSV file: {error}") from None
    if len(table) < 2:
        raise ScenarioError(f"{field}: {path} has no rows below its header")
    header = [name.strip() for name in table[0][1]]
    for line, row in table[1:]:
        if len(row) != len(header):
            raise ScenarioError(f"{field}: {path} line {line}: has {len(row)} values; the header has {len(header)}")
    return header, table[1:]


def column(path: str | Path, field: str, header: Sequence[str], wanted: Sequence[str]) -> int:
    """Return the place of the first of some columns that is there, however it is capitalised.

    Raises:
        ScenarioError: none is.
    """
    lowered = [name.lower() for name in header]
    for name in wanted:
        if name.lower() in lowered:
            return lowered.index(name.lower())
    raise ScenarioError(f"{field}: {path} has no column {' or '.join(wanted)}; it has {', '.join(header)}")


def numbers(path: str | Path, field: str, name: str, cells: Sequence[tuple[int, str]]) -> Floats:
    """Return a column as finite numbers.

    Raises:
        ScenarioError: a cell is none; the line is named.
    """
    values = np.empty(len(cells))
    for i, (line, text) in enumerate(cells):
        try:
            values[i] = float(text)
        except ValueError:
            raise ScenarioError(f"{field}: {path} line {line}: {name} is {text!r}, which is no number") from None
        if not np.isfinite(values[i]):
            raise ScenarioError(f"{field}: {path} line {line}: {name} is {text}, which is not finite")
    return values


def times_s(path: str | Path, field: str, name: str, cells: Sequence[tuple[int, str]]) -> Floats:
    """Return a column of times in seconds; those with a date count from the earliest.

    Raises:
        ScenarioError: a cell is no time, is negative, or the times span more than ``MAX_SPAN_S``.
    """
    if _is_number(cells[0][1]):
        seconds = numbers(path, field, name, cells)
        is_ms = name.lower().endswith("_ms") or seconds.min() >= EPOCH_FROM_MS
        since_1970 = seconds.min() >= (EPOCH_FROM_MS if is_ms else EPOCH_FROM_S)
        if is_ms:
            seconds = seconds * 1e-3
    else:
        seconds, since_1970 = np.array([_from_text(path, field, name, line, text) for line, text in cells]), True
    if seconds.min() < 0:
        line = cells[int(np.argmin(seconds))][0]
        raise ScenarioError(f"{field}: {path} line {line}: {name} is negative")
    if since_1970:
        seconds = seconds - seconds.min()
    if seconds.max() > MAX_SPAN_S:
        line = cells[int(np.argmax(seconds))][0]
        raise ScenarioError(
            f"{field}: {path} line {line}: {name} is {seconds.max():.6g} s after the start; a trace may cover "
            f"{MAX_SPAN_S:.0e} s (are some of the times seconds since 1970 and others not?)"
        )
    return seconds


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _from_text(path: str | Path, field: str, name: str, line: int, text: str) -> float:
    match = _DRIVE_TEST_TIME.fullmatch(text.strip())
    try:
        moment = datetime.strptime(text.strip(), "%Y.%m.%d_%H.%M.%S") if match else datetime.fromisoformat(text.strip())
    except ValueError:
        raise ScenarioError(
            f"{field}: {path} line {line}: {name} is {text!r}, neither a number nor an ISO 8601 time"
        ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def read_rate_csv(
    path: str | Path, *, field: str, time_columns: Sequence[str], rate_columns: Sequence[str], unit: str
) -> tuple[Floats, Floats]:
    """Return the times (from 0) and rates of a link trace, (T,) seconds and (T,) bit/s; each rate holds until the next.

    Raises:
        ScenarioError: the file is absent or damaged, lacks a column, goes back in time, or a rate is out of range.
    """
    header, rows = read_columns(path, field)
    at_time, at_rate = (column(path, field, header, wanted) for wanted in (time_columns, rate_columns))
    times = times_s(path, field, header[at_time], [(line, row[at_time]) for line, row in rows])
    rates = numbers(path, field, header[at_rate], [(line, row[at_rate]) for line, row in rows])
    wrong = (rates < 0) | (rates * UNITS_BPS[unit] > MAX_RATE_BPS)
    if wrong.any():
        at = int(np.argmax(wrong))
        raise ScenarioError(
            f"{field}: {path} line {rows[at][0]}: a rate of {rates[at]:g} {unit} is not within 0 and "
            f"{MAX_RATE_BPS / UNITS_BPS[unit]:g} {unit}; is the unit right?"
        )
    back = np.diff(times) < 0
    if back.any():
        raise ScenarioError(f"{field}: {path} line {rows[int(np.argmax(back)) + 1][0]}: the time goes back")
    times = times - times[0]
    fresh = np.append(True, np.diff(times) > 0)  # of rows at one time (drive tests log several) the first counts
    return times[fresh], rates[fresh] * UNITS_BPS[unit]


def read_mahimahi(path: str | Path, *, field: str) -> Floats:
    """Return the times of a mahimahi trace's packets, (P,) seconds: one line a packet, in whole milliseconds.

    Raises:
        ScenarioError: the file is absent, empty, not of whole milliseconds, or goes back in time.
    """
    cells = [(n, line.strip()) for n, line in enumerate(read_text(path, field).splitlines(), 1) if line.strip()]
    if not cells:
        raise ScenarioError(f"{field}: {path} has no packets")
    for line, text in cells:
        if not text.isdigit():
            raise ScenarioError(f"{field}: {path} line {line}: {text!r} is no whole number of milliseconds")
    seconds = numbers(path, field, "the time", cells) * 1e-3
    if (np.diff(seconds) < 0).any():
        raise ScenarioError(
            f"{field}: {path} line {cells[int(np.argmax(np.diff(seconds) < 0)) + 1][0]}: the time goes back"
        )
    if not 0 < seconds[-1] <= MAX_SPAN_S:
        raise ScenarioError(f"{field}: {path} ends after {seconds[-1]:g} s; it may cover up to {MAX_SPAN_S:.0e} s")
    return seconds


def slot_means(times: Floats, rates_bps: Floats, slot_s: float) -> Floats:
    """Mean rate of every slot that a step function covers, (slots,); its last value lasts as long as steps usually do.

    Args:
        times: from 0, rising, seconds.
        rates_bps: from each time on.
        slot_s: tau.
    """
    last = float(np.median(np.diff(times))) if len(times) > 1 else slot_s
    edges = np.append(times, times[-1] + last)
    bits = np.concatenate([[0.0], np.cumsum(rates_bps * np.diff(edges))])
    slots = max(1, int(np.floor(edges[-1] / slot_s + 1e-9)))
    sent = np.interp(np.arange(slots + 1) * slot_s, edges, bits)
    return np.asarray(np.diff(sent) / slot_s)


def packet_means(packet_s: Floats, slot_s: float) -> Floats:
    """Mean rate of every slot of a mahimahi trace, (slots,); it repeats after its last packet's time."""
    slots = max(1, int(np.ceil(packet_s[-1] / slot_s - 1e-9)))
    # A packet at t belongs to the time up to t: mahimahi counts from 1 ms.
    at = np.clip(np.ceil(packet_s / slot_s - 1e-9).astype(np.int64) - 1, 0, slots - 1)
    return np.asarray(np.bincount(at, minlength=slots) * (MAHIMAHI_PACKET_BITS / slot_s), np.float64)
