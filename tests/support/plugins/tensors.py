"""What tensors.cpp does, for numpy; and plugins that keep what they see, or answer with what is no tensor."""

import numpy as np

from bulkhead import Plugin


def inverted(array):
    """Every bit of it; a bool becomes the other one."""
    if array.dtype == np.bool_:
        return ~array
    return (~array.view(f"u{array.itemsize}")).view(array.dtype)


def strided(array):
    """The same values with a gap behind each, in the order of the dimensions turned round."""
    gaps = np.zeros((*reversed(array.shape), 2), array.dtype)[..., 0].T
    gaps[...] = array
    return gaps


class Tensors(Plugin):
    stateless = True

    def __init__(self, how: str = "mutable"):
        self.how = how

    def transform_train_batch(self, batch, ctx):
        for name in list(batch):
            if self.how == "turned":
                batch[name] = batch[name].T
            elif self.how in ("mutable", "unseen"):
                out = batch.mutable(name)
                out[...] = inverted(out)
            elif self.how == "ends":
                out = batch.mutable(name).reshape(-1).view(np.uint8)
                out[0], out[-1] = ~out[0], ~out[-1]
            elif self.how == "strided":
                batch[name] = strided(inverted(batch[name]))
            else:
                batch[name] = inverted(batch[name])


class Hoards(Plugin):
    """Goes on looking at the inputs of its first 40 calls until there is another."""

    stateless = True  # no journal, which would keep them too

    def __init__(self):
        self.views = []

    def transform_train_batch(self, batch, ctx):
        if len(self.views) == 40:
            self.views.clear()
        else:
            self.views.append(batch["x"])


class Foreign(Plugin):
    """Answers with an array of a type that is none of a tensor's, once for each; then with a good one."""

    stateless = True
    TYPES = ["complex64", "complex128", "longdouble", "uint16", "uint32", "uint64", "datetime64[s]", "object", "U4", "i4,f4"]

    def transform_train_batch(self, batch, ctx):
        if ctx.global_step <= len(self.TYPES):
            batch["x"] = np.zeros(batch["x"].shape, self.TYPES[ctx.global_step - 1])
        else:
            batch.mutable("x")[...] = 7
