"""What each exact way to compute the operation costs, from arithmetic alone, and which one is taken.

The letters are those of `pairwise`. A way costs multiply-adds and bytes: those it moves through memory beyond
its operands and y, and those it holds at one time. Features are counted as float32.
"""

from typing import NamedTuple

# What a byte through memory costs in multiply-adds: float32 arithmetic over bandwidth is 4 to 9 on CPUs and
# GPUs of the last decade (A100: 9.7e12 / 1.6e12). It decides only where two ways are close to each other.
MULTIPLY_ADDS_PER_BYTE = 6

# What a way may hold where there is another one; or as many bytes as theta and y have, if these are more. The
# matrices of many small maps, as in a keypoint head, are among these.
HELD_BYTES = 16 * 2**20

# What is held of a larger N x M matrix at a time: enough for efficient products, and still in caches.
BLOCK_BYTES = 8 * 2**20


class Sizes(NamedTuple):
    """The images B, positions N and M, channels d of theta and phi, and channels D of g."""

    b: int
    n: int
    m: int
    d: int
    d_g: int


class Cost(NamedTuple):
    """Of one way, in training forward and backward: multiply-adds, bytes moved, bytes held at a time."""

    multiply_adds: int
    moved: int
    held: int

    @property
    def total(self) -> int:
        """In multiply-adds."""
        return self.multiply_adds + MULTIPLY_ADDS_PER_BYTE * self.moved


def softmax_costs(sizes: Sizes, training: bool) -> dict[str, Cost]:
    """Eq. 2 and 3: "matrix", "blocks" of its rows, or "fused", PyTorch's kernel.

    The passes over the logits are the same. Beside them, "matrix" writes the softmax and reads it again;
    "blocks" reads and packs phi and g for every block; "fused" copies theta, phi, g and y to have their
    channels last. For the gradients "blocks" computes the logits again. So does "fused", and subtracts
    what it has kept of the softmax from them, which no longer fits once huge logits are rounded: it is not
    for training. Nor is it for d other than D.
    """
    b, n, m, d, d_g = sizes
    pairs, values, passes = b * n * m, b * m * (d + d_g), _passes(training)
    products = passes * pairs * (d + d_g)
    matrix = {"matrix": Cost(products, 8 * pairs, 4 * pairs)}
    if 4 * pairs <= BLOCK_BYTES:
        return matrix
    moved = 8 * passes * values * -(-4 * n * m // BLOCK_BYTES)
    if training:
        return matrix | {"blocks": Cost(products + pairs * d, moved, BLOCK_BYTES)}
    copied = 4 * (b * n * d + values)
    fused = {"fused": Cost(products, 2 * (copied + 4 * b * n * d_g), copied)} if d == d_g else {}
    return {"blocks": Cost(products, moved, BLOCK_BYTES)} | fused


def dot_product_costs(sizes: Sizes, training: bool) -> dict[str, Cost]:
    """Eq. 4, associative: "matrix" is (theta phi^T) g, "channels" is theta (phi^T g).

    The matrix is written, read and written to divide it by M, and read.
    """
    b, n, m, d, d_g = sizes
    pairs, passes = b * n * m, _passes(training)
    product = b * d * d_g
    return {
        "matrix": Cost(passes * pairs * (d + d_g), passes * 16 * pairs, 4 * pairs),
        "channels": Cost(passes * (n + m) * product, passes * 16 * product, 4 * product),
    }


def concatenation_costs(sizes: Sizes, training: bool) -> dict[str, Cost]:
    """Eq. 5: "matrix" is ReLU(a_i + b_j), "sorted" looks up prefix sums over the sorted b_j.

    The matrix is written, read and written by the ReLU, and read. Sorted, every value of g is gathered,
    multiplied and twice summed, and every value of y gathered from two sums and combined: four values of
    8 bytes, for float64, moved each.
    """
    b, n, m, _, d_g = sizes
    pairs, gathered, passes = b * n * m, 8 * b * (n + m) * d_g, _passes(training)
    return {
        "matrix": Cost(passes * pairs * d_g, passes * 16 * pairs, 4 * pairs),
        "sorted": Cost(passes * gathered // 4, passes * 4 * gathered, min(BLOCK_BYTES, 2 * gathered)),
    }


COSTS = {
    "gaussian": softmax_costs,
    "embedded_gaussian": softmax_costs,
    "dot_product": dot_product_costs,
    "concatenation": concatenation_costs,
}


def cheapest(pairwise: str, sizes: Sizes, training: bool) -> tuple[str, Cost]:
    """The way of least total cost among those that do not hold too much, if there are any, and its cost."""
    costs = COSTS[pairwise](sizes, training)
    limit = max(HELD_BYTES, 4 * sizes.b * sizes.n * (sizes.d + sizes.d_g))
    affordable = {way: cost for way, cost in costs.items() if cost.held <= limit} or costs
    return min(affordable.items(), key=lambda item: item[1].total)


def _passes(training: bool) -> int:
    """A product takes two more for its gradients."""
    return 3 if training else 1
