"""How is a unit silenced? By a factor on what it computes: 0 prunes, anything else rescales."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields

from jaxtyping import Float
from torch import Tensor, nn

from lib import encoder
from lib.errors import StudyError


@dataclass(frozen=True)
class Masks:
    """One factor a unit; 0 prunes it, 1 keeps it as it is, anything else keeps and rescales it.

    Layers of unequal widths (a compact model's) share one tensor as wide as the widest: a factor
    beyond a layer's own width belongs to nothing, is 0 in `dense` and is ignored everywhere.
    """

    heads: Float[Tensor, "layers heads"]  # times the head's context, before the output projection
    neurons: Float[Tensor, "layers neurons"]  # times the activation, before the down projection
    qk: Float[Tensor, "layers heads qk"]  # times the product q_i k_i, so a term of the logit
    vo: Float[Tensor, "layers heads vo"]  # times the context's dimension

    @classmethod
    def dense(cls, model: nn.Module) -> "Masks":
        """All units kept, in the model's dtype and on its device."""
        shapes = encoder.shape(model).layers
        heads, neurons, qk, vo = (
            max((getattr(layer, unit) for layer in shapes), default=0)
            for unit in ("heads", "neurons", "qk", "vo")
        )
        new = next(model.parameters()).new_zeros
        masks = cls(
            new(len(shapes), heads),
            new(len(shapes), neurons),
            new(len(shapes), heads, qk),
            new(len(shapes), heads, vo),
        )
        for index, layer in enumerate(shapes):
            for own in masks.layer(index, layer):
                own.fill_(1)
        return masks

    def layer(self, index: int, shape: encoder.LayerShape) -> tuple[Tensor, ...]:
        """Views of one layer's factors, cut to its widths: (H,), (F,), (H, qk), (H, vo)."""
        return (
            self.heads[index, : shape.heads],
            self.neurons[index, : shape.neurons],
            self.qk[index, : shape.heads, : shape.qk],
            self.vo[index, : shape.heads, : shape.vo],
        )

    def check(self, model: nn.Module) -> None:
        """Raise a StudyError unless these masks have the widths of `model`."""
        dense = Masks.dense(model)
        for name in (field.name for field in fields(self)):
            came, wanted = getattr(self, name).shape, getattr(dense, name).shape
            if came != wanted:
                raise StudyError(
                    f"masks of another model: {name} is {tuple(came)}, this model's is "
                    f"{tuple(wanted)}; start from Masks.dense(model)"
                )


@contextmanager
def applied(model: nn.Module, masks: Masks) -> Iterator[nn.Module]:
    """Multiply every unit by its factor while the block runs; differentiable in all four masks.

    Works on every architecture of `encoder`, the compact model included, whichever attention
    implementation it uses: the factors sit on the linear layers around the attention. Raises a
    StudyError where the masks' widths are not the model's.
    """
    masks.check(model)
    shapes = encoder.shape(model).layers
    with ExitStack() as hooks:

        def scale_output(module: nn.Module, factors: Tensor) -> None:
            handle = module.register_forward_hook(
                lambda module, args, output: output * factors.to(output)
            )
            hooks.callback(handle.remove)

        def scale_input(module: nn.Module, factors: Tensor) -> None:
            handle = module.register_forward_pre_hook(
                lambda module, args: (args[0] * factors.to(args[0]),)
            )
            hooks.callback(handle.remove)

        for index, (layer, shape) in enumerate(zip(encoder.layers(model), shapes, strict=True)):
            heads, neurons, qk, vo = masks.layer(index, shape)
            scale_output(layer.query, qk.flatten())
            scale_input(layer.output, (heads[:, None] * vo).flatten())
            scale_input(layer.down, neurons)
        yield model
