"""Weight-only 4-bit packing, with an optional 8-bit low-rank adapter on top.

Every matrix row is cut into groups of ``GROUP`` weights; a weight is ``minimum + code * scale`` with a 4-bit code, two codes to the byte.
Scales and minima are themselves 8-bit numbers in units of their row, which are in half precision: about 4.5 bits a weight in all.
One-dimensional tensors stay as they are. A matrix may have an adapter: ``up @ down`` is added to it, both 8-bit.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from lm_eval_inversion.precision import exact_device

GROUP = 32
LEVELS = 15
SCALE_LEVELS, MINIMUM_LEVELS, ADAPTER_LEVELS = 255, 127, 127
# A group's range is stretched by half a step at both ends. Published 4-bit models lie on the grid that spans a group exactly; rounding a
# fine-tuned copy to that grid again gives the base back and erases the training (held-out nats per prompt rose from 31.5 to 105; on the
# stretched grid to 45.8; 16 prompts).
STRETCH = (LEVELS + 1) / LEVELS
DAMPING = 0.01  # of the mean diagonal of a second moment, so that directions that the calibration never showed still count
SMALLEST = 1e-12  # keeps rows and groups of zeros from dividing by zero


def can_pack(tensor: torch.Tensor) -> bool:
    """Whether a tensor is a matrix whose rows divide into groups."""
    return tensor.ndim == 2 and tensor.shape[1] % GROUP == 0


@torch.no_grad()
def pack_tensor(weight: torch.Tensor, second_moment: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
    """Pack a matrix (rows, columns) whose columns divide by ``GROUP``.

    Args:
        second_moment: mean outer product (columns, columns) of the inputs that the matrix is multiplied with. With it, codes are
            chosen so that the products change least (``compensated_codes``); without it, every weight goes to its nearest code.

    Returns:
        ``codes`` (rows, columns / 2) uint8, ``scale`` (rows, columns / GROUP) uint8, ``minimum`` of the same shape, int8, and
        ``units`` (rows, 2) float16: what one step of scale and of minimum is worth in each row.

    Raises:
        ValueError: the columns do not divide by ``GROUP``.
    """
    rows, columns = weight.shape
    if columns % GROUP:
        raise ValueError(f"a matrix of {columns} columns cannot be packed in groups of {GROUP}")
    groups = weight.detach().float().reshape(rows, columns // GROUP, GROUP)
    low, high = groups.amin(-1), groups.amax(-1)
    middle, half = (low + high) / 2, (high - low) / 2 * STRETCH
    low = middle - half
    # Rounded up, so that no row's largest scale or minimum falls outside its 8 bits.
    units = torch.stack([(2 * half).amax(-1) / LEVELS / SCALE_LEVELS, low.abs().amax(-1) / MINIMUM_LEVELS], -1)
    units = (units * 1.001).half().clamp(min=6e-8)
    scale_unit, minimum_unit = units.float()[:, :1], units.float()[:, 1:]
    minimum = (low / minimum_unit).round().clamp(-MINIMUM_LEVELS, MINIMUM_LEVELS)
    # The scale must still reach the top from the rounded minimum.
    scale = ((middle + half - minimum * minimum_unit) / LEVELS / scale_unit).round().clamp(0, SCALE_LEVELS)
    step = (scale * scale_unit).clamp(min=SMALLEST).repeat_interleave(GROUP, 1)
    start = (minimum * minimum_unit).repeat_interleave(GROUP, 1)
    if second_moment is None:
        codes = nearest_codes(groups.reshape(rows, columns), step, start)
    else:
        codes = compensated_codes(groups.reshape(rows, columns), step, start, second_moment)
    codes = codes.to(torch.uint8)
    return {
        "codes": codes[:, 0::2] | (codes[:, 1::2] << 4),
        "scale": scale.to(torch.uint8),
        "minimum": minimum.to(torch.int8),
        "units": units,
    }


def nearest_codes(weight: torch.Tensor, step: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    """The code (0 to ``LEVELS``, as floats) nearest to each weight on the grid ``start + code * step``; all shapes equal."""
    return ((weight - start) / step).round().clamp(0, LEVELS)


def compensated_codes(weight: torch.Tensor, step: torch.Tensor, start: torch.Tensor, second_moment: torch.Tensor) -> torch.Tensor:
    """Codes chosen column by column, each column's rounding error carried over to the columns still to come.

    The procedure of GPTQ (Frantar et al. 2023, section 3) on a grid that is fixed beforehand: columns with the largest inputs go
    first, and what a column loses is made up for, as far as its inputs are correlated with theirs, by the later ones.

    Args:
        weight: (rows, columns); ``step`` and ``start`` likewise, see ``nearest_codes``.
        second_moment: (columns, columns), see ``pack_tensor``.

    Returns:
        (rows, columns) codes as floats.
    """
    order = second_moment.diagonal().argsort(descending=True)
    exact = exact_device(weight.device)
    moment = second_moment.to(exact).double()[order.to(exact)][:, order.to(exact)]
    moment.diagonal().add_(DAMPING * moment.diagonal().mean().clamp(min=SMALLEST))
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(moment))
    carry = torch.linalg.cholesky(inverse, upper=True).float().to(weight.device)
    # Columns as rows: they are visited one by one.
    left, steps, starts = (values.T[order].contiguous() for values in (weight, step, start))
    codes = torch.empty_like(left)
    for column in range(left.shape[0]):
        codes[column] = nearest_codes(left[column], steps[column], starts[column])
        error = (left[column] - (starts[column] + codes[column] * steps[column])) / carry[column, column]
        left[column + 1 :].addr_(carry[column, column + 1 :], error, alpha=-1)
    return codes[order.argsort()].T.contiguous()


@torch.no_grad()
def unpack_tensor(codes: torch.Tensor, scale: torch.Tensor, minimum: torch.Tensor, units: torch.Tensor) -> torch.Tensor:
    """The float32 matrix that ``pack_tensor`` stored."""
    rows, half_columns = codes.shape
    values = torch.stack([codes & LEVELS, codes >> 4], -1).reshape(rows, scale.shape[1], GROUP).float()
    step, start = scale.float() * units.float()[:, :1], minimum.float() * units.float()[:, 1:]
    return (values * step[..., None] + start[..., None]).reshape(rows, 2 * half_columns)


def pack_named(name: str, tensor: torch.Tensor, second_moment: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
    """One tensor as a packed state holds it: a matrix as its parts, ``NAME|PART``; anything else in float32 under its name."""
    if not can_pack(tensor):
        return {name: tensor.detach().float().contiguous()}
    return {f"{name}|{part}": value.contiguous() for part, value in pack_tensor(tensor, second_moment).items()}


def pack_adapter(name: str, down: torch.Tensor, up: torch.Tensor) -> dict[str, torch.Tensor]:
    """Pack the adapter of the matrix ``name``: down (rank, columns) and up (rows, rank), 8 bits with one unit per rank."""
    packed = {}
    # One unit per rank: the ranks of an adapter differ in size by orders of magnitude.
    for part, values in (("down", down.detach().float()), ("up", up.detach().float().T)):
        unit = (values.abs().amax(1, keepdim=True) / ADAPTER_LEVELS).clamp(min=SMALLEST)
        packed[f"{name}|{part}"] = (values / unit).round().to(torch.int8).contiguous()
        packed[f"{name}|{part}_unit"] = unit.squeeze(1).contiguous()
    return packed


def unpack_adapter(packed: dict[str, torch.Tensor], name: str) -> tuple[torch.Tensor, torch.Tensor] | None:
    """The adapter of the matrix ``name`` in float32, down (rank, columns) and up (rows, rank); None where it has none."""
    if f"{name}|down" not in packed:
        return None
    down, up = (packed[f"{name}|{key}"].float() * packed[f"{name}|{key}_unit"][:, None] for key in ("down", "up"))
    return down, up.T


def without_adapter(packed: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A packed state less its adapters."""
    parts = {"down", "down_unit", "up", "up_unit"}
    return {name: tensor for name, tensor in packed.items() if name.partition("|")[2] not in parts}


def unpacked(packed: dict[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
    """Name and float32 tensor of all that a packed state holds, adapters merged, one after another: memory holds one at a time."""
    for name, tensor in packed.items():
        base, _, part = name.partition("|")
        if not part:
            yield name, tensor
        elif part == "codes":
            matrix = unpack_tensor(*(packed[f"{base}|{key}"] for key in ("codes", "scale", "minimum", "units")))
            if adapter := unpack_adapter(packed, base):
                down, up = adapter
                matrix += up @ down
            yield base, matrix


def unpack_state(packed: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state dictionary in float32, see ``unpacked``."""
    return dict(unpacked(packed))
