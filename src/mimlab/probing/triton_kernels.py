# mypy: disable-error-code="no-untyped-def,untyped-decorator"
"""The two kernels behind `mimlab.probing.triton_rows`: importing this module needs triton.

Both see attention in blocks of queries times patch keys, and neither writes a block to memory. In logarithms to base
2, with m the largest logit of a row and e = 2^(logit - m):

`attend_rows`, a program for each block of queries: m, Σ e, Σ e log2 e, Σ e², Σ e·distance and Σ e·v in one pass over
the patch keys, all shifted by the running m, so that the entropy log Σ e - Σ e log e / Σ e is a sum of two terms of
one sign. The prefix columns come in at the end, by log-sum-exp. Rows keep m, 1/Σe and 1/sqrt(Σe²).

`sum_columns`, a program for each block of keys: the weights again, over all queries, from the rows' m: Σ_i a_ij and
Σ_i a_ij/‖a_i‖. Keys stand along the rows of its products, so that a sum over queries stays within a thread.

Sums within a block are in float32, those over blocks of queries in float64.
"""

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)
MASKED = tl.constexpr(-1e30)  # finite: 0 · MASKED is 0, where 0 · -inf is nan
SCALARS = tl.constexpr(4)  # of a row's seven values the last, which are summed over the rows
AT_A_TIME = tl.constexpr(256)  # rows that are then summed


@triton.jit
def _load(start, rows, row_stride, dim_stride, D: tl.constexpr, WIDTH: tl.constexpr):
    """Rows of a matrix of D columns, with zeros up to WIDTH."""
    dims = tl.arange(0, WIDTH)
    pointers = start + rows[:, None] * row_stride + dims[None, :] * dim_stride
    if D == WIDTH:
        return tl.load(pointers)
    return tl.load(pointers, mask=dims[None, :] < D, other=0.0)


@triton.jit
def _bias(bias, rows, columns, row_stride, column_stride):
    """Bias of some queries and keys, to base 2."""
    added = tl.load(bias + rows[:, None] * row_stride + columns[None, :] * column_stride)
    return added.to(tl.float32) * LOG2E


@triton.jit
def _seen(s):
    """Logits whose mask is finite; nan stays nan."""
    return tl.maximum(s, MASKED, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _block(
    q, k, v, bias, output, values, first, factor, patches, plane, step_y, step_x,
    q_row, q_dim, k_row, k_dim, v_row, v_dim, bias_row, bias_column, output_row,
    PREFIX: tl.constexpr, GRID: tl.constexpr, D: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr,
    KEYS: tl.constexpr, FEW: tl.constexpr, BIAS: tl.constexpr, EVEN: tl.constexpr, PRECISION: tl.constexpr,
    STATISTICS: tl.constexpr,
):  # fmt: skip
    """A block of query tokens `first`..: patches with their statistics, or prefix tokens with neither."""
    index = first + tl.arange(0, BLOCK)
    if STATISTICS:
        there = index < patches
        tokens = PREFIX + tl.minimum(index, patches - 1)
        y, x = index // GRID * step_y, index % GRID * step_x
    else:
        there = index < PREFIX
        tokens = tl.minimum(index, PREFIX - 1)
    query = _load(q, tokens, q_row, q_dim, D, WIDTH)
    tl.assume(patches > 0)  # a loop that may not run would make the compiler take its products one by one
    top = tl.full([BLOCK], MASKED, tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    logs = tl.zeros([BLOCK], tl.float32)
    squares = tl.zeros([BLOCK], tl.float32)
    far = tl.zeros([BLOCK], tl.float32)
    mixed = tl.zeros([BLOCK, WIDTH], tl.float32)
    for start in tl.range(0, patches, KEYS):
        column = start + tl.arange(0, KEYS)
        key_tokens = PREFIX + (column if EVEN else tl.minimum(column, patches - 1))
        key = _load(k, key_tokens, k_row, k_dim, D, WIDTH)
        s = tl.dot(query, tl.trans(key), input_precision=PRECISION)
        if BIAS:
            s = _seen(s * factor + _bias(bias, tokens, key_tokens, bias_row, bias_column))
        if not EVEN:
            s = tl.where((column < patches)[None, :], s, MASKED)
        if BIAS:
            new = tl.maximum(top, tl.max(s, 1))
            log = s - new[:, None]
        else:  # the factor after the maximum: then product and difference are one instruction
            new = tl.maximum(top, tl.max(s, 1) * factor)
            log = s * factor - new[:, None]
        e = tl.exp2(log)
        shift = top - new
        keep = tl.exp2(shift)
        if STATISTICS:
            if KEYS % GRID == 0:  # whole rows of the grid: what no block of keys changes is hoisted
                local = tl.arange(0, KEYS)
                dy = (y - start // GRID * step_y)[:, None] - (local // GRID * step_y)[None, :]
                dx = x[:, None] - (local % GRID * step_x)[None, :]
            else:
                dy = y[:, None] - (column // GRID * step_y)[None, :]
                dx = x[:, None] - (column % GRID * step_x)[None, :]
            logs = keep * (logs + shift * total) + tl.sum(e * log, 1)
            squares = keep * keep * squares + tl.sum(e * e, 1)
            far = keep * far + tl.sum(e * tl.sqrt(dy * dy + dx * dx), 1)
        total = keep * total + tl.sum(e, 1)
        value = _load(v, key_tokens, v_row, v_dim, D, WIDTH)
        mixed = tl.dot(e.to(value.dtype), value, mixed * keep[:, None], input_precision=PRECISION)
        top = new
    inverse = 1.0 / total
    if BIAS:  # a query that sees no patch has no row
        inverse = tl.where(top > 0.5 * MASKED, inverse, float("nan"))
        squares = tl.where(top > 0.5 * MASKED, squares, float("nan"))
    mass = tl.zeros([BLOCK], tl.float32)
    if PREFIX > 0:
        column = tl.arange(0, FEW)
        key_tokens = tl.minimum(column, PREFIX - 1)
        s = tl.dot(query, tl.trans(_load(k, key_tokens, k_row, k_dim, D, WIDTH)), input_precision=PRECISION)
        if BIAS:
            s = _seen(s * factor + _bias(bias, tokens, key_tokens, bias_row, bias_column))
        else:
            s *= factor
        s = tl.where((column < PREFIX)[None, :], s, MASKED)
        new = tl.maximum(top, tl.max(s, 1))
        e = tl.exp2(s - new[:, None])
        keep = tl.exp2(top - new)
        taken = tl.sum(e, 1)
        share = 1.0 / (keep * total + taken)
        value = _load(v, key_tokens, v_row, v_dim, D, WIDTH)
        mixed = tl.dot(e.to(value.dtype), value, mixed * keep[:, None], input_precision=PRECISION)
        mixed *= share[:, None]
        mass = taken * share
    else:
        mixed *= inverse[:, None]
    dims = tl.arange(0, WIDTH)
    tl.store(
        output + tokens[:, None] * output_row + dims[None, :],
        mixed.to(output.dtype.element_ty),
        mask=there[:, None] & (dims < D)[None, :],
    )
    if STATISTICS:
        values += index
        tl.store(values, top, mask=there)
        tl.store(values + plane, inverse, mask=there)
        tl.store(values + 2 * plane, tl.rsqrt(squares), mask=there)
        tl.store(values + 3 * plane, (tl.log2(total) - logs * inverse) * LN2, mask=there)
        tl.store(values + 4 * plane, squares * inverse * inverse, mask=there)
        tl.store(values + 5 * plane, far * inverse, mask=there)
        tl.store(values + 6 * plane, mass, mask=there)


@triton.jit
def attend_rows(
    q, k, v, bias, output, values, factor, heads, patches, plane, step_y, step_x,
    q_image, q_head, q_row, q_dim, k_image, k_head, k_row, k_dim, v_image, v_head, v_row, v_dim,
    bias_image, bias_head, bias_row, bias_column, output_image, output_head, output_row,
    PREFIX: tl.constexpr, GRID: tl.constexpr, D: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr,
    KEYS: tl.constexpr, FEW: tl.constexpr, BIAS: tl.constexpr, EVEN: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Output of every token, and of every patch row: values (7, maps, patches).

    They are m, 1/Σe, 1/sqrt(Σe²), and the row's entropy, squared norm, distance and prefix mass.
    """
    blocks = tl.cdiv(patches, ROWS)
    programs = blocks + (1 if PREFIX > 0 else 0)
    block = tl.program_id(0) % programs
    chart = (tl.program_id(0) // programs).to(tl.int64)
    image, head = chart // heads, chart % heads
    q += image * q_image + head * q_head
    k += image * k_image + head * k_head
    v += image * v_image + head * v_head
    bias += image * bias_image + head * bias_head
    output += image * output_image + head * output_head
    values += chart * patches
    plane = tl.cast(plane, tl.int64)
    if block < blocks:
        _block(
            q, k, v, bias, output, values, block * ROWS, factor, patches, plane, step_y, step_x,
            q_row, q_dim, k_row, k_dim, v_row, v_dim, bias_row, bias_column, output_row,
            PREFIX, GRID, D, WIDTH, ROWS, KEYS, FEW, BIAS, EVEN, PRECISION, True,
        )  # fmt: skip
    else:  # the prefix tokens are few: a small block, without statistics
        _block(
            q, k, v, bias, output, values, 0, factor, patches, plane, step_y, step_x,
            q_row, q_dim, k_row, k_dim, v_row, v_dim, bias_row, bias_column, output_row,
            PREFIX, GRID, D, WIDTH, FEW, KEYS, FEW, BIAS, EVEN, PRECISION, False,
        )  # fmt: skip


@triton.jit
def sum_columns(
    q, k, bias, values, scalars, vectors, factor, heads, patches, charts,
    q_image, q_head, q_row, q_dim, k_image, k_head, k_row, k_dim,
    bias_image, bias_head, bias_row, bias_column,
    PREFIX: tl.constexpr, D: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
    BIAS: tl.constexpr, EVEN: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Sums over the patch queries: vectors (2, maps, patches) and scalars (4, maps), both float64."""
    blocks = tl.cdiv(patches, KEYS)
    block = tl.program_id(0) % blocks
    chart = (tl.program_id(0) // blocks).to(tl.int64)
    image, head = chart // heads, chart % heads
    plane = tl.cast(charts, tl.int64) * patches
    q += image * q_image + head * q_head
    k += image * k_image + head * k_head
    bias += image * bias_image + head * bias_head
    values += chart * patches
    column = block * KEYS + tl.arange(0, KEYS)
    key_tokens = PREFIX + tl.minimum(column, patches - 1)
    key = _load(k, key_tokens, k_row, k_dim, D, WIDTH)
    tl.assume(patches > 0)
    row_sum = tl.zeros([KEYS], tl.float64)
    unit_sum = tl.zeros([KEYS], tl.float64)
    for start in tl.range(0, patches, ROWS):
        index = start + tl.arange(0, ROWS)
        if EVEN:
            tokens = PREFIX + index
            top = tl.load(values + index)
            weight = tl.load(values + plane + index)
            unit = tl.load(values + 2 * plane + index)
        else:
            there = index < patches
            tokens = PREFIX + tl.minimum(index, patches - 1)
            top = tl.load(values + index, mask=there, other=float("inf"))
            weight = tl.load(values + plane + index, mask=there, other=0.0)
            unit = tl.load(values + 2 * plane + index, mask=there, other=0.0)
        query = _load(q, tokens, q_row, q_dim, D, WIDTH)
        s = tl.dot(key, tl.trans(query), input_precision=PRECISION)
        if BIAS:
            added = tl.trans(_bias(bias, tokens, key_tokens, bias_row, bias_column))
            s = _seen(s * factor + added)
            e = tl.exp2(s - top[None, :])
        else:
            e = tl.exp2(s * factor - top[None, :])
        row_sum += tl.sum(e * weight[None, :], 1).to(tl.float64)
        unit_sum += tl.sum(e * unit[None, :], 1).to(tl.float64)
    vectors += chart * patches + column
    tl.store(vectors, row_sum, mask=column < patches)
    tl.store(vectors + plane, unit_sum, mask=column < patches)
    if block == 0:
        for kind in tl.static_range(SCALARS):
            total = tl.zeros([AT_A_TIME], tl.float64)
            for start in tl.range(0, patches, AT_A_TIME):
                index = start + tl.arange(0, AT_A_TIME)
                some = tl.load(values + (3 + kind) * plane + index, mask=index < patches, other=0.0)
                total += some.to(tl.float64)
            tl.store(scalars + kind * charts + chart, tl.sum(total))
