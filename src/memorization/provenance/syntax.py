"""What one source file binds, uses and means, read from its syntax tree without running it (for `source`)."""

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

IMPORT = "(import)"  # stands for the statements that importing a module runs for their effect
MAIN = "(main)"  # and for those under `if __name__ == "__main__"`
ANNOTATION_READERS = {
    "register",
    "validate_call",
}  # singledispatch and pydantic: there an annotation is behavior
SKIPPED_FIELDS = {"ctx", "kind", "type_comment", "type_params", "type_ignores"}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
BLOCKS = ("body", "orelse", "finalbody")
COMPOUND = (ast.If, ast.Try, ast.TryStar, ast.For, ast.While, ast.With)

# ("memorization.x", "f") for `from memorization.x import f`, ("memorization.x", None) for a module
Target = tuple[str, str | None]
# A dotted name as written, and the targets when an import inside the body binds its first part.
Use = tuple[tuple[Target, ...] | None, tuple[str, ...]]


@dataclass
class Module:
    """The top level of one file. `loads` is what importing it imports in turn."""

    name: str
    is_package: bool
    definitions: dict[str, list[ast.stmt]] = field(default_factory=dict)
    imports: dict[str, list[Target]] = field(default_factory=dict)
    stars: list[str] = field(default_factory=list)
    loads: set[Target] = field(default_factory=set)

    def define(self, name: str, statement: ast.stmt) -> None:
        """Count a statement as (part of) the definition of a name."""
        found = self.definitions.setdefault(name, [])
        if not any(statement is other for other in found):
            found.append(statement)

    def bound_by(self, node: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, Target, Target]]:
        """Yield (bound name, what it is bound to, what gets loaded) for each name of an import statement."""
        if isinstance(node, ast.Import):
            for alias in node.names:
                bound = alias.asname or alias.name.partition(".")[0]
                yield bound, (alias.name if alias.asname else bound, None), (alias.name, None)
            return
        base = node.module or ""
        if node.level:
            parts = self.name.split(".")
            parts = parts[: len(parts) + self.is_package - node.level]
            base = ".".join(filter(None, [*parts, node.module]))
        for alias in node.names:
            yield alias.asname or alias.name, (base, alias.name), (base, alias.name)


def read_module(source: str, name: str, is_package: bool) -> Module:
    """Sort the top-level statements of a file into definitions, imports and effects; raises SyntaxError."""
    module = Module(name, is_package)
    for statement in normalize(ast.parse(source).body):
        _index(module, statement, statement)
    return module


def _index(module: Module, statement: ast.stmt, whole: ast.stmt) -> None:
    """File one statement; `whole` is the outermost `if` or `try` around it, which then counts in full."""
    if isinstance(statement, (*FUNCTIONS, ast.ClassDef)):
        module.define(statement.name, whole)
        if any("register" in name for name in _decorators(statement)):
            mention = ast.Expr(ast.Name(statement.name, ast.Load()))  # so that importing it uses it
            module.define(IMPORT, mention)
    elif isinstance(statement, ast.Import | ast.ImportFrom):
        _index_import(module, statement)
        module.loads.update(load for _, _, load in module.bound_by(statement))
    elif isinstance(statement, ast.Assign | ast.AugAssign):
        heads = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        for leaf in (leaf for head in heads for leaf in _leaves(head)):
            module.define(leaf.id if isinstance(leaf, ast.Name) else IMPORT, whole)
    elif isinstance(statement, ast.If) and _last_name(statement.test) == "TYPE_CHECKING":
        for inner in statement.orelse:
            _index(module, inner, inner)
    elif isinstance(statement, ast.If) and "__main__" in ast.dump(statement.test):
        module.define(MAIN, statement)
        for node in ast.walk(statement):
            if isinstance(node, ast.Import | ast.ImportFrom):
                _index_import(module, node)
    elif isinstance(statement, COMPOUND):
        for name in _bound_by_head(statement):
            module.define(name, whole)
        for inner in _inner_statements(statement):
            _index(module, inner, whole)
    else:  # an expression such as plt.style.use(...), or del, assert, raise
        module.define(IMPORT, whole)


def _index_import(module: Module, node: ast.Import | ast.ImportFrom) -> None:
    for bound, target, _ in module.bound_by(node):
        if bound == "*":
            module.stars.append(target[0])
        else:
            module.imports.setdefault(bound, []).append(target)


def _last_name(node: ast.expr) -> str:
    """`b` in `a.b`, `a.b()` and `b`."""
    node = node.func if isinstance(node, ast.Call) else node
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _decorators(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> list[str]:
    return [_last_name(decorator) for decorator in node.decorator_list]


def _leaves(target: ast.expr) -> Iterator[ast.expr]:
    """The single targets in `a, (b, *c) = ...`."""
    if isinstance(target, ast.Tuple | ast.List):
        for element in target.elts:
            yield from _leaves(element)
    else:
        yield target.value if isinstance(target, ast.Starred) else target


def _inner_statements(statement: ast.stmt) -> Iterator[ast.stmt]:
    for block in BLOCKS:
        yield from getattr(statement, block, [])
    for handler in getattr(statement, "handlers", []):
        yield from handler.body


def _bound_by_head(statement: ast.stmt) -> set[str]:
    """Names that the head of a `for` or `with` binds."""
    heads = [statement.target] if isinstance(statement, ast.For) else []
    heads += [item.optional_vars for item in getattr(statement, "items", []) if item.optional_vars]
    return {leaf.id for head in heads for leaf in _leaves(head) if isinstance(leaf, ast.Name)}


class FindUses(ast.NodeVisitor):
    """Collect the dotted names that a statement takes from outside itself, with Python's scoping.

    A scope maps each local name to the targets of its imports; a plain variable has none, but hides the
    module's definition of the same name.
    """

    def __init__(self, module: Module):
        self.module = module
        self.scopes: list[dict[str, list[Target]]] = []
        self.used: set[Use] = set()
        self.loads: set[Target] = set()

    def _use(self, name: str, attributes: Iterable[str] = ()) -> None:
        for scope in reversed(self.scopes):
            if name in scope:
                if scope[name]:
                    self.used.add((tuple(scope[name]), (name, *attributes)))
                return
        self.used.add((None, (name, *attributes)))

    def visit_Name(self, node: ast.Name) -> None:
        self._use(node.id)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        attributes, base = [node.attr], node.value
        while isinstance(base, ast.Attribute):
            attributes.append(base.attr)
            base = base.value
        if isinstance(base, ast.Name):
            self._use(base.id, reversed(attributes))
        else:
            self.visit(base)

    def visit_Import(self, node: ast.Import | ast.ImportFrom) -> None:
        self.loads.update(load for _, _, load in self.module.bound_by(node))

    visit_ImportFrom = visit_Import

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> None:
        arguments = _arguments(node.args)
        outside = [*getattr(node, "decorator_list", []), *node.args.defaults, *node.args.kw_defaults]
        outside += [getattr(node, "returns", None), *(argument.annotation for argument in arguments)]
        for part in filter(None, outside):
            self.visit(part)
        body: list[Any] = node.body if isinstance(node.body, list) else [node.body]
        self._visit_in({argument.arg: [] for argument in arguments} | self._locals(body), body)

    visit_AsyncFunctionDef = visit_Lambda = visit_FunctionDef

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for part in [*node.decorator_list, *node.bases, *(keyword.value for keyword in node.keywords)]:
            self.visit(part)
        # Methods do not see the names of their class, so only its imports make a scope.
        self._visit_in({name: found for name, found in self._locals(node.body).items() if found}, node.body)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.generic_visit(node)
        for text in ast.walk(node.annotation):  # "Spec" in quotes, which pydantic looks up
            if isinstance(text, ast.Constant) and isinstance(text.value, str) and text.value.isidentifier():
                self._use(text.value)

    def visit_ListComp(self, node: Any) -> None:
        first = node.generators[0]
        self.visit(first.iter)  # evaluated outside, where the loop variables are not bound yet
        inside = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        for part in node.generators:
            inside += [part.target, *part.ifs, *([] if part is first else [part.iter])]
        names = [name for part in node.generators for name in ast.walk(part.target)]
        stored = (name for name in names if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store))
        self._visit_in({name.id: [] for name in stored}, inside)

    visit_SetComp = visit_DictComp = visit_GeneratorExp = visit_ListComp

    def _visit_in(self, scope: dict[str, list[Target]], nodes: Iterable[ast.AST]) -> None:
        self.scopes.append(scope)
        for node in nodes:
            self.visit(node)
        self.scopes.pop()

    def _locals(self, body: Iterable[ast.AST]) -> dict[str, list[Target]]:
        """Names bound in a function body and so local in all of it; inner scopes have their own."""
        scope: dict[str, list[Target]] = {}
        elsewhere: set[str] = set()
        waiting = list(body)
        while waiting:
            node = waiting.pop()
            if isinstance(node, ast.Name):
                if isinstance(node.ctx, ast.Store):
                    scope.setdefault(node.id, [])
            elif isinstance(node, ast.Import | ast.ImportFrom):
                for bound, target, _ in self.module.bound_by(node):
                    scope.setdefault(bound, []).append(target)
            elif isinstance(node, ast.Global | ast.Nonlocal):
                elsewhere.update(node.names)
            elif isinstance(node, (*FUNCTIONS, ast.ClassDef)):
                scope.setdefault(node.name, [])
            elif isinstance(node, ast.comprehension):
                waiting += [node.iter, *node.ifs]  # for the sake of `:=`, which binds outside
            elif not isinstance(node, ast.Lambda | ast.Constant):
                caught = getattr(node, "name", None) or getattr(node, "rest", None)  # `except` and `match`
                if isinstance(caught, str):
                    scope.setdefault(caught, [])
                waiting += ast.iter_child_nodes(node)
        return {name: targets for name, targets in scope.items() if name not in elsewhere}


def normalize(statements: Iterable[ast.stmt], in_class: bool = False) -> list[ast.stmt]:
    """Remove what changes no behavior: idle constants (docstrings), `pass`, annotations.

    Annotations in class bodies stay, since dataclasses and pydantic read them.
    """
    kept: list[ast.stmt] = []
    for statement in statements:
        if isinstance(statement, ast.Pass):
            continue
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            continue
        if isinstance(statement, ast.AnnAssign) and not in_class:
            if statement.value:
                kept.append(ast.Assign(targets=[statement.target], value=statement.value))
            continue
        if isinstance(statement, FUNCTIONS) and not ANNOTATION_READERS.intersection(_decorators(statement)):
            statement.returns = None
            for argument in _arguments(statement.args):
                argument.annotation = None
        fields = isinstance(statement, ast.ClassDef) or (in_class and not isinstance(statement, FUNCTIONS))
        for block in BLOCKS:
            if hasattr(statement, block):
                setattr(statement, block, normalize(getattr(statement, block), fields))
        for clause in [*getattr(statement, "handlers", []), *getattr(statement, "cases", [])]:
            clause.body = normalize(clause.body, fields)
        kept.append(statement)
    return kept


def _arguments(arguments: ast.arguments) -> list[ast.arg]:
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return [*named, *filter(None, (arguments.vararg, arguments.kwarg))]


def serialize(node: Any) -> str:
    """Write a syntax tree as text that is the same under every Python version (`ast.dump` changed in 3.13).

    Fields that are missing, None or empty are left out, since versions differ in which of them exist.
    """
    if isinstance(node, list):
        return f"[{','.join(map(serialize, node))}]"
    if isinstance(node, ast.Constant):
        return f"Constant({node.value!a})"  # not !r: which characters it escapes depends on the Unicode version
    if isinstance(node, ast.JoinedStr):
        return f"JoinedStr({serialize(_merged(node.values))})"
    if isinstance(node, ast.AST):
        fields = ((name, getattr(node, name, None)) for name in node._fields if name not in SKIPPED_FIELDS)
        kept = (f"{name}={serialize(value)}" for name, value in fields if value is not None and value != [])
        return f"{type(node).__name__}({','.join(kept)})"
    return ascii(node)


def _merged(values: list[ast.expr]) -> list[ast.expr]:
    """Join neighboring texts of an f-string, which versions split differently."""
    merged: list[ast.expr] = []
    for value in values:
        if isinstance(value, ast.Constant) and merged and isinstance(last := merged[-1], ast.Constant):
            merged[-1] = ast.Constant(str(last.value) + str(value.value))
        elif not (isinstance(value, ast.Constant) and value.value == ""):
            merged.append(value)
    return merged
