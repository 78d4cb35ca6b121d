"""The two loops of which all kernels are made, in explicit vectors: dot products of rows, and sums of rows.

They are written as LLVM instructions. No compiler has to find out that a loop can be vectorised, which took
most of the time of compilation and failed silently where it could not exclude that rows overlap.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import llvmlite.binding
import llvmlite.ir as ir
from numba.core import cgutils, config, types
from numba.extending import intrinsic


def _vector_bytes() -> int:
    features = config.CPU_FEATURES  # type: ignore[attr-defined]
    if features is None:
        found = llvmlite.binding.get_host_cpu_features()
        features = ",".join(f"+{name}" for name, there in found.items() if there)
    return 64 if "+avx512f" in features else 32 if "+avx2" in features else 16


_VECTOR_BYTES = _vector_bytes()
# What two operands leave of the registers: 16 sums of 32, or 12 of 16. TALL rows are multiplied by four
# others, and WIDE sums are made of two vectors each.
TALL, WIDE = (4, 8) if _VECTOR_BYTES == 64 else (3, 6)
# Bytes within which entries change their places at once.
_GROUP_BYTES = 16


class _Loop:
    """Vectors of the rows of C-contiguous matrices."""

    def __init__(self, context: Any, builder: Any, dtype: Any) -> None:
        self.context, self.builder = context, builder
        self.scalar = context.get_value_type(dtype)
        size = context.get_abi_sizeof(self.scalar)
        self.align, self.lanes = ir.Constant(ir.IntType(32), size), _VECTOR_BYTES // size
        self.vector = ir.VectorType(self.scalar, self.lanes)
        self.zero = ir.Constant(self.vector, [0.0] * self.lanes)
        self.name = f"v{self.lanes}f{8 * size}"

    def _array(self, kind: Any, array: Any) -> Any:
        return self.context.make_array(kind)(self.context, self.builder, array)

    def entries(self, values: Any, count: int) -> list[Any]:
        """Those of a tuple."""
        return [self.builder.extract_value(values, i) for i in range(count)]

    def data(self, kind: Any, array: Any, offset: Any) -> Any:
        """A pointer to a number."""
        return self.builder.gep(self._array(kind, array).data, [offset])

    def stride(self, kind: Any, array: Any) -> Any:
        """Numbers from one row to the next."""
        return self.builder.extract_value(self._array(kind, array).shape, 1)

    def row(self, kind: Any, array: Any, index: Any, more: int = 0) -> Any:
        """A pointer to row index + more."""
        index = self.builder.add(index, ir.Constant(index.type, more))
        return self.data(kind, array, self.builder.mul(index, self.stride(kind, array)))

    def splat(self, value: Any) -> Any:
        """A vector of one number."""
        kind = ir.VectorType(value.type, self.lanes)
        first = ir.Constant(ir.IntType(32), 0)
        one = self.builder.insert_element(ir.Constant(kind, ir.Undefined), value, first)
        everywhere = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), everywhere)

    def load(self, row: Any, column: Any, mask: Any) -> Any:
        at = self._pointer(row, column)
        if mask is None:
            return self.builder.load(at, align=self.align.constant)
        return self._call("llvm.masked.load", ".p0", self.vector, [at, self.align, mask, self.zero])

    def store(self, value: Any, row: Any, column: Any, mask: Any) -> None:
        at = self._pointer(row, column)
        if mask is None:
            self.builder.store(value, at, align=self.align.constant)
        else:
            self._call("llvm.masked.store", ".p0", ir.VoidType(), [value, at, self.align, mask])

    def multiply_add(self, x: Any, y: Any, to: Any) -> None:
        """Add x y to a vector in a register."""
        total = self.builder.load(to)
        self.builder.store(self._call("llvm.fma", "", self.vector, [x, y, total]), to)

    def register(self) -> Any:
        """A vector of zeros."""
        made = cgutils.alloca_once(self.builder, self.vector)
        self.builder.store(self.zero, made)
        return made

    def totals(self, vectors: list[Any]) -> list[Any]:
        """Short vectors with the sums of the entries of each, in their order.

        Sums of neighbours first, within 16 bytes, where a shuffle is one instruction; then of halves.
        """
        shuffle, add = self.builder.shuffle_vector, self.builder.fadd
        group, count = _GROUP_BYTES // self.align.constant, self.lanes
        for _ in range(group.bit_length() - 1):
            pairs = zip(vectors[::2], [*vectors[1::2], vectors[-1]], strict=False)
            even, odd = (self._places(self._neighbours(start, group)) for start in range(2))
            vectors = [add(shuffle(x, y, even), shuffle(x, y, odd)) for x, y in pairs]
        while count > group:
            count //= 2
            low, high = (self._places(range(start, start + count)) for start in (0, count))
            vectors = [add(shuffle(x, x, low), shuffle(x, x, high)) for x in vectors]
        return vectors

    def _neighbours(self, start: int, group: int) -> list[int]:
        """Every other entry of two vectors, group by group."""
        places = range(0, self.lanes, group)
        return [
            place + i + more for place in places for more in (0, self.lanes) for i in range(start, group, 2)
        ]

    def _places(self, entries: Iterable[int]) -> Any:
        chosen = list(entries)
        return ir.Constant(ir.VectorType(ir.IntType(32), len(chosen)), chosen)

    def add_to(self, row: Any, sums: list[Any], count: int) -> None:
        """Add the first entries of short vectors to as many numbers in a row."""
        builder, size = self.builder, min(count, sums[0].type.count)
        for i, vector in enumerate(sums):
            first = builder.shuffle_vector(vector, vector, self._places(range(size)))
            at = builder.gep(row, [ir.Constant(ir.IntType(64), i * size)])
            at = builder.bitcast(at, first.type.as_pointer())
            before = builder.load(at, align=self.align.constant)
            builder.store(builder.fadd(before, first), at, align=self.align.constant)

    def over(self, columns: Any, vectors: int, body: Callable[[Any, Any], None]) -> None:
        """Call body(column, None) for some vectors at a time, body(column, mask) for each that is left."""
        builder, (first, last) = self.builder, self.entries(columns, 2)
        index = first.type
        step = ir.Constant(index, self.lanes * vectors)
        whole = builder.add(first, builder.mul(builder.sdiv(builder.sub(last, first), step), step))
        with cgutils.for_range_slice(builder, first, whole, step, index) as (column, _):
            body(column, None)
        one, places = ir.Constant(index, self.lanes), ir.VectorType(index, self.lanes)
        lanes = ir.Constant(places, list(range(self.lanes)))
        with cgutils.for_range_slice(builder, whole, last, one, index) as (column, _):
            body(column, builder.icmp_signed("<", lanes, self.splat(builder.sub(last, column))))

    def _pointer(self, row: Any, column: Any) -> Any:
        return self.builder.bitcast(self.builder.gep(row, [column]), self.vector.as_pointer())

    def _call(self, name: str, suffix: str, result: Any, values: list[Any]) -> Any:
        kind = ir.FunctionType(result, [value.type for value in values])
        function = cgutils.get_or_insert_function(self.builder.module, kind, f"{name}.{self.name}{suffix}")
        return self.builder.call(function, values)


def dots_of(tall: int, wide: int, vectors: int = 1) -> Any:
    """out[o + r, p + c] += rows[i + r] · left[j + c] for r < tall and c < wide, between two columns.

    With several vectors at a time, since a sum waits for the one before.
    """

    @intrinsic
    def dots(
        typing: Any, rows: Any, i: Any, left: Any, j: Any, out: Any, o: Any, p: Any, columns: Any
    ) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            kind = signature.args[0]
            loop = _Loop(context, builder, kind.dtype)
            tall_rows = [loop.row(kind, args[0], args[1], r) for r in range(tall)]
            wide_rows = [loop.row(kind, args[2], args[3], c) for c in range(wide)]
            several = [[[loop.register() for _ in wide_rows] for _ in tall_rows] for _ in range(vectors)]

            def body(column: Any, mask: Any) -> None:
                for v, sums in enumerate(several if mask is None else several[:1]):
                    place = builder.add(column, ir.Constant(column.type, v * loop.lanes))
                    x = [loop.load(row, place, mask) for row in tall_rows]
                    for c, row in enumerate(wide_rows):
                        y = loop.load(row, place, mask)
                        for r in range(tall):
                            loop.multiply_add(x[r], y, sums[r][c])

            loop.over(args[7], vectors, body)
            for r in range(tall):
                row = builder.gep(loop.row(kind, args[4], args[5], r), [args[6]])
                added = [[builder.load(register) for register in sums[r]] for sums in several]
                line = [functools.reduce(builder.fadd, same) for same in zip(*added, strict=True)]
                loop.add_to(row, loop.totals(line), wide)
            return context.get_dummy_value()

        whole = types.intp
        return types.void(rows, whole, left, whole, out, whole, whole, types.UniTuple(whole, 2)), generate

    return dots


def sums_of(wide: int, vectors: int = 2) -> Any:
    """out[o + c] = base[b + c] + Σ_i w_ic rows[start + i] for c < wide, between two columns.

    The sum is rounded into the row once. `some` are the start and the number of the rows, `weights` an array,
    the place of w_00 in its memory, and the steps from row to row and from sum to sum.
    """

    @intrinsic
    def sums(
        typing: Any, out: Any, o: Any, base: Any, b: Any, rows: Any, some: Any, weights: Any, columns: Any
    ) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            kind = signature.args[0]
            loop = _Loop(context, builder, kind.dtype)
            index = args[1].type
            bases = [loop.row(kind, args[2], args[3], c) for c in range(wide)]
            outs = [loop.row(kind, args[0], args[1], c) for c in range(wide)]
            start, count = loop.entries(args[5], 2)
            source, stride = loop.row(kind, args[4], start), loop.stride(kind, args[4])
            array, at, by_row, by_sum = loop.entries(args[6], 4)
            weight = loop.data(signature.args[6].types[0], array, at)

            def body(column: Any, mask: Any) -> None:
                places = [
                    builder.add(column, ir.Constant(index, v * loop.lanes))
                    for v in range(vectors if mask is None else 1)
                ]
                totals = [[loop.register() for _ in places] for _ in outs]
                with cgutils.for_range(builder, count, intp=index) as each:
                    row = builder.gep(source, [builder.mul(each.index, stride)])
                    x = [loop.load(row, place, mask) for place in places]
                    here = builder.gep(weight, [builder.mul(each.index, by_row)])
                    for c, line in enumerate(totals):
                        place = builder.gep(here, [builder.mul(by_sum, ir.Constant(index, c))])
                        factor = loop.splat(builder.load(place))
                        for v, register in enumerate(line):
                            loop.multiply_add(factor, x[v], register)
                # All loads before the first store, for which those of rows 4096 bytes apart would wait.
                changed = [
                    builder.fadd(loop.load(row, place, mask), builder.load(register))
                    for row, line in zip(bases, totals, strict=True)
                    for place, register in zip(places, line, strict=True)
                ]
                into = ((row, place) for row in outs for place in places)
                for value, (row, place) in zip(changed, into, strict=True):
                    loop.store(value, row, place, mask)

            loop.over(args[7], vectors, body)
            return context.get_dummy_value()

        whole, pair = types.intp, types.UniTuple(types.intp, 2)
        places = types.Tuple([weights.types[0], whole, whole, whole])
        return types.void(out, whole, base, whole, rows, pair, places, pair), generate

    return sums
