"""Cut a model of your own, serve its tail from a server in this process, and run the head against it.

In real use the server runs on another machine, holds the same model and is started there; ``splitinfer serve`` does
that for model cards.
"""

from __future__ import annotations

import asyncio

import torch
from torch import nn

from splitinfer import EdgeClient, SplitModel
from splitinfer.runtime import EdgeServer


def build() -> SplitModel:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.Flatten(), nn.LazyLinear(5)
    )
    image = torch.zeros(1, 3, 32, 32)
    model(image)
    return SplitModel.capture(model.eval(), (image,), name="mine")


async def several_at_once(address: str, split: SplitModel, images: list[torch.Tensor]) -> None:
    async with EdgeClient(address) as edge:
        results = await asyncio.gather(*(edge.infer(split, 1, image) for image in images))
    assert all(torch.equal(result.output, split(image)) for result, image in zip(results, images, strict=True))


def main() -> None:
    split = build()
    image = torch.randn(1, 3, 32, 32)
    with EdgeServer([split]) as server, EdgeClient(server.address) as edge:
        for cut in split.cuts:
            result = edge.infer(split, cut.index, image)
            assert torch.equal(result.output, split(image))
            print(f"cut {cut.index} after {cut.name:<6} sent {result.bytes_up:6} bytes")
        images = [torch.randn(1, 3, 32, 32) for _ in range(8)]
        for number, result in enumerate(edge.stream(split, 1, images)):
            assert torch.equal(result.output, split(images[number]))
        asyncio.run(several_at_once(server.address, split, images))
    print("every answer equals the whole model's")


if __name__ == "__main__":
    main()
