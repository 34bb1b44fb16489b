"""Content digests of the code that a rule uses, one per top-level definition.

Snakemake notices a changed script by its modification time and never looks into imported modules, so
`touch` retrains everything and a changed helper retrains nothing. Here the source is read instead: from
the roots of a rule, every function, class and module-level assignment that they can reach inside the
package is found with `ast` (nothing is imported or run) and digested without comments, layout, docstrings
and annotations.

Not followed: names in strings ("memorization.data.patterns:mij", `importlib`), data files, and subclasses or
decorated functions that enter themselves into a registry (unless the decorator's name contains "register").
Whoever dispatches on such a name gives it as a root of its own. In doubt the closure is too large rather than
too small: a module handed around as an object counts whole.
"""

import difflib
import hashlib
from ast import stmt
from collections.abc import Iterable
from functools import cache, lru_cache
from pathlib import Path

from memorization.errors import UserError
from memorization.provenance.syntax import IMPORT, FindUses, Module, Target, read_module, serialize

PACKAGE_ROOT = Path(__file__).resolve().parents[1]
ALL = "(all)"  # "memorization.x:(all)" stands for every definition of a module
SILENT_ATTRIBUTES = {"__file__", "__name__", "__path__", "__package__", "__doc__"}
Snapshot = tuple[tuple[Path, int, int], ...]


# what is said in logs and errors never changes a number
WITHOUT_EFFECT = ("memorization.provenance.logs:", "memorization.errors:", "memorization.training.lease:")


def definitions(roots: Iterable[str | Path], *, package_root: Path = PACKAGE_ROOT) -> dict[str, str]:
    """Digest everything that `roots` use inside the package.

    A root is a script ("workflow/scripts/train.py"), a module ("memorization.figures.style") or one
    top-level definition ("memorization.data.patterns:mij"). Returns {name: 12 hex digits} sorted by name,
    where names look like the last kind of root; "module:(import)" stands for the statements that importing
    a module runs for their effect. Modules of `WITHOUT_EFFECT` are left out: they cannot change a result.
    Raises UserError for a root that does not exist.
    """
    package_root = Path(package_root).resolve()
    package = _package(package_root, _snapshot(package_root))
    waiting = [package.root(str(root)) for root in roots]
    reached: set[str] = set()
    while waiting:
        key = waiting.pop()
        if key not in reached:
            reached.add(key)
            waiting.extend(package.look_up(key)[0])
    counted = (key for key in sorted(reached) if not key.startswith(WITHOUT_EFFECT))
    return {key: package.look_up(key)[1] for key in counted if package.statements(key)}


def code_params(roots: Iterable[str | Path], *, package_root: Path = PACKAGE_ROOT) -> dict[str, str]:
    """Like `definitions`, with values "name@digest", so that Snakemake's reason to re-run names it."""
    return {key: f"{key}@{digest}" for key, digest in definitions(roots, package_root=package_root).items()}


def explain(old: dict[str, str], new: dict[str, str]) -> list[str]:
    """Say in sentences how two results of `definitions` differ; an empty list when they do not."""
    sentences = []
    for name in sorted(old.keys() | new.keys()):
        if name not in new:
            sentences.append(f"{name} is no longer used.")
        elif name not in old:
            sentences.append(f"{name} is used now and was not before.")
        elif old[name] != new[name]:
            sentences.append(f"{name} has changed ({old[name]} before, {new[name]} now).")
    return sentences


def _snapshot(package_root: Path) -> Snapshot:
    """Every source file of the package with its modification time (ns) and size (bytes)."""
    if not package_root.is_dir():
        raise UserError(f"there is no package folder {package_root}: write the folder that holds __init__.py")
    stats = ((path, path.stat()) for path in sorted(package_root.rglob("*.py")))
    return tuple((path, stat.st_mtime_ns, stat.st_size) for path, stat in stats)


@cache
def _read(path: Path, name: str, is_package: bool, mtime: int, size: int) -> Module:
    """Read one file; `mtime` and `size` are there for the cache to notice an edit."""
    try:
        return read_module(path.read_text(encoding="utf-8"), name, is_package)
    except SyntaxError as error:
        raise UserError(f"cannot read the code in {path}, line {error.lineno}: {error.msg}") from error


@lru_cache(maxsize=8)
def _package(package_root: Path, snapshot: Snapshot) -> "_Package":
    return _Package(package_root, snapshot)


class _Package:
    """All modules in one state of the package. Definitions have keys "module:name", each looked up once."""

    def __init__(self, package_root: Path, snapshot: Snapshot):
        self.name, self.repository = package_root.name, package_root.parents[1]
        self.files: dict[str, tuple[Path, str, bool, int, int]] = {}
        for path, mtime, size in snapshot:
            parts = (self.name, *path.relative_to(package_root).with_suffix("").parts)
            is_package = parts[-1] == "__init__"
            name = ".".join(parts[:-1] if is_package else parts)
            self.files[name] = (path, name, is_package, mtime, size)
        self.folders = {parent for name in self.files for parent in _prefixes(name)}
        self.modules: dict[str, Module] = {}
        self.known: dict[str, tuple[set[str], str]] = {}

    def module(self, name: str) -> Module | None:
        """The module of that name; a folder without __init__.py is an empty one; None outside the package."""
        if name not in self.modules:
            if name in self.files:
                self.modules[name] = _read(*self.files[name])
            elif name in self.folders:
                self.modules[name] = Module(name, is_package=True)
        return self.modules.get(name)

    def statements(self, key: str) -> list[stmt]:
        """The normalized statements that make up one definition."""
        module_name, _, name = key.rpartition(":")
        module = self.module(module_name)
        return module.definitions.get(name, []) if module else []

    def root(self, text: str) -> str:
        """The key that a root stands for."""
        if text.endswith(".py"):
            return f"{self._script(Path(text))}:{ALL}"
        module_name, _, name = text.partition(":")
        module = self.module(module_name)
        if module is None:
            raise UserError(f"code root {text!r}: no module {module_name!r}{_nearest(module_name, self.files)}")
        if not name:
            return f"{module_name}:{ALL}"
        for key in sorted(self.resolve((module_name, name))):
            if self.statements(key) and not key.endswith(":__getattr__"):
                return key
        others = [f"{module_name}:{other}" for other in (*module.definitions, *module.imports)]
        raise UserError(
            f"code root {text!r}: {module_name} defines no {name!r} at its top level{_nearest(text, others)}"
        )

    def _script(self, path: Path) -> str:
        """Read a script, named by its path from the repository so that every clone has the same digests."""
        bases = [self.repository, Path.cwd()]
        found = next((base / path for base in bases if (base / path).is_file()), None)
        if found is None:
            near = (other.name for base in bases for other in (base / path.parent).glob("*.py"))
            others = {str(path.with_name(name)) for name in near}
            raise UserError(f"code root {str(path)!r}: no such script{_nearest(str(path), others)}")
        found = found.resolve()
        inside = found.is_relative_to(self.repository)
        name = found.relative_to(self.repository).as_posix() if inside else found.name
        stat = found.stat()
        module = _read(found, name, False, stat.st_mtime_ns, stat.st_size)
        if self.modules.get(name) is not module:
            self.modules[name] = module
            self.known = {key: value for key, value in self.known.items() if not key.startswith(f"{name}:")}
        return name

    def look_up(self, key: str) -> tuple[set[str], str]:
        """The keys that one definition uses directly, and its digest."""
        if key not in self.known:
            module_name, _, name = key.rpartition(":")
            self.known[key] = (self._members(module_name), "") if name == ALL else self._look_up(module_name, name)
        return self.known[key]

    def _members(self, module_name: str) -> set[str]:
        """Keys of all that a module defines; a package stands for its submodules and re-exports too."""
        module = self.module(module_name)
        assert module is not None
        keys = {f"{module_name}:{name}" for name in (*module.definitions, IMPORT)}
        if module.is_package:
            keys |= {f"{name}:{ALL}" for name in self.folders if name.rpartition(".")[0] == module_name}
            keys |= {f"{star}:{ALL}" for star in module.stars if self.module(star)}
            targets = [target for targets in module.imports.values() for target in targets if target[1]]
            keys |= {key for target in targets for key in self.resolve(target) if not key.endswith(":")}
        return keys

    def _look_up(self, module_name: str, name: str) -> tuple[set[str], str]:
        module = self.module(module_name)
        assert module is not None
        statements = module.definitions.get(name, [])
        visitor = FindUses(module)
        for statement in statements:
            visitor.visit(statement)
        keys = {f"{module_name}:{IMPORT}"}
        meanings = set()  # the same text means something else when an import above it changes
        for targets, (first, *attributes) in visitor.used:
            for target in targets or [(module_name, first)]:
                found = self.resolve(target, tuple(attributes), local=targets is None)
                keys |= {key for key in found if not key.endswith(":")}
                meanings |= {f"{'.'.join((first, *attributes))}={key}" for key in found}
        for load in visitor.loads | (module.loads if name == IMPORT else set()):
            keys |= {f"{other}:{IMPORT}" for other in _prefixes(".".join(filter(None, load))) if self.module(other)}
        text = "\n".join([serialize(statements), *sorted(meanings)])
        return keys, hashlib.sha256(text.encode()).hexdigest()[:12]

    def resolve(
        self,
        target: Target,
        attributes: tuple[str, ...] = (),
        *,
        local: bool = False,
        seen: frozenset[Target] = frozenset(),
    ) -> set[str]:
        """Follow a target and then attributes, through re-exports, to the keys of definitions.

        What lies outside the package comes back as "numpy.linalg:". A name that its module does not have is a
        builtin if used in the module itself (`local`); from elsewhere, any definition there may be meant.
        """
        module_name, name = target
        module = self.module(module_name)
        if module is None:
            return {".".join(filter(None, target)) + ":"}
        if name is None:
            if not attributes:
                return {f"{module_name}:{ALL}"}
            return self.resolve((module_name, attributes[0]), attributes[1:], seen=seen)
        if target in seen:
            return set()
        seen |= {target}
        found = {f"{module_name}:{name}"} if name in module.definitions else set()
        for other in module.imports.get(name, []):
            found |= self.resolve(other, attributes, seen=seen)
        if not found and module.is_package and self.module(f"{module_name}.{name}"):
            return self.resolve((f"{module_name}.{name}", None), attributes, seen=seen)
        if not found and not local and not module.stars and "__getattr__" in module.definitions:
            return {f"{module_name}:__getattr__"}
        if not found:
            stars = (self.resolve((star, name), attributes, local=True, seen=seen) for star in module.stars)
            found = {key for keys in stars for key in keys if not key.endswith(":")}
        return found if found or local or name in SILENT_ATTRIBUTES else {f"{module_name}:{ALL}"}


def _prefixes(name: str) -> list[str]:
    """["a", "a.b", "a.b.c"] for "a.b.c"."""
    parts = name.split(".")
    return [".".join(parts[: n + 1]) for n in range(len(parts))]


def _nearest(wrong: str, known: Iterable[str]) -> str:
    """A suggestion that ends an error message, empty if nothing is near."""
    near = difflib.get_close_matches(wrong, sorted(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""
