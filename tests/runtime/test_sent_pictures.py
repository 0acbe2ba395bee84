"""Pictures sent themselves at cut 0: the edge preprocesses them, and answers as if it had been done here."""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from splitinfer.cli.main import main
from splitinfer.errors import InputError, SplitInferError
from splitinfer.models import load_card
from splitinfer.models.sent_pictures import decode_picture, picture_codec
from splitinfer.models.sources import inputs_of
from splitinfer.runtime import EdgeClient, EdgeProcess, EdgeServer, ServerSettings
from splitinfer.runtime.loading import capture_card

CARD = """
source = "tests.runtime.small:plain"
[[inputs]]
shape = [3, 32, 32]
[preprocessing]
resize = 40
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sent")
    (folder / "plain.toml").write_text(CARD)
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    picture = Image.fromarray(pixels).resize((160, 120))
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    picture.save(folder / "photo.jpg", quality=70, exif=exif)
    picture.save(folder / "photo.png")
    np.savez(folder / "tensors.npz", x=np.zeros((1, 3, 32, 32), np.float32))
    return folder


@pytest.fixture(scope="module")
def edge(folder: Path) -> Iterator[str]:
    process = EdgeProcess([str(folder / "plain.toml")], ServerSettings(max_picture_pixels=40_000))
    process.start()
    process.wait_ready()
    yield process.address
    process.stop()


@pytest.mark.parametrize("codec", ["uint8", "uint8+zstd", "jpeg", "jpeg:30", "webp", "webp:80"])
@pytest.mark.parametrize("name", ["photo.jpg", "photo.png"])
def test_the_answer_is_that_to_the_picture_as_it_was_sent(
    codec: str, name: str, folder: Path, edge: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["infer", str(folder / "plain.toml"), "--cut", "0", "--input", str(folder / name), "--server", edge]
    assert main([*arguments, "--codec", codec, "--check", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["checked"] == 1
    assert report["codec"] == codec
    if (codec, name) == ("jpeg", "photo.jpg"):  # the file itself, and a header
        assert 0 < report["bytes_up"] - (folder / name).stat().st_size < 400


def test_exact_ways_equal_the_picture_processed_here(folder: Path, edge: str) -> None:
    card = load_card(str(folder / "plain.toml"))
    split = capture_card(card)
    with EdgeClient(edge) as client:
        for name, codec in (("photo.jpg", "jpeg"), ("photo.jpg", "uint8"), ("photo.png", "uint8")):
            sent = picture_codec(codec).encode(folder / name)
            answer = client.run_tail(split, 0, (sent,)).output
            assert torch.equal(answer, split(*inputs_of(card, folder / name, max_pixels=10**6))), (name, codec)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--cut", "1", "--codec", "jpeg:80"], "which is cut 0; give --cut 0"),
        (["--cut", "0", "--codec", "jpeg:0"], "whole number from 1 to 100, not '0'"),
        (["--cut", "0", "--codec", "webp:many"], "whole number from 1 to 100"),
        (["--cut", "0", "--codec", "jpeg:"], "whole number from 1 to 100, not ''"),
        (["--cut", "0", "--codec", "uint8", "--stream"], "--stream: does not go with"),
        (["--cut", "0", "--codec", "jpeg", "--on-failure", "fallback"], "--on-failure: does not go with"),
        (["--cut", "0", "--codec", "gif"], "codec"),
    ],
)
def test_a_mistake_is_one_line(options: list[str], said: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["infer", str(folder / "plain.toml"), "--input", str(folder / "photo.jpg")]
    assert main([*arguments, *options]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_tensors_are_no_pictures(folder: Path, edge: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["infer", str(folder / "plain.toml"), "--input", str(folder / "tensors.npz"), "--server", edge]
    assert main([*arguments, "--cut", "0", "--codec", "jpeg"]) == 2
    assert "holds tensors" in capsys.readouterr().err


def _png_of(width: int, height: int) -> bytes:
    """A PNG whose header promises a size that its few bytes do not hold."""
    out = io.BytesIO()
    Image.new("RGB", (1, 1)).save(out, "PNG")
    data = bytearray(out.getvalue())
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (np.frombuffer(_png_of(50_000, 50_000), np.uint8), "max_pixels is 40,000"),
        (np.zeros((300, 300, 3), np.uint8), "300 x 300 pixels; at most 40000"),
        (np.frombuffer(b"no picture at all", np.uint8), "no JPEG, WebP or PNG"),
        (np.frombuffer(b"\xff\xd8\xff" + bytes(50), np.uint8), "picture"),
        (np.zeros(0, np.uint8), "no JPEG, WebP or PNG"),
        (np.zeros((0, 5, 3), np.uint8), "pixels"),
        (np.zeros((4, 4, 4), np.uint8), "three channels, not 4"),
    ],
)
def test_an_edge_refuses_what_is_no_picture_or_too_large(sent: np.ndarray, said: str, folder: Path, edge: str) -> None:
    split = capture_card(load_card(str(folder / "plain.toml")))
    with EdgeClient(edge) as client:
        with pytest.raises(SplitInferError, match=said):
            client.run_tail(split, 0, (sent,))
        good = picture_codec("jpeg").encode(folder / "photo.jpg")
        assert client.run_tail(split, 0, (good,)).output.shape[0] == 1


def test_an_edge_without_preprocessing_says_so(folder: Path) -> None:
    split = capture_card(load_card(str(folder / "plain.toml")))
    sent = picture_codec("jpeg").encode(folder / "photo.jpg")
    with (
        EdgeServer([split]) as server,
        EdgeClient(server.address) as client,
        pytest.raises(SplitInferError, match="takes no pictures at this edge"),
    ):
        client.run_tail(split, 0, (sent,))


def test_pictures_are_sent_to_a_server_of_ones_own(folder: Path) -> None:
    card = load_card(str(folder / "plain.toml"))
    split = capture_card(card)
    sent = picture_codec("webp:60").encode(folder / "photo.png")
    prepare = lambda array: inputs_of(card, decode_picture(array), max_pixels=10**6)  # noqa: E731
    with EdgeServer([split], pictures={split.name: prepare}) as server, EdgeClient(server.address) as client:
        assert torch.equal(client.run_tail(split, 0, (sent,)).output, split(*prepare(sent)))


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.data())
def test_damaged_files_are_refused_or_decoded_and_never_more(data: st.DataObject) -> None:
    """Any change of a file gives a picture of a size within the limit, or one error of the family."""
    kind = data.draw(st.sampled_from(["JPEG", "WEBP", "PNG"]))
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (30, 20, 3), np.uint8)).save(out, kind)
    changed = bytearray(out.getvalue())
    for _ in range(data.draw(st.integers(0, 6))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    changed = changed[: data.draw(st.integers(0, len(changed)))]
    make = partial(inputs_of, load_card("resnet18"), max_pixels=5_000)
    try:
        (tensor,) = make(decode_picture(np.frombuffer(bytes(changed), np.uint8), max_pixels=5_000))
    except InputError:
        return
    assert tensor.shape == (1, 3, 224, 224)
    assert bool(torch.isfinite(tensor).all())


def test_another_preprocessing_at_the_edge_is_refused_before_anything_is_sent(folder, edge, capsys):
    """The weights are the same, and so is the fingerprint: the answer would be another in silence."""
    for line in ("resize = 36", "resize = 40\nmean = [0.1, 0.2, 0.3]"):
        other = folder / "elsewhere"
        other.mkdir(exist_ok=True)
        (other / "plain.toml").write_text(CARD.replace("resize = 40", line))
        arguments = ["infer", str(other / "plain.toml"), "--cut", "0", "--server", edge, "--input"]
        assert main([*arguments, str(folder / "photo.jpg"), "--codec", "jpeg"]) == 2
        said = capsys.readouterr().err
        assert "makes another input of a picture than this one" in said
        assert "Traceback" not in said
        assert main([*arguments, str(folder / "photo.jpg"), "--codec", "raw", "--check"]) == 0


def test_unusual_files_are_at_the_edge_what_they_are_here(folder, edge, capsys):
    pixels = np.random.default_rng(1).integers(0, 256, (48, 64, 4), np.uint8)
    rgba = Image.fromarray(pixels)
    rgba.convert("CMYK").save(folder / "cmyk.jpg")
    rgba.convert("L").save(folder / "grey.jpg")
    rgba.convert("RGB").save(folder / "progressive.jpg", progressive=True)
    rgba.save(folder / "alpha.webp")
    frames = [rgba.convert("RGB").rotate(angle) for angle in (0, 90)]
    frames[0].save(folder / "animated.webp", save_all=True, append_images=frames[1:])
    for name, codec in (
        ("cmyk.jpg", "jpeg"),
        ("grey.jpg", "jpeg"),
        ("progressive.jpg", "jpeg"),
        ("alpha.webp", "webp"),
        ("animated.webp", "webp"),
        ("cmyk.jpg", "uint8"),
    ):
        arguments = ["infer", str(folder / "plain.toml"), "--cut", "0", "--server", edge, "--codec", codec, "--check"]
        code = main([*arguments, "--input", str(folder / name)])
        said = capsys.readouterr()
        assert code == 0 or (code == 2 and said.err.count("splitinfer: error:") == 1), (name, codec, said.err)


def test_the_name_of_a_picture_codec_is_explained_where_tensors_are_sent(folder, edge):
    split = capture_card(load_card(folder / "plain.toml"))
    with EdgeClient(edge) as client, pytest.raises(InputError, match=r"'jpeg:80', which is for pictures: send what"):
        client.infer(split, 0, torch.zeros(1, 3, 32, 32), codec="jpeg:80")
