"""Digests of code: they change with behavior, only for users of the change, and with nothing else."""

import ast
import importlib
import os
import shutil
import sys
import textwrap
import time

import pytest

from memorization.errors import UserError
from memorization.provenance import source
from memorization.provenance.source import PACKAGE_ROOT, code_params, definitions, explain
from memorization.provenance.syntax import serialize

PACKAGE = {
    "__init__.py": '__version__ = "1"\n',
    "base.py": '''
        """Docstring."""
        import math
        from typing import TYPE_CHECKING

        if TYPE_CHECKING:
            from toy.lonely import alone

        SCALE = 2
        TABLE = {"a": 1}
        OTHER = 5
        LEFT, RIGHT = 1, 2

        def helper(x: int) -> float:
            """Say nothing."""
            return math.sqrt(x) * SCALE  # why

        def unused(x):
            return x - 1

        def table():
            return TABLE
    ''',
    "effects.py": """
        from toy.base import unused as minus

        SETTINGS = {}
        SETTINGS["size"] = minus(3)

        def size():
            return SETTINGS["size"]
    """,
    "lonely.py": "def alone():\n    return 0\n",
    "zoo/__init__.py": "from .animals import Cat as Tiger, feed\n",
    "zoo/animals.py": """
        from ..base import helper as h

        def decorate(f):
            return f

        def default():
            return 4

        class Animal:
            def name(self):
                return sound(1)

        class Cat(Animal):
            legs: int = 4

            def walk(self):
                return self.name() * h(self.legs)

        @decorate
        def feed(n=default()):
            return n

        def sound(n):
            return n
    """,
    "uses.py": """
        import toy.base as b
        from toy import effects, zoo

        def by_alias():
            return b.helper(4)

        def by_lazy_import():
            from toy.base import helper as quick
            return quick(9)

        def by_lazy_module():
            import toy.zoo.animals
            return toy.zoo.animals.sound(1)

        def by_class():
            return zoo.Tiger().walk()

        def by_module_object():
            return getattr(b, "helper")(1)

        def by_effect():
            return effects.size()

        def by_shadow(sound=1, *, minus=2):
            table = [feed for feed in range(sound)]
            return table, minus

        def by_comprehension():
            return [b.helper(b.SCALE) for b in [b]]

        def by_nested():
            def inner():
                return b.table()
            return inner()

        def by_default_and_decorator():
            return zoo.feed()
    """,
    "stars.py": "from toy.base import *\n\ndef starred():\n    return helper(4)\n",
}


@pytest.fixture
def toy(tmp_path):
    root = tmp_path / "src" / "toy"
    for name, text in PACKAGE.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    return root


def rewrite(toy, name, old, new):
    """Replace text in a file, with an mtime that surely differs."""
    path = toy / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    os.utime(path, ns=(time.time_ns() + 10**9,) * 2)


def all_closures(toy):
    names = [node.name for node in ast.parse((toy / "uses.py").read_text()).body if hasattr(node, "name")]
    roots = [f"toy.uses:{name}" for name in names] + ["toy.stars:starred", "toy.lonely:alone"]
    return {root: definitions([root], package_root=toy) for root in roots}


HELPER = {"toy.base:helper", "toy.base:SCALE"}
NAMES = ("SCALE", "TABLE", "OTHER", "LEFT", "RIGHT", "helper", "unused", "table")
EFFECTS = {"toy.effects:(import)", "toy.effects:SETTINGS", "toy.base:unused"}  # toy.uses imports toy.effects


@pytest.mark.parametrize(
    ("root", "expected"),
    [
        ("toy.base:helper", HELPER),
        ("toy.base:table", {"toy.base:table", "toy.base:TABLE"}),
        ("toy.stars:starred", {"toy.stars:starred"} | HELPER),
        ("toy.uses:by_alias", {"toy.uses:by_alias"} | HELPER | EFFECTS),
        ("toy.uses:by_lazy_import", {"toy.uses:by_lazy_import"} | HELPER | EFFECTS),
        ("toy.uses:by_lazy_module", {"toy.uses:by_lazy_module", "toy.zoo.animals:sound"} | EFFECTS),
        (
            "toy.uses:by_class",
            {"toy.uses:by_class", "toy.zoo.animals:Cat", "toy.zoo.animals:Animal", "toy.zoo.animals:sound"}
            | HELPER
            | EFFECTS,
        ),
        (
            "toy.uses:by_module_object",
            {
                "toy.uses:by_module_object",
                "toy.base:unused",
                "toy.base:table",
                "toy.base:TABLE",
                "toy.base:OTHER",
                "toy.base:LEFT",
                "toy.base:RIGHT",
            }
            | HELPER
            | EFFECTS,
        ),
        ("toy.uses:by_effect", {"toy.uses:by_effect", "toy.effects:size"} | EFFECTS),
        ("toy.uses:by_shadow", {"toy.uses:by_shadow"} | EFFECTS),
        ("toy.uses:by_nested", {"toy.uses:by_nested", "toy.base:table", "toy.base:TABLE"} | EFFECTS),
        (
            "toy.uses:by_default_and_decorator",
            {
                "toy.uses:by_default_and_decorator",
                "toy.zoo.animals:feed",
                "toy.zoo.animals:decorate",
                "toy.zoo.animals:default",
            }
            | EFFECTS,
        ),
        (
            "toy.zoo:Tiger",
            {"toy.zoo.animals:Cat", "toy.zoo.animals:Animal", "toy.zoo.animals:sound"} | HELPER,
        ),
        ("toy:__version__", {"toy:__version__"}),
        ("toy.base:LEFT", {"toy.base:LEFT", "toy.base:RIGHT"}),  # one statement
    ],
)
def test_closure_is_exactly_what_is_used(toy, root, expected):
    assert set(definitions([root], package_root=toy)) == expected


def test_loop_variable_hides_a_module_only_inside_its_comprehension(toy):
    """`[b.helper(...) for b in [b]]`: only the iterable is the module, which therefore counts whole."""
    assert "toy.base:OTHER" in definitions(["toy.uses:by_comprehension"], package_root=toy)


def test_whole_module_is_all_its_definitions(toy):
    closure = definitions(["toy.base"], package_root=toy)
    assert set(closure) == {f"toy.base:{name}" for name in NAMES}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# why", "# another reason"),
        ("Say nothing.", "Say something else."),
        ('    """Say nothing."""\n', ""),
        ("x: int) -> float:", "x):"),
        ("return math.sqrt(x) * SCALE", "return (\n        math.sqrt( x )\n        * SCALE\n    )"),
        ('"""Docstring."""', '"""Another."""\n\n\n'),
        ('{"a": 1}', "{'a': 1}"),
        ("SCALE = 2", "SCALE: int = 2"),
        ("return x - 1", "return x - 1\n\n\ndef newcomer():\n    return 1"),
        ("return x - 1", "pass\n    return x - 1"),
        ("from toy.lonely import alone", "from toy.effects import size"),
    ],
)
def test_looks_do_not_count(toy, old, new):
    before = all_closures(toy)
    if "newcomer" in new:  # whole-module users may see it
        before = {root: closure for root, closure in before.items() if "module" not in root and "compr" not in root}
    rewrite(toy, "base.py", old, new)
    after = all_closures(toy)
    assert {root: after[root] for root in before} == before


def test_touch_changes_nothing(toy):
    before = all_closures(toy)
    for path in toy.rglob("*.py"):
        os.utime(path, (0, 0))
    assert all_closures(toy) == before


@pytest.mark.parametrize(
    ("file", "old", "new", "changed"),
    [
        ("base.py", "math.sqrt(x)", "math.log(x)", "toy.base:helper"),
        ("base.py", "SCALE = 2", "SCALE = 2.0", "toy.base:SCALE"),
        ("base.py", "return x - 1", "return x - 2", "toy.base:unused"),
        ("base.py", "import math", "import cmath as math", "toy.base:helper"),
        ("lonely.py", "return 0", "return 1", "toy.lonely:alone"),
        ("effects.py", 'SETTINGS["size"] =', 'SETTINGS["sizes"] =', "toy.effects:(import)"),
        ("zoo/animals.py", "class Cat(Animal)", "class Cat(Animal, object)", "toy.zoo.animals:Cat"),
        ("zoo/animals.py", "legs: int", "legs: float", "toy.zoo.animals:Cat"),
        ("zoo/animals.py", "@decorate\n", "@decorate\n@decorate\n", "toy.zoo.animals:feed"),
    ],
)
def test_change_reaches_its_users_and_no_one_else(toy, file, old, new, changed):
    before = all_closures(toy)
    assert any(changed in closure for closure in before.values())
    rewrite(toy, file, old, new)
    after = all_closures(toy)
    for root, closure in before.items():
        expected = {changed} if changed in closure else set()
        assert {name for name in closure if after[root].get(name) != closure[name]} == expected
        assert after[root].keys() == closure.keys()


def test_swapped_import_changes_the_meaning_of_the_same_text(toy):
    """The closure stays the same set; only the bindings are exchanged."""
    (toy / "swap.py").write_text("from toy.base import helper as f, unused as g\n\ndef both():\n    return f(g(1))\n")
    before = definitions(["toy.swap:both"], package_root=toy)
    rewrite(toy, "swap.py", "helper as f, unused as g", "helper as g, unused as f")
    after = definitions(["toy.swap:both"], package_root=toy)
    assert before.keys() == after.keys()
    assert {name for name in before if before[name] != after[name]} == {"toy.swap:both"}


def test_try_except_import_follows_both_branches(toy):
    (toy / "fallback.py").write_text(
        "try:\n    from toy.lonely import alone\nexcept ImportError:\n    def alone():\n        return 1\n\n"
        "def user():\n    return alone()\n"
    )
    closure = definitions(["toy.fallback:user"], package_root=toy)
    assert set(closure) == {"toy.fallback:user", "toy.fallback:alone", "toy.lonely:alone"}


def test_main_block_counts_for_scripts_only(toy):
    """A script runs its `if __name__ == "__main__"` block with its imports; an imported module does not."""
    script = toy.parents[1] / "workflow" / "scripts" / "make.py"
    script.parent.mkdir(parents=True)
    main = """
        def main():
            return 1

        if __name__ == "__main__":
            from toy.base import helper
            helper(main())
    """
    main = textwrap.dedent(main)
    script.write_text(main)
    (toy / "module.py").write_text(main)
    closure = definitions(["workflow/scripts/make.py"], package_root=toy)
    name = "workflow/scripts/make.py"
    assert set(closure) == {f"{name}:main", f"{name}:(main)"} | HELPER
    assert definitions([script], package_root=toy) == closure  # the absolute path leaves no trace
    assert set(definitions(["toy.module:main"], package_root=toy)) == {"toy.module:main"}
    rewrite(toy.parents[1], name, "return 1", "return 2")
    after = definitions([name], package_root=toy)
    assert {key for key in closure if closure[key] != after[key]} == {f"{name}:main"}


def test_registering_decorator_counts_for_its_whole_module(toy):
    (toy / "registry.py").write_text(
        "KNOWN = {}\n\ndef register(f):\n    KNOWN[f.__name__] = f\n    return f\n\n"
        "@register\ndef probe():\n    return 1\n\ndef run(name):\n    return KNOWN[name]()\n"
    )
    assert "toy.registry:probe" in definitions(["toy.registry:run"], package_root=toy)


def test_copy_elsewhere_has_the_same_digests(toy, tmp_path):
    before = all_closures(toy)
    other = toy.rename(tmp_path / "toy")
    assert all_closures(other) == before


@pytest.mark.parametrize(
    ("root", "message"),
    [
        ("toy.base:helpr", "did you mean 'toy.base:helper'?"),
        ("toy.bas:helper", "did you mean 'toy.base'?"),
        ("toy.base:math", "defines no 'math'"),
        ("toy.zoo:Tigr", "did you mean 'toy.zoo:Tiger'?"),
        ("numpy:array", "no module 'numpy'"),
        ("workflow/scripts/mak.py", "did you mean 'workflow/scripts/make.py'?"),
    ],
)
def test_unknown_root_names_the_nearest(toy, root, message):
    script = toy.parents[1] / "workflow" / "scripts" / "make.py"
    script.parent.mkdir(parents=True)
    script.touch()
    with pytest.raises(UserError) as error:
        definitions([root], package_root=toy)
    assert message in str(error.value)
    assert root in str(error.value)


def test_syntax_error_names_file_and_line(toy):
    (toy / "broken.py").write_text("x = 1\ndef f(:\n")
    with pytest.raises(UserError, match=r"broken\.py, line 2"):
        definitions(["toy.broken:x"], package_root=toy)


def test_code_params_and_explain(toy):
    before = definitions(["toy.uses:by_alias"], package_root=toy)
    params = code_params(["toy.uses:by_alias"], package_root=toy)
    assert params == {name: f"{name}@{digest}" for name, digest in before.items()}
    rewrite(toy, "base.py", "SCALE = 2", "SCALE = 3")
    rewrite(toy, "uses.py", "return b.helper(4)", "return b.helper(4) + b.OTHER")
    after = definitions(["toy.uses:by_alias"], package_root=toy)
    old, new = before["toy.base:SCALE"], after["toy.base:SCALE"]
    sentences = explain(before, after)
    assert f"toy.base:SCALE has changed ({old} before, {new} now)." in sentences
    assert "toy.base:OTHER is used now and was not before." in sentences
    assert len(sentences) == 3  # and by_alias itself
    assert "toy.base:OTHER is no longer used." in explain(after, before)
    assert explain(after, after) == []


def test_serializer_ignores_what_python_versions_disagree_on():
    """3.12 added `type_params`, 3.13 fills in absent fields; texts of f-strings may be split differently."""
    old = ast.FunctionDef("f", ast.arguments([], [], None, [], [], None, []), [ast.Pass()], [])
    new = ast.FunctionDef("f", ast.arguments([], [], None, [], [], None, []), [ast.Pass()], [], None, None)
    new.type_params = []
    assert serialize(old) == serialize(new) == "FunctionDef(name='f',args=arguments(),body=[Pass()])"
    split = ast.JoinedStr([ast.Constant("a"), ast.Constant("b"), ast.Constant(""), ast.Name("x", ast.Load())])
    assert serialize(split) == serialize(ast.JoinedStr([ast.Constant("ab"), ast.Name("x", ast.Store())]))
    assert serialize(ast.Constant("é\U0001fae8", kind="u")) == r"Constant('\xe9\U0001fae8')"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1", "1.0"),
        ("1", "True"),
        ("'1'", "1"),
        ("b'a'", "'a'"),
        ("x[1:]", "x[:1]"),
        ("f(x)", "f(*x)"),
        ("{**a}", "{'': a}"),
        ("a.b", "a['b']"),
        ("lambda x=None: x", "lambda x: x"),
        ("f'{x}'", "f'{x!r}'"),
        ("a < b", "a <= b"),
        ("(a, b)", "[a, b]"),
        ("None", "..."),
    ],
)
def test_serializer_tells_meanings_apart(one, other):
    assert serialize(ast.parse(one, mode="eval")) != serialize(ast.parse(other, mode="eval"))


def test_every_executed_function_is_in_the_closure(toy, monkeypatch):
    """Oracle: run each function and record which functions of the package Python really enters."""
    monkeypatch.syspath_prepend(str(toy.parent))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    checked = 0
    for root in [root for root in all_closures(toy) if root != "toy.uses:by_comprehension"]:
        for name in [name for name in sys.modules if name.split(".")[0] == "toy"]:
            del sys.modules[name]
        executed = set()

        def watch(frame, event, argument, executed=executed):
            module = frame.f_globals.get("__name__", "")
            outermost = frame.f_code.co_qualname.split(".")[0]
            if event == "call" and module.split(".")[0] == "toy" and not outermost.startswith("<"):
                executed.add(f"{module}:{outermost}")

        module, _, function = root.partition(":")
        sys.setprofile(watch)
        try:
            getattr(importlib.import_module(module), function)()
        finally:
            sys.setprofile(None)
        # Importing toy.zoo also runs decorators, defaults and class bodies there that the root never uses.
        executed -= {"toy.zoo.animals:" + name for name in ("decorate", "default", "Animal", "Cat")} - set(
            definitions([root], package_root=toy)
        )
        assert root in executed
        assert executed <= set(definitions([root], package_root=toy))
        checked += len(executed)
    assert checked > 20


def test_digesting_for_many_jobs_is_cheap(tmp_path):
    """30 jobs that each reach all of this package read and parse it once."""
    package = tmp_path / "src" / "memorization"
    shutil.copytree(PACKAGE_ROOT, package)
    definitions(["memorization"], package_root=package)
    parsed = source._read.cache_info().misses
    for _ in range(30):
        definitions(["memorization"], package_root=package)
    assert source._read.cache_info().misses == parsed and source._package.cache_info().hits >= 30
