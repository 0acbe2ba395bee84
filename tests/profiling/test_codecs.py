"""What codecs make of real pictures, kept in the profile."""

from __future__ import annotations

import json

import numpy as np
import pytest

from splitinfer.cli.main import main
from splitinfer.errors import InputError
from splitinfer.models import load_card
from splitinfer.profiling import Profile
from splitinfer.profiling.codecs import PICTURE_CODECS, measure_codecs, sample_photos
from splitinfer.runtime.loading import capture_card
from splitinfer.wire.codecs import codecs_named


def test_codecs_are_measured_on_photographs_and_kept(tmp_path, capsys):
    path = tmp_path / "squeezenet.json"
    assert main(["profile", "squeezenet1_1", "--no-latency", "--codecs", "--save", str(path), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    kept = Profile.load(path)
    assert len(kept.codecs) == len(record["codecs"]) > 20
    files = [one for one in kept.codecs if one.codec in PICTURE_CODECS]
    assert [one.codec for one in files] == list(PICTURE_CODECS)
    for one in files:
        assert min(one.encode_s, one.decode_s) > 0
        assert (one.error == 0) == (one.codec in ("uint8", "uint8+zstd", "jpeg"))  # the file as it is, or its pixels
    for one in kept.codecs[len(files) :]:
        elements = kept.cuts[one.cut].crossing_elements
        plain = one.codec.split("+")[0]
        most = {"raw": 32, "float16": 16, "bfloat16": 16, "int8": 8, "int4": 4, "int2": 2, "ternary": 1.6}[plain]
        assert 0 < one.bits <= (most + 1.0) * elements
        assert (one.error == 0) == (plain == "raw")
    by = {(one.cut, one.codec): one for one in kept.codecs}
    cut = kept.codecs[-1].cut
    assert by[cut, "int8"].error < by[cut, "int4"].error < by[cut, "int2"].error
    assert by[cut, "int8+zstd"].bits < by[cut, "int8"].bits


def test_records_are_what_the_codec_gives():
    card = load_card("squeezenet1_1")
    split = capture_card(card)
    picture = sample_photos()[0]
    one = measure_codecs(split, card, [picture], cuts=[3], codecs=codecs_named(["float16"]))[0]
    tensors = split.run_head(3, card.preprocess(picture))
    assert one.bits == sum(tensor.numel() for tensor in tensors) * 16
    whole = split(card.preprocess(picture))
    changed = split.run_tail(3, *(tensor.half().float() for tensor in tensors))
    expected = float((changed - whole).pow(2).mean().sqrt() / whole.pow(2).mean().sqrt())
    np.testing.assert_allclose(one.error, expected, rtol=1e-3)
    with pytest.raises(InputError, match="cuts that send something"):
        measure_codecs(split, card, [picture], cuts=[split.num_cuts])


def test_a_wrong_codec_section_is_refused(tmp_path):
    path = tmp_path / "p.json"
    assert main(["profile", "squeezenet1_1", "--no-latency", "--save", str(path)]) == 0
    record = json.loads(path.read_text("utf-8"))
    record["codecs"] = [{"cut": 0, "codec": "raw", "bits": float("inf")}]
    path.write_text(json.dumps(record), "utf-8")
    with pytest.raises(InputError, match="is not a profile"):
        Profile.load(path)
