"""Object files, static archives and ELF programs -> sizes by section flag and by symbol, in bytes;
the only file that imports elftools.

Sections count as GNU `size` counts them, by flag and not by name: `size` (Berkeley format) prints
text + rodata as one figure, and data and bss as here. Alignment between sections is the linker's
business and is not in these figures.
"""

from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass
from io import BytesIO
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import Section, SymbolTableSection

from codegen.errors import CodegenError

KINDS = ("text", "rodata", "data", "bss")
_MACHINES = {"EM_AARCH64": "aarch64", "EM_X86_64": "x86-64", "EM_ARM": "arm"}

# ISO C <math.h>, without the type suffix; `codegen` may call any of them as float or double.
_MATH = """
acos asin atan atan2 cos sin tan acosh asinh atanh cosh sinh tanh exp exp2 expm1 frexp ilogb ldexp
log log10 log1p log2 logb modf scalbn scalbln cbrt fabs hypot pow sqrt erf erfc lgamma tgamma ceil
floor nearbyint rint lrint llrint round lround llround trunc fmod remainder remquo copysign nan
nextafter nexttoward fdim fmax fmin fma
"""
# What a compiler calls on its own account and every libc or libgcc has: hardened distributions
# switch on stack protection and fortified copies by default. The linker makes the offset table.
_COMPILER = {
    "__stack_chk_fail", "__stack_chk_guard", "__memcpy_chk", "__memset_chk", "__memmove_chk",
    "_GLOBAL_OFFSET_TABLE_",
}  # fmt: skip
_MEMORY = {"memcpy", "memset", "memmove"}
_FLOAT_MATH = {f"{name}f" for name in _MATH.split()}
ALLOWED_EXTERNALS = frozenset(_MEMORY | _COMPILER | _FLOAT_MATH | set(_MATH.split()))


@dataclass(frozen=True)
class Sections:
    """Bytes by kind of section: code, constants, initialised and zeroed variables."""

    text: int = 0
    rodata: int = 0
    data: int = 0
    bss: int = 0

    def __add__(self, other: "Sections") -> "Sections":
        return Sections(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def __sub__(self, other: "Sections") -> "Sections":
        return Sections(*(a - b for a, b in zip(astuple(self), astuple(other), strict=True)))

    @property
    def rom(self) -> int:
        """Bytes of flash: the initial values of variables are stored there too."""
        return self.text + self.rodata + self.data


@dataclass(frozen=True)
class Symbol:
    """A defined function or object; `section` is one of KINDS, `object` the file or member."""

    name: str
    section: str
    bytes: int
    object: str


@dataclass(frozen=True)
class Function:
    """Where a function lies in a linked program."""

    address: int
    bytes: int
    name: str


@dataclass(frozen=True)
class _Object:
    """One ELF file; `where` is its path, with the member's name in parentheses in an archive."""

    where: str
    name: str
    elf: ELFFile
    size: int


def sections(paths: Iterable[Path]) -> Sections:
    """Sum over objects, members of archives, or programs. CodegenError for anything else."""
    total = Sections()
    for obj in _objects(paths):
        for section in _parse(obj, lambda o: list(o.elf.iter_sections())):
            kind = _kind(section)
            if kind:
                total += Sections(**{kind: section["sh_size"]})
    return total


def symbols(paths: Iterable[Path]) -> list[Symbol]:
    """Functions and objects with a size, in file order; of several names for one place, the first.

    Constants without a name (vector literals, strings) and padding are in `sections` only.
    """
    return [s for obj in _objects(paths) for s in _parse(obj, _defined)]


def functions(program: Path) -> list[Function]:
    """Of a linked program, in order of address; none where it is stripped."""
    (obj,) = _objects([program])
    found = {
        symbol["st_value"]: Function(symbol["st_value"], symbol["st_size"], symbol.name)
        for symbol in _parse(obj, _symbols)
        if symbol["st_info"]["type"] == "STT_FUNC" and symbol["st_size"]
    }
    return [found[address] for address in sorted(found)]


def undefined(paths: Iterable[Path]) -> set[str]:
    """Names that must come from elsewhere at link time; weak references may stay open."""
    wanted: set[str] = set()
    have: set[str] = set()
    for obj in _objects(paths):
        for symbol in _parse(obj, _symbols):
            bind, defined = symbol["st_info"]["bind"], symbol["st_shndx"] != "SHN_UNDEF"
            if bind != "STB_LOCAL" and symbol.name:
                if defined:
                    have.add(symbol.name)
                elif bind != "STB_WEAK":
                    wanted.add(symbol.name)
    return wanted - have


def foreign_symbols(paths: Iterable[Path]) -> set[str]:
    """What `undefined` finds beyond ALLOWED_EXTERNALS: a standalone library has none."""
    return undefined(paths) - ALLOWED_EXTERNALS


def _kind(section: Section) -> str:
    flags = section["sh_flags"]
    if not flags & SH_FLAGS.SHF_ALLOC:
        return ""
    if section["sh_type"] == "SHT_NOBITS":
        return "bss"
    if flags & SH_FLAGS.SHF_EXECINSTR:
        return "text"
    return "data" if flags & SH_FLAGS.SHF_WRITE else "rodata"


def _symbols(obj: _Object) -> list:
    tables = [s for s in obj.elf.iter_sections() if isinstance(s, SymbolTableSection)]
    return [symbol for table in tables for symbol in table.iter_symbols()]


def _defined(obj: _Object) -> list[Symbol]:
    out, seen = [], set()
    kinds = [_kind(s) for s in obj.elf.iter_sections()]
    for symbol in _symbols(obj):
        index, size = symbol["st_shndx"], symbol["st_size"]
        wanted = symbol["st_info"]["type"] in ("STT_FUNC", "STT_OBJECT")
        if not wanted or not isinstance(index, int) or not size or not kinds[index]:
            continue
        place = index, symbol["st_value"]
        if place not in seen:
            seen.add(place)
            out.append(Symbol(symbol.name, kinds[index], size, obj.name))
    return out


def _objects(paths: Iterable[Path]) -> Iterator[_Object]:
    """Every ELF file in `paths`, archives opened; all of one machine."""
    machine, first = "", ""
    for path in paths:
        for where, name, data in _files(Path(path)):
            obj = _open(where, name, data)
            found = obj.elf["e_machine"]
            if found not in _MACHINES or machine not in ("", found):
                raise CodegenError(
                    where,
                    f"made for machine {_MACHINES.get(found, found)}",
                    f"{first} is for {_MACHINES[machine]}, and one library has one machine"
                    if machine
                    else f"machines: {', '.join(_MACHINES.values())}",
                    "name files of one build",
                )
            machine, first = found, first or where
            yield obj


def _files(path: Path) -> Iterator[tuple[str, str, bytes]]:
    try:
        data = path.read_bytes()
    except OSError as e:
        raise CodegenError(
            str(path), e.strerror or str(e), "an object file, archive or program", "check the path"
        ) from None
    if data.startswith(b"!<arch>\n"):
        for name, member in _members(path, data):
            yield f"{path}({name})", name, member
    else:
        yield str(path), path.name, data


def _members(path: Path, data: bytes) -> Iterator[tuple[str, bytes]]:
    """(name, content) of the files in an `ar` archive, in GNU or BSD dress; man 5 ar.

    A header is 60 bytes: name 16, date 12, owner 6, group 6, mode 8, size 10, magic 2.
    """
    at, long_names = 8, b""
    while at < len(data):
        header = data[at : at + 60]
        try:
            end = at + 60 + int(header[48:58])
            if header[58:] != b"`\n" or not at + 60 <= end <= len(data):
                raise ValueError
            raw, content = header[:16].rstrip(), data[at + 60 : end]
            if raw.startswith(b"#1/"):  # BSD: the name comes before the content
                length = int(raw[3:])
                raw, content = content[:length].rstrip(b"\0"), content[length:]
            elif raw[:1] == b"/" and raw[1:].isdigit():  # GNU: an offset into the long names
                raw = long_names[int(raw[1:]) :].split(b"/\n")[0]
        except ValueError:
            raise CodegenError(
                str(path), f"archive damaged at byte {at}", "a complete .a file", "build again"
            ) from None
        if raw == b"//":
            long_names = content
        elif raw not in (b"/", b"/SYM64/") and not raw.startswith(b"__.SYMDEF"):
            yield raw.removesuffix(b"/").decode(errors="replace"), content
        at = end + end % 2  # members start at even offsets


def _open(where: str, name: str, data: bytes) -> _Object:
    if not data.startswith(b"\x7fELF"):
        raise CodegenError(
            where,
            f"not an ELF file (it starts with {data[:4]!r})",
            "object files, static archives (not thin ones) and programs for Linux or bare metal",
            "name a .o, a .a or a program",
        )
    obj = _parse(_Object(where, name, BytesIO(data), len(data)), lambda o: ELFFile(o.elf))
    obj = _Object(where, name, obj, len(data))
    _parse(obj, _check_complete)
    return obj


def _check_complete(obj: _Object) -> None:
    for section in obj.elf.iter_sections():
        end = section["sh_offset"] + section["sh_size"]
        if section["sh_type"] != "SHT_NOBITS" and end > obj.size:
            raise ELFError(f"section {section.name!r} ends at byte {end} of {obj.size}")
    if not obj.elf.num_sections():
        raise ELFError("it has no sections")


def _parse(obj: _Object, read):
    """`read(obj)`, with what elftools raises on damaged files turned into a CodegenError."""
    try:
        return read(obj)
    except (ELFError, ValueError, LookupError, AttributeError, TypeError, AssertionError) as e:
        raise CodegenError(
            obj.where,
            f"a damaged ELF file ({str(e) or type(e).__name__})",
            "a complete one",
            "build again",
        ) from None
