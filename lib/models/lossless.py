"""What can be moved inside an encoder without changing what it computes?"""

from copy import deepcopy

import torch
from torch import nn

from lib.models import encoder


@torch.no_grad()
def fold_attention_biases(model: nn.Module) -> nn.Module:
    """A copy with b_O + W_O b_V for b_O, and b_V = b_K = 0. Exact but for attention dropout.

    Attention weights sum to 1, so b_V reaches every token alike; b_K adds the same to all logits
    of a query, and softmax drops it.
    """
    model = deepcopy(model)
    for layer in encoder.layers(model):
        layer.output.bias += layer.output.weight @ layer.value.bias
        layer.value.bias.zero_()
        layer.key.bias.zero_()
    return model
