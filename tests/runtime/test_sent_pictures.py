"""Pictures sent themselves at cut 0: the edge preprocesses them, and answers as if it had been done here."""

from __future__ import annotations

import asyncio
import io
import json
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from splitinfer.cli.main import main
from splitinfer.errors import InputError, ModelMismatchError, SplitInferError
from splitinfer.models import load_card
from splitinfer.models.sent_pictures import Preparation, decode_picture, picture_codec
from splitinfer.models.sources import inputs_of
from splitinfer.runtime import EdgeClient, EdgeProcess, EdgeServer, ServerSettings
from splitinfer.runtime.async_client import AsyncEdgeClient
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
    prepare = Preparation(card)
    with EdgeServer([split], pictures={split.name: prepare}) as server, EdgeClient(server.address) as client:
        assert torch.equal(client.run_tail(split, 0, (sent,)).output, split(*prepare(sent)))


def test_another_preprocessing_at_the_edge_is_refused_before_sending(
    folder: Path, edge: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "plain.toml"
    other.write_text(CARD.replace("resize = 40", "resize = 36"))
    arguments = ["infer", str(other), "--cut", "0", "--input", str(folder / "photo.jpg"), "--server", edge]
    assert main([*arguments, "--check"]) == 0  # as a tensor it may be sent
    capsys.readouterr()
    assert main([*arguments, "--codec", "jpeg"]) == 2
    error = capsys.readouterr().err
    assert "preprocesses pictures for plain in another way" in error
    assert error.count("\n") == 1

    card, split = load_card(str(other)), capture_card(load_card(str(other)))
    seen: list[Any] = []
    prepare = Preparation(load_card(str(folder / "plain.toml")))

    def ask(server: EdgeServer) -> None:
        with EdgeClient(server.address) as client, pytest.raises(ModelMismatchError, match="in another way"):
            client.infer_picture(split, card, folder / "photo.jpg")

        async def again() -> None:
            async with AsyncEdgeClient(server.address) as client:
                with pytest.raises(ModelMismatchError, match="in another way"):
                    await client.infer_picture(split, card, folder / "photo.jpg", codec="webp:50")

        asyncio.run(again())

    with EdgeServer([split], pictures={split.name: prepare}, observer=seen.append) as server:
        ask(server)
    assert seen == []  # nothing was sent


def test_code_of_ones_own_gets_a_picture_within_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    text = "import torch\ndef make(picture):\n    return torch.zeros(picture.size)\n"
    (tmp_path / "sent_own.py").write_text(text)
    (tmp_path / "own.toml").write_text('source = "tests.runtime.small:plain"\npreprocess_with = "sent_own:make"\n')
    own = Preparation(load_card(str(tmp_path / "own.toml")), max_pixels=100)
    (made,) = own(np.frombuffer(_file(Image.new("L", (10, 9)), "PNG"), np.uint8))
    assert made.shape == (10, 9)
    with pytest.raises(InputError, match="max_pixels is 100"):
        own(np.frombuffer(_png_of(50_000, 50_000), np.uint8))


def _file(picture: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def test_pictures_of_every_kind_mean_the_same_there_as_here(folder: Path, tmp_path: Path) -> None:
    card = load_card(str(folder / "plain.toml"))
    split = capture_card(card)
    photo = Image.open(folder / "photo.png").convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 8
    wide = Image.fromarray(np.arange(60 * 50, dtype=np.uint16).reshape(60, 50) * 21)
    kinds = {
        "cmyk.jpg": _file(photo.convert("CMYK"), "JPEG"),
        "grey.jpg": _file(photo.convert("L"), "JPEG"),
        "scans.jpg": _file(photo, "JPEG", progressive=True),
        "turned.webp": _file(photo, "WEBP", lossless=True, exif=exif),
        "clear.webp": _file(photo.convert("RGBA").rotate(30), "WEBP", lossless=True),
        "moving.webp": _file(photo, "WEBP", save_all=True, append_images=[photo.rotate(90)]),
        "sixteen.png": _file(wide, "PNG"),
        "moving.png": _file(photo, "PNG", save_all=True, append_images=[photo.rotate(90)]),
        "long.png": _file(Image.new("RGB", (1, 20_000), "red"), "PNG"),
    }
    with (
        EdgeServer([split], pictures={split.name: Preparation(card)}) as server,
        EdgeClient(server.address) as client,
    ):
        for name, data in kinds.items():
            path = tmp_path / name
            path.write_bytes(data)
            own = {".jpg": "jpeg", ".webp": "webp"}.get(path.suffix, "uint8")
            for codec in {own, "uint8+zstd"}:
                answer = client.infer_picture(split, card, path, codec=codec).output
                assert torch.equal(answer, split(*inputs_of(card, path, max_pixels=10**6))), (name, codec)
        with pytest.raises(InputError, match="1 x 20000 pixels cannot be sent as webp"):
            client.infer_picture(split, card, tmp_path / "long.png", codec="webp:50")
        many = bytearray(kinds["scans.jpg"])
        many[-2:-2] = b"\xff\xda\x00\x08" * 200
        (tmp_path / "many.jpg").write_bytes(many)
        with pytest.raises(SplitInferError, match="scans; at most 100 are taken"):
            client.infer_picture(split, card, tmp_path / "many.jpg")


def test_pictures_are_decoded_as_many_at_once_as_tails_run(folder: Path) -> None:
    card = load_card(str(folder / "plain.toml"))
    split = capture_card(card)
    prepare = Preparation(card)
    lock, counts = threading.Lock(), [0, 0]

    def counted(sent: Any) -> Any:
        with lock:
            counts[0] += 1
            counts[1] = max(counts)
        time.sleep(0.02)  # so that others would come in
        made = prepare(sent)
        with lock:
            counts[0] -= 1
        return made

    sent = picture_codec("jpeg").encode(folder / "photo.jpg")
    with (
        EdgeServer([split], ServerSettings(parallel_tails=1), pictures={split.name: counted}) as server,
        EdgeClient(server.address) as client,
        ThreadPoolExecutor(6) as pool,
    ):
        answers = list(pool.map(lambda _: client.run_tail(split, 0, (sent,)).output, range(6)))
    assert counts == [0, 1]
    assert all(torch.equal(answer, answers[0]) for answer in answers)


def test_a_picture_codec_for_tensors_says_how_pictures_are_sent(folder: Path, edge: str) -> None:
    split = capture_card(load_card(str(folder / "plain.toml")))
    inputs = torch.zeros(1, 3, 32, 32)
    with EdgeClient(edge) as client:
        with pytest.raises(InputError, match=r"'jpeg:80', which is for pictures: send them with infer_picture"):
            client.infer(split, 0, inputs, codec="jpeg:80")
        with pytest.raises(InputError, match="send them with infer_picture"):
            list(client.stream(split, 1, [inputs], codec="uint8"))
        with pytest.raises(InputError, match="sends no picture; known: uint8"):
            client.infer_picture(split, load_card("resnet18"), folder / "photo.jpg", codec="int8")

    async def ask() -> None:
        async with AsyncEdgeClient(edge) as client:
            with pytest.raises(InputError, match="send them with infer_picture"):
                await client.infer(split, 0, inputs, codec="webp:75")
            card = load_card(str(folder / "plain.toml"))
            result = await client.infer_picture(split, card, folder / "photo.jpg")
            assert torch.equal(result.output, split(*inputs_of(card, folder / "photo.jpg", max_pixels=10**6)))

    asyncio.run(ask())


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
