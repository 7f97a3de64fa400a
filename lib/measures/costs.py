"""What does a model cost: parameters, multiply-accumulates (MACs), seconds?

One MAC is two FLOPs. Biases, norms, activations and the softmax are not counted, as is usual.
"""

import resource
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.ao.quantization import per_channel_dynamic_qconfig, quantize_dynamic
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count
from transformers import PreTrainedConfig

from lib.errors import StudyError, unknown
from lib.models import compact, encoder
from lib.models.encoder import LayerShape, Shape

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.qint8}
# torch counts attention on a GPU and in its unfused form; its fused CPU kernel it counts as 0
_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: (
        lambda query, key, value, *args, **kwargs: sdpa_flop_count(query, key, value)
    )
}


@dataclass(frozen=True)
class Params:
    """Numbers of parameters; attention is part of the encoder, the encoder of the model.

    MPNet's relative position tables are part of the model alone: Hugging Face's has one for all
    layers, a compact model one a layer, and with neither counted the encoder is BERT-base's.
    """

    attention: int  # query, key, value and output projections of every layer, biases included
    encoder: int  # every layer with its LayerNorms
    model: int  # everything: embeddings, position tables and classification head too


def params(model: nn.Module) -> Params:
    """The sizes of the tensors that `model` has."""
    return _params(model, Tensor.numel)


def nonzero(model: nn.Module) -> Params:
    """The entries that are not 0: what a method that only zeroes weights leaves over."""
    return _params(model, lambda tensor: int(tensor.count_nonzero()))


def _params(model: nn.Module, size: Callable[[Tensor], int]) -> Params:
    def total(*modules: nn.Module | None) -> int:
        there = (module for module in modules if module is not None)
        return sum(size(tensor.detach()) for m in there for tensor in m.parameters())

    layers = encoder.layers(model)
    attention = sum(total(each.query, each.key, each.value, each.output) for each in layers)
    rest = sum(total(e.attention_norm, e.up, e.down, e.ffn_norm) for e in layers)
    return Params(attention, attention + rest, total(model))


def encoder_params(shape: Shape) -> int:
    """`params(...).encoder` of a model of this shape, by formula: biases and LayerNorms count."""
    total, hidden = 0, shape.hidden
    for layer in shape.layers:
        if layer.mha:
            queries, values = layer.heads * layer.qk, layer.heads * layer.vo
            total += 2 * (hidden + 1) * queries + (hidden + 1) * values + (values + 1) * hidden
        if layer.ffn:
            total += (hidden + 1) * layer.neurons + (layer.neurons + 1) * hidden
        total += 2 * hidden * (layer.mha + layer.ffn)
    return total


def encoder_macs(shape: Shape, tokens: int | float) -> int | float:
    """MACs of the layers for one sequence of `tokens` tokens (a mean may be no whole number).

    Projections are linear in the tokens, scores and context quadratic. The attention's kernel
    works at the wider of the two head widths, so both quadratic terms count that one.
    """
    return sum(_layer_macs(layer, shape.hidden, tokens) for layer in shape.layers)


def _layer_macs(layer: LayerShape, hidden: int, tokens: int | float) -> int | float:
    ffn = 2 * tokens * hidden * layer.neurons
    if layer.heads * layer.vo == 0:  # the attention is its output bias
        return ffn
    projections = 2 * tokens * hidden * layer.heads * (layer.qk + layer.vo)
    return ffn + projections + 2 * tokens**2 * layer.heads * max(layer.qk, layer.vo)


@torch.no_grad()
def count_macs(model: nn.Module, batch: Mapping[str, Tensor]) -> int:
    """MACs that the layers execute on `batch`, padding included; embeddings and head are not.

    Equal to the number of sequences times `encoder_macs` at the padded length, under the eager
    and the fused attention alike (a test holds them equal).
    """
    with FlopCounterMode(display=False, custom_mapping=_ATTENTION) as counter:
        model(**batch)
    skims = getattr(model.base_model, "predictors", None) or ()  # of a model that drops tokens
    counts, blocks = counter.get_flop_counts(), {*encoder.blocks(model), *skims}
    names = [f"{type(model).__name__}.{name}" for name, m in model.named_modules() if m in blocks]
    return sum(sum(counts.get(name, {}).values()) for name in names) // 2


def formats(device: torch.device) -> list[str]:
    """The number formats that a model can be cast to there: int8 runs on a CPU only."""
    return [name for name in PRECISIONS if name != "int8" or device.type == "cpu"]


def cast(model: nn.Module, precision: str) -> nn.Module:
    """A copy of `model` in another number format, in evaluation mode.

    int8 is PyTorch's dynamic quantisation: the weights of linear maps channel by channel, what
    enters them batch by batch, all else in float32. It takes seconds and no data. Raises a
    StudyError for an unknown format, and for int8 elsewhere than on a CPU.
    """
    if precision not in PRECISIONS:
        raise unknown("precision", precision, PRECISIONS)
    device = next(model.parameters()).device
    if precision not in formats(device):
        raise StudyError(f"{precision} runs on a CPU only, the model is on {device.type}; move it")
    if precision != "int8":
        return deepcopy(model).to(PRECISIONS[precision]).eval()
    model = deepcopy(model).float().eval()
    full = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear) and m.weight.numel()}
    with warnings.catch_warnings():  # torch means to move it to another package one day
        warnings.simplefilter("ignore")
        spec = dict.fromkeys(full, per_channel_dynamic_qconfig)
        return quantize_dynamic(model, spec, dtype=torch.qint8, inplace=True)


def latency(
    models: Mapping[str, nn.Module],
    batches: Sequence[Mapping[str, Tensor]] | Mapping[str, Sequence[Mapping[str, Tensor]]],
    rounds: int,
    precision: str | None = "float32",
    warmup: int = 2,
) -> dict[str, list[float]]:
    """Seconds that each model takes for a pass over its batches, one number a round.

    The models take turns within a round (A B A B), so that a slow moment of the machine strikes
    them alike; `warmup` rounds before are dropped. Models are `cast` to `precision` once, in a
    copy; None takes them as they are. Batches come ready made, padded as the caller means to
    compare (to the longest text there can be, or to each batch's longest): a mapping gives each
    model its own. Raises a StudyError for no rounds, no batches or an unknown precision.
    """
    own = batches if isinstance(batches, Mapping) else dict.fromkeys(models, batches)
    if rounds < 1 or set(own) != set(models) or not all(map(len, own.values())):
        raise StudyError(
            f"latency wants at least one round and batches for each of {', '.join(models)}; "
            f"got {rounds} rounds and batches for {', '.join(own)}"
        )
    ready = {}
    for name, model in models.items():
        device = next(model.parameters()).device
        model = cast(model, precision) if precision else model.eval()
        inputs = [{k: v.to(device) for k, v in b.items() if k != "labels"} for b in own[name]]
        ready[name] = model, inputs, device

    seconds = {name: [] for name in models}
    with torch.inference_mode():
        for turn in range(warmup + rounds):
            for name, (model, inputs, device) in ready.items():
                _synchronize(device)
                start = time.perf_counter()
                for batch in inputs:
                    model(**batch)
                _synchronize(device)
                if turn >= warmup:
                    seconds[name].append(time.perf_counter() - start)
    return seconds


@contextmanager
def clock(seconds: dict[str, float], phase: str) -> Iterator[None]:
    """Add the seconds on the wall that the block takes to those of a phase."""
    start = time.perf_counter()
    yield
    seconds[phase] = round(seconds.get(phase, 0.0) + time.perf_counter() - start, 3)


def peak_memory() -> int:
    """The most memory that this process has had resident at any time so far, in bytes."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most  # elsewhere it comes in KiB


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def random_model(
    shape: Shape, source: PreTrainedConfig, seed: int = 0
) -> compact.CompactForSequenceClassification:
    """A compact model of this shape with random weights: its speed is the trained one's.

    `source` is the config of the dense model, whose architecture, vocabulary and labels it has.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = compact.config(source, shape)
        return compact.CompactForSequenceClassification(config).eval()
