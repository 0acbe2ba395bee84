"""Which architectures are captured, and whether every sampled cut has the bits of the eager model.

At least 60 architectures of torchvision, 60 of timm (one of each family) and 20 of transformers, with random weights at
the smallest sensible size. Each is captured with ``optimize=False`` and run at cut 0, at K and at three cuts between:
head plus tail must equal the eager model in values, dtypes and strides. A child process works through them, so that
one that hangs or crashes costs only itself.

- *equal*: captured, and every sampled cut equal.
- *refused*: one line of the error family says why.
- *wrong*: captured, but some cut differs. There must be none.
- *broken*: the library itself cannot build or run the model here, so there is nothing to capture.

Run: ``python -m benchmarks.architectures [--json] [--library torchvision|timm|hf] [--limit N] [--model NAME]``
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
import time
from collections import Counter
from multiprocessing.connection import Connection
from typing import Any

TIME_LIMIT_S = 180.0
SAMPLES = 5
GIANTS = (
    "128gf",
    "32gf",
    "vit_h",
    "vit_l",
    "wide_resnet101",
    "convnext_large",
    "swin_b",
    "swin_v2_b",
    "vgg19",
    "vgg13",
)
SMALL_WORDS = (
    "atto",
    "femto",
    "pico",
    "nano",
    "micro",
    "xxs",
    "_xs",
    "tiny",
    "xxtiny",
    "mini",
    "_s0",
    "b0",
    "small",
    "18",
    "_s",
)
TRANSFORMERS = [
    "albert",
    "bert",
    "bigbird-pegasus-none",
    "big_bird",
    "camembert",
    "convbert",
    "deberta",
    "deberta-v2",
    "distilbert",
    "electra",
    "ernie",
    "funnel",
    "gpt2",
    "gpt_neo",
    "gpt_neox",
    "layoutlm",
    "llama",
    "mistral",
    "mobilebert",
    "mpnet",
    "opt",
    "qwen2",
    "roberta",
    "roformer",
    "squeezebert",
    "xlm-roberta",
    "phi",
    "gemma",
    "vit",
    "deit",
    "beit",
    "convnext",
    "convnextv2",
    "swin",
    "swinv2",
    "resnet",
    "regnet",
    "mobilenet_v1",
    "mobilenet_v2",
    "mobilevit",
    "dinov2",
    "poolformer",
    "segformer",
    "pvt",
    "vit_mae",
    "vit_msn",
    "bit",
    "levit",
    "cvt",
    "focalnet",
]
SMALL_CONFIG = {
    "hidden_size": 64,
    "n_embd": 64,
    "d_model": 64,
    "dim": 64,
    "embedding_size": 32,
    "num_hidden_layers": 2,
    "n_layer": 2,
    "n_layers": 2,
    "num_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "num_heads": 4,
    "n_head": 4,
    "n_heads": 4,
    "intermediate_size": 128,
    "ffn_dim": 128,
    "hidden_dim": 128,
    "vocab_size": 500,
    "max_position_embeddings": 128,
    "image_size": 64,
    "head_dim": 16,
    "attention_types": [[["global", "local"], 1]],
}


def torchvision_names() -> list[str]:
    """Classification and segmentation models, the largest aside."""
    from splitinfer.torchvision_compat import import_torchvision

    names = import_torchvision().models.list_models()
    skipped = (
        "quantized",
        "rcnn",
        "retinanet",
        "fcos",
        "ssd",
        "raft",
        "mc3",
        "r3d",
        "r2plus1d",
        "mvit",
        "s3d",
        "swin3d",
    )
    return [name for name in names if not any(word in name for word in (*skipped, *GIANTS))]


def timm_names() -> list[str]:
    """The smallest-sounding model of each family."""
    from splitinfer.models.libraries import _import_timm

    families: dict[str, list[str]] = {}
    for name in _import_timm().list_models():
        found = re.match(r"[a-z]+(?:v\d)?", name)
        families.setdefault(found.group() if found else name, []).append(name)

    def size(name: str) -> tuple[int, int]:
        return next((i for i, word in enumerate(SMALL_WORDS) if word in name), len(SMALL_WORDS)), len(name)

    return [f"timm:{min(names, key=size)}" for names in families.values()]


def hf_names() -> list[str]:
    """Encoders, decoders and vision models of transformers."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return [f"hf:{name}" for name in TRANSFORMERS if name in CONFIG_MAPPING]


def build(name: str) -> tuple[Any, tuple[Any, ...]]:
    """The model at a small size, and example inputs."""
    import torch

    from splitinfer.models import load_card, load_model

    torch.manual_seed(0)
    if name.startswith("hf:"):
        return _small_transformer(name.removeprefix("hf:"))
    if name.startswith("timm:"):
        import timm

        card = load_card(name)
        shape = card.inputs[0].shape
        for kwargs, side in (({}, 96), ({"img_size": 96}, 96), ({}, shape[-1])):
            try:
                model = timm.create_model(name.removeprefix("timm:"), **kwargs).eval()
                example = torch.randn(1, shape[0], side, side)
                with torch.no_grad():
                    model(example)
            except Exception:  # noqa: BLE001 - sizes that a model does not take fail in any way
                continue
            return model, (example,)
        raise RuntimeError("no size fits")
    card = load_card(name)
    model = load_model(card)
    for side in (64, 128, card.inputs[0].shape[-1]):
        example = torch.randn(1, 3, side, side)
        try:
            with torch.no_grad():
                model(example)
        except Exception:  # noqa: BLE001 - as above
            continue
        return model, (example,)
    raise RuntimeError("no size fits")


def _small_transformer(kind: str) -> tuple[Any, tuple[Any, ...]]:
    import torch
    from transformers import AutoModel
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    from splitinfer.models.libraries import _main_input, _named_input

    default = CONFIG_MAPPING[kind]()
    known = {key: value for key, value in SMALL_CONFIG.items() if isinstance(getattr(default, key, None), int | list)}
    attempts: list[dict[str, Any]] = [known, {k: v for k, v in known.items() if "num" in k or k.startswith("n_")}, {}]
    trouble: Exception = RuntimeError("nothing tried")
    for attempt in attempts:
        try:
            config = CONFIG_MAPPING[kind](**attempt)
            if hasattr(config, "use_cache"):
                config.use_cache = False
            model = AutoModel.from_config(config).eval()
            main = _main_input(config)
            if main == "pixel_values":
                side = getattr(config, "image_size", 64)
                side = side if isinstance(side, int) else side[0]
                example = torch.randn(1, getattr(config, "num_channels", 3), side, side)
            else:
                example = torch.randint(0, config.vocab_size, (1, 16))
            wrapped = _named_input(model, main)
            with torch.no_grad():
                wrapped(example)
        except Exception as error:  # noqa: BLE001 - a size that a configuration does not take
            trouble = error
            continue
        return wrapped.eval(), (example,)
    raise trouble


def examine(name: str) -> tuple[str, str]:
    """What comes of one architecture, and a line on it."""
    import torch
    from torch.utils import _pytree as pytree

    from splitinfer import SplitModel
    from splitinfer.errors import SplitInferError

    try:
        model, inputs = build(name)
    except Exception as error:  # noqa: BLE001 - whatever the library raises
        return "broken", f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:150]
    with torch.no_grad():
        expected = [leaf for leaf in pytree.tree_leaves(model(*inputs)) if isinstance(leaf, torch.Tensor)]
    try:
        split = SplitModel.capture(model, inputs, optimize=False)
    except SplitInferError as error:
        return "refused", str(error)[:200]
    if split.random_ops:
        return "refused", f"draws random numbers: {split.random_ops[0]}"[:200]
    count = split.num_cuts
    cuts = sorted({0, count, *(count * i // (SAMPLES - 1) for i in range(SAMPLES))})
    for k in cuts:
        tensors = split.run_head(k, *inputs)
        output = split.run_tail(k, *tensors) if k < count else split(*inputs)
        found = [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, torch.Tensor)]
        for mine, theirs in zip(found, expected, strict=True):
            if (
                mine.dtype != theirs.dtype
                or mine.shape != theirs.shape
                or not torch.equal(mine.isnan(), theirs.isnan())
            ):
                return "wrong", f"cut {k}: {mine.dtype} {tuple(mine.shape)}"
            if not torch.equal(mine.nan_to_num(), theirs.nan_to_num()):
                return "wrong", f"cut {k}: values differ by up to {(mine.double() - theirs.double()).abs().max():.3g}"
            if mine.stride() != theirs.stride():
                return "wrong", f"cut {k}: strides {mine.stride()} instead of {theirs.stride()}"
    return "equal", f"{count} cuts"


def _work(pipe: Connection) -> None:
    import warnings

    import torch

    from splitinfer.torchvision_compat import prepare_torchvision

    warnings.simplefilter("ignore")
    prepare_torchvision()
    torch.set_num_threads(1)
    # Under no_grad nn.MultiheadAttention takes another kernel, with other roundings; the captured graph has the one
    # that the layer uses otherwise.
    torch.backends.mha.set_fastpath_enabled(False)
    while True:
        name = pipe.recv()
        if name is None:
            return
        try:
            pipe.send(examine(name))
        except Exception as error:  # noqa: BLE001 - a traceback is what this looks for
            pipe.send(("wrong", f"{type(error).__name__}: {error}"[:200]))


class Worker:
    """A child that examines one architecture after the other, started anew after a hang or a crash."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def examine(self, name: str) -> tuple[str, str]:
        """As the function, within the time limit."""
        try:
            self._pipe.send(name)
            if self._pipe.poll(TIME_LIMIT_S):
                answer: tuple[str, str] = self._pipe.recv()
                return answer
            what = f"took more than {TIME_LIMIT_S:.0f} s"
        except (EOFError, OSError):
            what = "the process died"
        self._process.kill()
        self._start()
        return "refused", what

    def stop(self) -> None:
        """End the child."""
        self._pipe.send(None)
        self._process.join(10)


def main(argv: list[str] | None = None) -> int:
    """Print a line per architecture that is not equal, and the sums."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.architectures", description=__doc__)
    parser.add_argument("--library", choices=["torchvision", "timm", "hf"])
    parser.add_argument("--limit", type=int, help="architectures per library, evenly over its list")
    parser.add_argument("--model", help="one architecture")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    worker = Worker()
    record: dict[str, dict[str, tuple[str, str]]] = {}
    libraries = {"torchvision": torchvision_names, "timm": timm_names, "hf": hf_names}
    for library, list_names in libraries.items():
        if options.library not in (None, library) or options.model:
            continue
        try:
            names = list_names()
        except ImportError as error:
            print(f"{library}: not installed ({error})")
            continue
        if options.limit and options.limit < len(names):
            names = [names[len(names) * i // options.limit] for i in range(options.limit)]
        record[library] = {}
        for name in names:
            started = time.perf_counter()
            verdict = record[library][name] = worker.examine(name)
            if not options.json:
                print(f"{name:<45} {verdict[0]:<8} {verdict[1]}  [{time.perf_counter() - started:.0f} s]", flush=True)
    if options.model:
        record["one"] = {options.model: worker.examine(options.model)}
        print(*record["one"][options.model])
    worker.stop()
    ratios = {}
    for library, verdicts in record.items():
        tally = Counter(kind for kind, _ in verdicts.values())
        tried = len(verdicts) - tally["broken"]
        ratios[f"{library} captured"] = (tally["equal"] + tally["wrong"]) / max(tried, 1)
        ratios[f"{library} equal of captured"] = tally["equal"] / max(tally["equal"] + tally["wrong"], 1)
        if not options.json:
            print(f"{library}: {tried} tried, {dict(tally)}")
    if options.json:
        print(json.dumps({"ratios": ratios, "architectures": record}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
