"""Is the error of a head's products what forming them would give?"""

import pytest
import torch

from lib import pruners
from lib.measures import products
from lib.models import compact, encoder
from lib.models.masks import Masks


def formed(model, layer: int, head: int):
    """M and N of one head, written out."""
    it, shape = encoder.layers(model)[layer], encoder.shape(model).layers[layer]
    qk = slice(head * shape.qk, (head + 1) * shape.qk)
    vo = slice(head * shape.vo, (head + 1) * shape.vo)
    q = torch.cat([it.query.weight[qk], it.query.bias[qk, None]], 1).double()
    v = it.value.weight[vo].double()
    return q.T @ it.key.weight[qk].double(), it.output.weight[:, vo].double() @ v


def test_it_is_the_mean_relative_frobenius_error(model):
    pruned = pruners.get("coreset", sampler="pps")(model, [], 0.5)
    wanted = {"qk": [], "vo": []}
    for layer, shape in enumerate(encoder.shape(model).layers):
        for head in range(shape.heads):
            pairs = zip(formed(model, layer, head), formed(pruned, layer, head), strict=True)
            for name, (whole, left) in zip(wanted, pairs, strict=True):
                wanted[name].append(((left - whole).norm() / whole.norm()).item())
    found = products.error(model, pruned)
    assert found == {name: pytest.approx(sum(e) / len(e), abs=1e-4) for name, e in wanted.items()}
    assert found["qk"] > 0.05


def test_nothing_pruned_is_no_error_and_lost_heads_have_none(model):
    assert products.error(model, compact.dense(model)) == {"qk": 0.0, "vo": 0.0}
    masks = Masks.dense(model)
    masks.heads[0, 0] = 0
    assert products.error(model, compact.compact(model, masks)) is None


def test_a_rotation_and_a_moved_bias_are_no_error(model):
    """`svd` at full rank computes the same, with b_V folded into b_O."""
    rotated = pruners.get("svd")(model, [], 1.0)
    assert products.error(model, rotated) == {
        "qk": pytest.approx(0, abs=1e-4),
        "vo": pytest.approx(0, abs=1e-4),
    }
