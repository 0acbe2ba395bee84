"""What a user may hand to the clients by mistake: one line that names it, in both clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from splitinfer.errors import InputError, SplitInferError
from splitinfer.graph import SplitModel
from splitinfer.models import load_card
from splitinfer.models.sent_pictures import wanted_picture_codec
from splitinfer.runtime import AsyncEdgeClient, ClientSettings, EdgeClient, EdgeProcess, EdgeServer
from tests.runtime import small

IMAGE = torch.ones(1, 3, 32, 32)
Call = Callable[[Any, SplitModel], Any]

MISTAKES: dict[str, tuple[Call, str]] = {
    "a module": (lambda client, split: client.infer(small.plain(), 1, IMAGE), "split must be a SplitModel"),
    "a name": (lambda client, split: client.infer("plain", 1, IMAGE), "split must be a SplitModel .*, not str"),
    "a name's tail": (lambda client, split: client.run_tail("plain", 1, [IMAGE]), "split must be a SplitModel"),
    "a codec's number": (lambda client, split: client.infer(split, 1, IMAGE, codec=3), "codec must be a name.* not 3"),
    "no codec's name": (lambda client, split: client.infer(split, 1, IMAGE, codec=""), "codec must be a name.* not ''"),
    "no tensors": (lambda client, split: client.run_tail(split, 1, None), "tensors must be a tuple"),
    "one tensor": (lambda client, split: client.run_tail(split, 1, IMAGE), "tensors must be a tuple"),
    "several codecs": (lambda client, split: client.run_tail(split, 1, [IMAGE], codec=["raw"]), "codec must be a name"),
    "a card's name": (lambda client, split: client.infer_picture(split, "plain", "x.jpg"), "card must be a ModelCard"),
    "the picture's file": (lambda client, split: client.infer_picture(split, split, "x.jpg"), "card must be a Model"),
}
STREAMS: dict[str, tuple[dict[str, Any], str]] = {
    "a window's text": ({"window": "3"}, "window must be at least 1, a whole number, not '3'"),
    "half a window": ({"window": 2.5}, "window must be at least 1, a whole number, not 2.5"),
    "another way to fail": ({"on_failure": "ignore"}, "on_failure must be one of"),
    "no inputs": ({"inputs": None}, "inputs must be a series"),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_a_wrong_argument_is_one_line(edge: EdgeProcess, models: dict[str, SplitModel], what: str) -> None:
    call, said = MISTAKES[what]

    async def ask() -> None:
        async with AsyncEdgeClient(edge.address) as client:
            await call(client, models["plain"])

    with EdgeClient(edge.address) as client, pytest.raises(InputError, match=said):
        call(client, models["plain"])
    with pytest.raises(InputError, match=said):
        asyncio.run(ask())


@pytest.mark.parametrize("what", STREAMS)
def test_a_wrong_argument_of_a_stream_is_one_line(edge: EdgeProcess, models: dict[str, SplitModel], what: str) -> None:
    given, said = STREAMS[what]
    given = {"split": models["plain"], "cut": 1, "inputs": [IMAGE], **given}

    async def ask() -> None:
        async with AsyncEdgeClient(edge.address) as client:
            [_ async for _ in client.stream(**given)]

    with EdgeClient(edge.address) as client, pytest.raises(InputError, match=said):
        client.stream(**given)
    with pytest.raises(InputError, match=said):
        asyncio.run(ask())


@pytest.mark.parametrize("client", [EdgeClient, AsyncEdgeClient])
def test_a_client_of_something_else_is_one_line(client: type) -> None:
    for target in (None, 50051):
        with pytest.raises(InputError, match="address is HOST:PORT"):
            client(target)
    with pytest.raises(InputError, match="settings must be ClientSettings, not dict"):
        client("127.0.0.1:50051", {"codec": "int8"})


@pytest.mark.parametrize("given", [{"codec": None}, {"reply_codec": 3}, {"deadline_s": "30"}, {"try_s": "1"}])
def test_settings_of_another_type_are_one_line(given: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(given))} must be"):
        ClientSettings(**given)


def broken_camera() -> Iterator[Any]:
    yield from [IMAGE] * 5
    raise OSError("the camera is gone")


async def broken_camera_async() -> AsyncIterator[Any]:
    for image in broken_camera():
        yield image


@pytest.mark.parametrize("window", [1, 3, 64])
@pytest.mark.parametrize("wrong", ["input", "series"])
def test_what_was_sent_before_a_wrong_input_is_answered(
    edge: EdgeProcess, models: dict[str, SplitModel], window: int, wrong: str
) -> None:
    split, error = models["plain"], OSError if wrong == "series" else SplitInferError
    one_by_one = [*[IMAGE] * 5, IMAGE.double(), IMAGE]

    got, got_async = [], []

    async def ask() -> None:
        inputs = broken_camera_async() if wrong == "series" else one_by_one
        async with AsyncEdgeClient(edge.address) as client:
            async for result in client.stream(split, 1, inputs, window=window):
                got_async.append(result)

    with EdgeClient(edge.address) as client:
        with pytest.raises(error):
            got.extend(client.stream(split, 1, broken_camera() if wrong == "series" else one_by_one, window=window))
        client.infer(split, 1, IMAGE)  # it is as good as before
    with pytest.raises(error):
        asyncio.run(ask())
    assert (len(got), len(got_async)) == (5, 5)


@pytest.mark.parametrize("codec", ["webp+zstd", "uint8:3", "jpeg+zstd:80"])
def test_no_picture_goes_so(edge: EdgeProcess, models: dict[str, SplitModel], codec: str) -> None:
    with (
        EdgeClient(edge.address) as client,
        pytest.raises(InputError, match=r"pictures go as uint8, uint8\+zstd, jpeg"),
    ):
        client.infer_picture(models["plain"], load_card("resnet18"), "x.jpg", codec=codec)


def test_a_file_named_by_a_text_is_sent_as_it_is(tmp_path: Path) -> None:
    """A path and its text mean the same file; the text was encoded anew, and lost bits."""
    file = tmp_path / "picture.jpg"
    Image.new("RGB", (40, 30), (200, 10, 60)).save(file, quality=35)
    codec = wanted_picture_codec("jpeg")
    assert codec.encode(str(file)).tobytes() == codec.encode(file).tobytes() == file.read_bytes()


@pytest.mark.parametrize("picture", [None, IMAGE, IMAGE.numpy(), b"abc", 3])
def test_what_is_no_picture_is_named(picture: Any) -> None:
    with pytest.raises(InputError, match=f"or a picture of PIL, not {type(picture).__name__}$"):
        wanted_picture_codec("jpeg:80").encode(picture)
    with pytest.raises(InputError, match="None sends no picture"):
        wanted_picture_codec(None)


def test_a_server_of_something_else_is_one_line(models: dict[str, SplitModel]) -> None:
    for wrong in (None, models["plain"]):
        with pytest.raises(InputError, match="models must be a list of SplitModel, not"):
            EdgeServer(wrong)
    with pytest.raises(InputError, match=r"split must be a SplitModel .*, not str"):
        EdgeServer("plain")
    with pytest.raises(InputError, match="settings must be ServerSettings, not dict"):
        EdgeServer([models["plain"]], {"port": 50051})
