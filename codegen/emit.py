"""Schedule -> C text; the only file that imports jinja2. Equal inputs give equal bytes."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import jinja2
import jinja2.ext

from codegen import __version__
from codegen.board import Board
from codegen.c_literals import c_args, c_bound, c_float, literals
from codegen.c_text import comment, fold, tidy
from codegen.kernels import Kernel, load_kernels
from codegen.layer import Epilogue
from codegen.memory import Place, Schedule
from codegen.names import c_names, identifier
from codegen.plan import Plan
from codegen.ranges import Part
from codegen.resources import runtime_dir, templates_dir
from codegen.sources import Call, Function, Piece, Port, Sources
from codegen.steps import Step, Value
from codegen.types import DType

# Names in the functions of a library for several threads.
_PARALLEL = ("args", "call", "parallel_for", "part", "pool")
# Functions that kernels call; each file includes the one before it.
HEADERS = ("cg_math.h", "cg_neon.h", "cg_fp16.h")
# By isa.
_HEADER = {
    "neon": "cg_neon.h", "dotprod": "cg_neon.h", "i8mm": "cg_neon.h", "fp16": "cg_fp16.h",
}  # fmt: skip
# Weights beyond this many bytes go into a binary blob (.incbin): decimal text of 200 MB has killed
# compilers.
BLOB_BYTES = 1 << 20


class _KeepBlankLines(jinja2.ext.Extension):
    """Jinja's line statements swallow the blank lines that follow them; in C they are layout."""

    def preprocess(self, source: str, name: str | None, filename: str | None = None) -> str:
        return re.sub(r"(?m)^([ \t]*//%.*\n)(?=\n)", r"\1${''}", source)


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    env = jinja2.Environment(
        extensions=(_KeepBlankLines,),
        loader=jinja2.FileSystemLoader(templates_dir()),
        undefined=jinja2.StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        variable_start_string="${",
        variable_end_string="}",
        line_statement_prefix="//%",
        line_comment_prefix="//#",
    )
    env.globals["part"] = _part
    env.filters.update(
        when=lambda text, wanted: text if wanted else "",
        c_args=c_args,
        c_bound=c_bound,
        f32=c_float,
        comment=comment,
        prefixed=lambda text, prefix: prefix + text,
    )
    return env


@jinja2.pass_context
def _part(context: jinja2.runtime.Context, template: str, scope: Mapping[str, Any]) -> str:
    """Another kernel's template within this one, with sizes of its own in front of these."""
    return context.environment.get_template(template).render({**context.get_all(), **scope})


def render(template: str, scope: Mapping[str, Any]) -> bytes:
    """One of templates/model as text of a file."""
    text = _environment().get_template(f"model/{template}").render(**scope)
    return (fold(text) if template.endswith((".c.j2", ".h.j2")) else text).encode()


def emit(schedule: Schedule, plan: Plan, board: Board, name: str, model_name: str) -> Sources:
    """The library, its build files and its tools as text. `name` prefixes every symbol and file."""
    return Emitter(schedule, plan, board, identifier(name), model_name).sources()


class Emitter:
    """Names and rendered kernels of one library."""

    def __init__(self, schedule: Schedule, plan: Plan, board: Board, name: str, model_name: str):
        self.schedule, self.plan, self.board, self.name, self.model_name = (
            schedule,
            plan,
            board,
            name,
            model_name,
        )
        self.program = schedule.program
        ports = [
            *self.program.inputs,
            *(self.program.values[k].tensor.name for k in self.program.outputs),
        ]
        reserved = {"arena", "hook", "context", *(_PARALLEL if plan.threads > 1 else ())}
        self.port_names = c_names(ports, reserved=reserved)
        self.weight_names = c_names([w.symbol for w in self.program.weights], prefix=f"{name}_w_")
        self.functions: dict[tuple[str, str], str] = {}  # (kernel, text) -> C name
        self.bodies: dict[str, list[str]] = {}  # template folder -> function texts
        self.prototypes: list[str] = []
        self.headers: dict[str, str] = {}  # template folder -> what its functions include

    def sources(self) -> Sources:
        calls = tuple(self.call(s, i) for i, s in enumerate(self.program.steps))
        inputs = tuple(self.port(k) for k in self.program.inputs)
        outputs = tuple(self.port(k) for k in self.program.outputs)
        blob = sum(w.array.nbytes for w in self.program.weights) > BLOB_BYTES
        scope = dict(
            name=self.name,
            NAME=self.name.upper(),
            version=__version__,
            calls=calls,
            inputs=inputs,
            outputs=outputs,
            weights=[self.weight(w) for w in self.program.weights],
            prototypes=self.prototypes,
            board=self.board,
            plan=self.plan,
            threads=self.plan.threads,
            plan_sha256=self.plan.sha256,
            model_name=self.model_name,
            blob=blob,
            half=any(v.tensor.dtype == DType.F16 for v in self.program.values.values()),
            arena_bytes=max(self.schedule.arena_bytes, 64),
            members=self.members(),
            neon=self.header() != HEADERS[0],
            idle=self.idle(calls, inputs),
            traces=self.traces(calls),
        )
        return self.files(scope, calls, inputs, outputs, blob)

    def files(self, scope: dict[str, Any], calls, inputs, outputs, blob: bool) -> Sources:
        n = self.name
        files: dict[str, bytes] = {}

        def put(path: str, template: str, **more: Any) -> str:
            files[path] = render(template, {**scope, **more})
            return path

        put(f"include/{n}.h", "model.h.j2")
        put(f"src/{n}_internal.h", "internal.h.j2")
        library = [put(f"src/{n}.c", "model.c.j2"), put(f"src/{n}_static.c", "static.c.j2")]
        for folder, bodies in sorted(self.bodies.items()):
            library.append(
                put(
                    self.file(folder),
                    "kernels.c.j2",
                    folder=folder,
                    bodies=bodies,
                    header=self.headers[folder],
                )
            )
        if blob:
            files[f"src/{n}_weights.bin"], offsets = self.blob()
            library.append(put(f"src/{n}_weights.S", "weights.S.j2", offsets=offsets))
        elif self.program.weights:
            library.append(put(f"src/{n}_weights.c", "weights.c.j2"))
        pool = []
        if self.plan.threads > 1:
            library.append(put(f"src/{n}_tasks.c", "tasks.c.j2"))
            put(f"include/{n}_threads.h", "threads.h.j2")
            pool.append(put(f"src/{n}_threads.c", "threads.c.j2"))
        for header in HEADERS[: HEADERS.index(self.header()) + 1]:
            files[f"src/{header}"] = (runtime_dir() / header).read_bytes()
        scope["library"] = library
        put(f"tools/{n}_steps.c", "steps.c.j2")
        put(f"tools/{n}_steps.h", "steps.h.j2")
        put("tools/verify.c", "verify.c.j2")
        put("tools/bench.c", "bench.c.j2")
        put("CMakeLists.txt", "CMakeLists.txt.j2")
        put(f"cmake/{n}Config.cmake.in", "Config.cmake.in.j2")
        put(f"cmake/{n}.pc.in", "pc.in.j2")
        return Sources(
            n,
            files,
            calls,
            inputs,
            outputs,
            tuple(library),
            tuple(k for c in calls for k in c.step.outputs),
            tuple(pool),
            tuple(self.alone(load_kernels()[row], text, fn)
                  for (row, text), fn in self.functions.items()),
        )  # fmt: skip

    def file(self, family: str) -> str:
        """Of all kernels of a template folder."""
        return f"src/{self.name}_{family}.c"

    def alone(self, row: Kernel, text: str, fn: str) -> Function:
        """A kernel with nothing around it."""
        scope = {"header": _HEADER.get(row.isa, HEADERS[0]), "text": text}
        return Function(fn, self.file(row.family), render("kernel.c.j2", scope).decode())

    def header(self) -> str:
        """The last of HEADERS that some function includes."""
        return max(self.headers.values(), key=HEADERS.index, default=HEADERS[0])

    def idle(self, calls: tuple[Call, ...], inputs: tuple[Port, ...]) -> list[str]:
        """Parameters of `run_in` that no call reads: a network may ignore an input or need no
        arena."""
        words = {w for c in calls for w in c.words}
        return [n for n in ("arena", *(p.c_name for p in inputs)) if n not in words]

    def port(self, key: str) -> Port:
        t = self.program.values[key].tensor
        return Port(t.name, self.port_names[t.name], t.dtype.c, t)

    def members(self) -> list[tuple[str, str, int]]:
        """(type, member, elements) of the arena union: one per element type in use, bytes last."""
        used = {
            v.tensor.dtype
            for k, v in self.program.values.items()
            if k in self.schedule.places and self.schedule.places[k].kind == "arena"
        }
        used |= {s.kernel.scratch for s in self.program.steps if s.scratch_bytes}
        total = max(self.schedule.arena_bytes, 64)
        return [(d.c, d.value, total // d.size) for d in DType if d in used or d == DType.U8]

    def call(self, step: Step, number: int = 0) -> Call:
        """Line `number` (from 0) of `run`."""
        whole = Part(step.dims, (0,) * len(step.args), scratch_bytes=step.scratch_bytes)
        pieces = tuple(self.piece(step, part) for part in step.parts or (whole,))
        shape = "x".join(map(str, self.program.values[step.outputs[0]].tensor.shape))
        task = f"{self.name}_step_{number + 1}" if step.parts else ""
        text = f"{comment(step.name)}: {shape}"
        return Call(step, pieces[0].function, pieces[0].args, text, pieces, task)

    def piece(self, step: Step, part: Part) -> Piece:
        """The call that computes a part of a step."""
        scope = self.scope(step, part.dims)
        first = step.offset + part.pixels * scope["y_pitch"] + part.elements
        args = [self.argument(a, at) for a, at in zip(step.args, part.args, strict=True)]
        args += [self.expression(step.residual, part.residual)] if step.residual else []
        args += [self.expression(k, 0 if i else first) for i, k in enumerate(step.outputs)]
        if part.scratch_bytes:
            kind = step.kernel.scratch
            at = (self.schedule.scratch[step.name] + part.scratch) // kind.size
            args.append(_at(f"arena->{kind.value}", at))
        return Piece(self.function(step.kernel, scope), tuple(args))

    def argument(self, arg: str, offset: int) -> str:
        """C expression of an operand, `offset` elements in."""
        if arg.startswith("&"):
            return _at(self.weight_names[arg[1:]], offset)
        return self.expression(arg, offset)

    def expression(self, key: str, offset: int = 0) -> str:
        """C expression of a value's address, `offset` elements in."""
        place: Place = self.schedule.places[key]
        dtype = self.program.values[key].tensor.dtype
        at = place.offset // dtype.size + offset
        if place.kind == "arena":
            base = f"arena->{dtype.value}"
        else:
            base = self.port_names[self.program.values[place.name].tensor.name]
        return _at(base, at)

    def function(self, row: Kernel, scope: Mapping[str, Any]) -> str:
        """Name of the C function for a row with these sizes; where the text is the same they share
        one."""
        text = self.render(row, "@", scope)
        key = (row.name, text)
        if key not in self.functions:
            count = sum(1 for kernel, _ in self.functions if kernel == row.name) + 1
            fn = f"{self.name}_{row.name}_{count}"
            self.functions[key] = fn
            body = text.replace("@", fn)
            self.bodies.setdefault(row.family, []).append(body)
            self.prototypes.append(_prototype(body, fn))
            known = self.headers.get(row.family, HEADERS[0])
            self.headers[row.family] = max(known, _HEADER.get(row.isa, known), key=HEADERS.index)
        return self.functions[key]

    def scope(self, step: Step, dims: Mapping[str, Any]) -> dict[str, Any]:
        """What the template of a step, or of a part of it with sizes of its own, may name."""
        program, first = self.program, step.outputs[0]
        out = program.values[first].tensor
        pitch = self.schedule.places[first].pitch
        channels = step.dims.get("m", step.dims.get("c", 0))
        c_type = self.c_type(step.args[0]) if step.args else out.dtype.c
        return {
            "act": Epilogue(),
            **step.kernel.params,
            **dims,
            "fn_name": step.dims.get("fn", ""),
            "T": c_type,
            "TY": out.dtype.c,
            "y_pitch": pitch or channels,
            "to_bool": out.dtype == DType.BOOL,
        }

    def c_type(self, arg: str) -> str:
        if not arg.startswith("&"):
            return self.program.values[arg].tensor.dtype.c
        array = next(w.array for w in self.program.weights if w.symbol == arg[1:])
        return DType.of(array.dtype).c

    @staticmethod
    def render(row: Kernel, fn: str, scope: Mapping[str, Any]) -> str:
        text = _environment().get_template(row.template).render(**{**scope, "fn": fn})
        return tidy(text).strip("\n") + "\n"

    def traces(self, calls: tuple[Call, ...]) -> list[dict[str, Any]]:
        """What the verify program writes after each call: where, and how many rows of how many
        bytes."""
        out = []
        for i, call in enumerate(calls):
            for key in call.step.outputs:
                value: Value = self.program.values[key]
                place = self.schedule.places[key]
                size, channels = (
                    value.tensor.dtype.size,
                    value.tensor.shape[1] if place.pitch else 0,
                )
                rows = value.tensor.size // channels if channels else 1
                out.append(
                    dict(
                        step=i,
                        address=self.expression(key),
                        rows=rows,
                        bytes=value.bytes // rows,
                        pitch=(place.pitch or 0) * size or value.bytes,
                    )
                )
        return out

    def weight(self, w) -> dict[str, Any]:
        dtype = DType.of(w.array.dtype)
        return dict(
            name=self.weight_names[w.symbol],
            c_type=dtype.c,
            size=max(w.array.size, 1),
            node=comment(w.node),
            shape="x".join(map(str, w.array.shape)) or "scalar",
            bytes=w.array.nbytes,
            lines=lambda: literals(w.array, dtype),
        )

    def blob(self) -> tuple[bytes, list[int]]:
        """All weights in one file, each at a multiple of 64 bytes."""
        out, offsets = bytearray(), []
        for w in self.program.weights:
            out += bytes(-len(out) % 64)
            offsets.append(len(out))
            out += w.array.tobytes()
        return bytes(out), offsets


def _at(base: str, elements: int) -> str:
    return f"{base} + {elements}" if elements else base


def _prototype(body: str, fn: str) -> str:
    match = re.search(rf"^void {re.escape(fn)}\([^{{]*\)", body, re.M)
    if not match:
        raise AssertionError(f"the template of {fn} does not define `void ${{fn}}(...)`")
    return match.group(0) + ";"
