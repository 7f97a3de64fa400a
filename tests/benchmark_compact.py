"""Is a compact encoder of sparsity 0.95 as much faster as the study needs it to be?

And what does a step of CoFi's training cost, beside one of plain distillation? Random weights in
fixed shapes, against density 1 of the same code, in one process, in turns. Not collected by
`make test`, since it means something on a quiet machine only. Run it with
`make test ARGS="tests/benchmark_compact.py -n 0 -s"`.
"""

import statistics
import time

import pytest
import torch
from transformers import BertConfig, MPNetConfig

from lib import pruners
from lib.measures import costs, timings
from lib.models.encoder import LayerShape, Shape
from lib.training.joint import Joint

LENGTH, ROUNDS = 128, 7
MINILM = BertConfig(
    hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
)
CONFIGS = {"minilm-l6": MINILM, "mpnet-base": MPNetConfig(vocab_size=30527)}
# as trained: what is left of the FFNs sits at both ends, of the heads at the bottom
LEFT = {  # encoder: hidden dims, (heads, neurons) of each layer; None where a sublayer is absent
    "minilm-l6": (382, [(1, 170), (2, None), (1, None), (None, None), (None, 60), (None, 200)]),
    "mpnet-base": (
        764,
        [(2, 330), (3, 120), (2, None), (1, None), (1, None), (None, None)]
        + [(None, None)] * 3
        + [(1, None), (None, 250), (None, 780)],
    ),
}


def shapes(encoder: str) -> dict[str, Shape]:
    config, (hidden, left) = CONFIGS[encoder], LEFT[encoder]
    heads, width = config.num_attention_heads, config.hidden_size // config.num_attention_heads
    whole = LayerShape(heads, width, width, config.intermediate_size)
    layers = tuple(
        LayerShape(h or 0, width if h else 0, width if h else 0, n or 0, bool(h), bool(n))
        for h, n in left
    )
    return {
        "dense": Shape(config.hidden_size, (whole,) * config.num_hidden_layers),
        "pruned": Shape(hidden, layers),
    }


def ratios(encoder: str, size: int, precision: str, length: int = LENGTH) -> tuple[float, float]:
    """How many times faster, and the ratio of MACs."""
    own = shapes(encoder)
    models = {name: costs.random_model(s, CONFIGS[encoder]) for name, s in own.items()}
    batch = timings.random_batch(30000, size, length)
    rounds = ROUNDS * (8 if size == 1 else 1)
    seconds = costs.latency(models, [batch], rounds, precision)
    macs = {name: costs.encoder_macs(s, length) for name, s in own.items()}
    dense, pruned = (1e3 * statistics.median(seconds[name]) for name in ("dense", "pruned"))
    print(f"\n{encoder} {precision} {size} x {length}: {dense:.1f} and {pruned:.2f} ms", end="")
    return timings.ratio(seconds["dense"], seconds["pruned"]), macs["dense"] / macs["pruned"]


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("encoder", CONFIGS)
def test_the_shapes_are_of_sparsity_95(encoder):
    own = shapes(encoder)
    sparsity = 1 - costs.encoder_params(own["pruned"]) / costs.encoder_params(own["dense"])
    assert sparsity == pytest.approx(0.95, abs=0.002)


@pytest.mark.parametrize("encoder", CONFIGS)
def test_the_speedup_in_float32(encoder):
    found = {size: ratios(encoder, size, "float32") for size in (1, 32, 128)}
    print("\n", {size: f"{ratio:.1f}x of {macs:.1f}x" for size, (ratio, macs) in found.items()})
    assert found[32][0] >= 12
    assert found[1][0] >= 8
    assert found[32][0] >= 0.6 * found[32][1]
    assert found[128][0] >= 0.95 * found[32][0]


@pytest.mark.parametrize("encoder", CONFIGS)
def test_the_speedup_in_bfloat16_is_printed(encoder):
    found = {size: ratios(encoder, size, "bfloat16") for size in (1, 32, 128)}
    print("\n", {size: f"{ratio:.1f}x of {macs:.1f}x" for size, (ratio, macs) in found.items()})


def test_a_training_step_costs_little_more_than_plain_distillation():
    """In seconds of the processor, so that what else runs matters less; at most 1.6 times."""
    teacher = costs.random_model(shapes("minilm-l6")["dense"], MINILM)
    batch = timings.random_batch(30000, 32, 14)
    with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
        joint = Joint(teacher, pruners.get("cofi")._plan(2400, 0.95))

        def plain():
            said = joint.student(**batch, output_hidden_states=True)
            left = joint.teaching.left
            loss, _ = joint.teaching(batch, said.logits, said.hidden_states, left)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(joint.trained.values(), 1.0)
            joint.weights.step()
            joint.weights.zero_grad()

        seconds = {"joint": [], "plain": []}
        for _ in range(ROUNDS):
            for name, step in (("joint", lambda: joint.advance(batch)), ("plain", plain)):
                start = time.process_time()
                step()
                seconds[name].append(time.process_time() - start)
    ratio = timings.ratio(seconds["joint"], seconds["plain"])
    print(f"\n{ratio:.2f} times a step of plain distillation")
    assert ratio <= 1.6
