"""Cut a model of your own: a skip changed in place, a dictionary for an output, and no nn.Sequential."""

import torch
from torch import nn

import splitinfer


class Detector(nn.Module):
    """A small stand-in for a detector: boxes and scores from a residual trunk."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.block = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(inplace=True))
        self.down = nn.Conv2d(16, 8, 3, stride=4, padding=1)
        self.boxes, self.scores = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 2, 1)

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return one box and two scores per place."""
        skip = self.stem(image)
        features = self.block(skip)
        skip += features
        features = self.down(skip.relu_())
        return {"boxes": self.boxes(features), "scores": self.scores(features).softmax(1)}


def main() -> None:
    """Print the cut points and hold every one of them to the unsplit answer."""
    torch.manual_seed(0)
    model, image = Detector().eval(), torch.randn(1, 3, 96, 96)
    split = splitinfer.SplitModel.capture(model, (image,))
    expected = split(image)
    for k, cut in enumerate(split.cuts):
        crossing = split.run_head(k, image)  # on the device
        answer = split.run_tail(k, *crossing)  # at the edge
        assert all(torch.equal(answer[name], expected[name]) for name in expected)
        sent = " + ".join(map(str, cut.crossing)) or "nothing"
        print(f"k={k}  after {cut.name:<8} {cut.macs_before:>9,} MACs on the device, sends {sent}")
    profile = splitinfer.profile(model, (image,))
    print("c^k", profile.compute_ratio.round(3), "d^k", profile.feature_ratio.round(3))


if __name__ == "__main__":
    main()
