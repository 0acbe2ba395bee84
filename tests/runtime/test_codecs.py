"""Codecs between two processes: what the client asks for, what the server accepts."""

from __future__ import annotations

import asyncio

import grpc
import pytest
import torch

from splitinfer.errors import InputError
from splitinfer.graph import SplitModel
from splitinfer.runtime import AsyncEdgeClient, ClientSettings, EdgeClient, EdgeProcess, EdgeServer, ServerSettings
from splitinfer.runtime.verify import check_answer, largest_difference
from splitinfer.wire import Request, Wire, encode_request
from splitinfer.wire.codecs import RAW, codecs_named

CUT = 1
(FLOAT16,) = codecs_named(["float16"])


def picture() -> torch.Tensor:
    return torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_float16_halves_the_request_and_changes_the_answer_as_rounding_what_crosses_does(
    client: EdgeClient, models: dict[str, SplitModel]
) -> None:
    split = models["plain"]
    exact, rounded = client.infer(split, CUT, picture()), client.infer(split, CUT, picture(), codec="float16")
    tensors = split.run_head(CUT, picture())
    assert exact.bytes_up - rounded.bytes_up == pytest.approx(sum(t.nbytes for t in tensors) / 2, abs=128)
    check_answer(exact.output, split(picture()), "raw")
    expected = split.run_tail(CUT, *(tensor.half().float() for tensor in tensors))
    check_answer(rounded.output, expected, "float16")
    assert largest_difference(rounded.output, exact.output) > 0
    # The other ways to send say the same.
    (streamed,) = client.stream(split, CUT, [picture()], codec="float16")
    check_answer(streamed.output, expected, "stream")
    check_answer(client.run_tail(split, CUT, tensors, codec="float16").output, expected, "run_tail")


def test_settings_choose_the_codecs_of_both_directions(edge: EdgeProcess, models: dict[str, SplitModel]) -> None:
    split = models["plain"]
    tensors = split.run_head(CUT, picture())
    expected = split.run_tail(CUT, *(tensor.half().float() for tensor in tensors)).half().float()

    async def one() -> torch.Tensor:
        settings = ClientSettings(codec="float16", reply_codec="float16")
        async with AsyncEdgeClient(edge.address, settings) as client:
            return (await client.infer(split, CUT, picture())).output

    check_answer(asyncio.run(one()), expected, "both")
    with EdgeClient(edge.address, ClientSettings(reply_codec="float16")) as client:
        answer = client.infer(split, CUT, picture())
        check_answer(answer.output, split(picture()).half().float(), "reply")
        assert answer.bytes_down < client.infer(split, 0, picture(), codec="float16").bytes_up


def test_integers_and_bools_are_sent_raw_beside_float16() -> None:
    class Mixed(torch.nn.Module):
        def forward(self, x: torch.Tensor, at: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
            return torch.where(keep, x @ x, at)

    inputs = (torch.full((2, 2), 1.0001), torch.tensor([[2**24 + 1, 3], [4, 5]]), torch.tensor([[False, True]] * 2))
    split = SplitModel.capture(Mixed(), inputs, name="mixed")
    with EdgeServer([split]) as server, EdgeClient(server.address) as client:
        answer = client.infer(split, 0, *inputs, codec="float16").output
    assert torch.equal(answer, split(inputs[0].half().float(), *inputs[1:]))


def test_a_codec_that_one_end_does_not_have_is_one_line(client: EdgeClient, models: dict[str, SplitModel]) -> None:
    split = models["plain"]
    with pytest.raises(InputError, match=r"^codec: there is no codec 'zip'; known: raw, float16, .*ternary\+ans$"):
        ClientSettings(codec="zip")
    with pytest.raises(InputError, match="there is no codec 'zip'"):
        ServerSettings(codecs=("raw", "zip"))
    with pytest.raises(InputError, match="does not accept 'zip'; it accepts raw, float16"):
        client.infer(split, CUT, picture(), codec="zip")

    with EdgeServer([split], ServerSettings(codecs=("raw",))) as server, EdgeClient(server.address) as strict:
        assert [codec.name for codec in strict.describe().codecs] == ["raw"]
        refusal = f"codec: the edge at {server.address} does not accept 'float16'; it accepts raw"
        with pytest.raises(InputError, match=f"^{refusal}$"):
            strict.infer(split, CUT, picture(), codec="float16")
        with (
            EdgeClient(server.address, ClientSettings(reply_codec="float16")) as other,
            pytest.raises(InputError, match=f"^{refusal}$"),
        ):
            other.infer(split, CUT, picture())
        check_answer(strict.infer(split, CUT, picture()).output, split(picture()), "raw")
        # Whoever does not ask first is refused by the server.
        tensors = split.run_head(CUT, picture())
        for wire, wanted in ((Wire(codec=FLOAT16), RAW), (Wire(), FLOAT16)):
            request = encode_request(Request(split.name, split.fingerprint, CUT, tensors, 1, wanted), wire)
            with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError) as refused:
                channel.unary_unary("/splitinfer.v1.SplitInference/Infer")(request, timeout=60)
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert "unknown codec 1 version 1; accepted: raw 0 version 1" in refused.value.details()
