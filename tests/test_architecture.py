"""The house keeps its shape: which way the arrows point, and what no module may do."""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "twisted_mta"

FLOORS = (
    ("__init__", "daemon", "cli", "testing"),
    ("service",),
    ("workers",),
    ("agent",),
    ("admin",),
    ("server", "queue", "delivery"),
    ("policy", "routing"),
    ("auth", "dns", "tls"),
    ("telemetry",),
    ("system",),
    ("config", "interfaces"),
    ("message",),
    ("smtp",),
    ("mail",),
    ("_version",),
)
"""The rooms, from what a person starts down to the values. A room may use those on floors below
it, and none of its own floor or above."""

PURE = ("mail", "smtp", "message")
"""Bytes in, values out: no I/O, no reactor."""

JOINERS = ("__init__", "agent", "cli", "daemon", "service", "testing", "workers")
"""Where rooms are joined; only these import `REAL`."""

REAL = (f"{PACKAGE}.system.real_world", f"{PACKAGE}.system.executors")
"""Clocks, randomness and threads: all other rooms are handed them."""

NOT_PURE = (
    "asyncio",
    "multiprocessing",
    "select",
    "selectors",
    "signal",
    "socket",
    "sqlite3",
    "ssl",
    "subprocess",
    "threading",
    "twisted.application",
    "twisted.internet",
    "twisted.protocols",
    "twisted.python.threadpool",
    "twisted.web",
)

REQUIRED_BANS = (
    "datetime.datetime.now",
    "os.urandom",
    "random",
    "secrets",
    "time.monotonic",
    "time.perf_counter",
    "time.sleep",
    "time.time",
    "twisted.internet.reactor",
    "twisted.internet.threads",
    "uuid",
)

MAY_LIFT_THE_BAN = (
    "daemon/service.py",
    "system/executors.py",
    "system/real_world.py",
    "system/timers.py",
    "workers/main.py",
)


class Module:
    """One source file of the package and what it imports."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = str(path.relative_to(ROOT / PACKAGE))
        self.text = path.read_text(encoding="utf-8")
        self.tree = ast.parse(self.text, str(path))
        parts = path.relative_to(ROOT).with_suffix("").parts
        self.place = parts[1]
        self._within = parts[:-1]

    def imports(self) -> Iterator[tuple[int, str]]:
        """Yield (line, absolute dotted name) for everything imported, wherever that stands."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield node.lineno, alias.name
            elif isinstance(node, ast.ImportFrom):
                start = list(self._within[: len(self._within) - node.level + 1])
                base = ".".join((start if node.level else []) + ([node.module or ""]))
                for alias in node.names:
                    yield node.lineno, f"{base.strip('.')}.{alias.name}"

    def places(self) -> Iterator[tuple[int, str]]:
        """Yield (line, place) for each import of our own package."""
        for line, name in self.imports():
            parts = name.split(".")
            if parts[0] == PACKAGE and len(parts) > 1:
                own = (ROOT / PACKAGE / parts[1]).is_dir() or (
                    ROOT / PACKAGE / f"{parts[1]}.py"
                ).is_file()
                yield line, parts[1] if own else "__init__"


MODULES = [Module(path) for path in sorted((ROOT / PACKAGE).rglob("*.py"))]


def starts_with(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")


def module_level(tree: ast.Module) -> Iterator[ast.stmt]:
    """Yield each statement that runs when the module is imported."""
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.stmt):
            yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting.extend(ast.iter_child_nodes(node))


SETS = ("set", "frozenset", "Set", "FrozenSet", "AbstractSet", "MutableSet")


def is_set(node: ast.expr | None, known: frozenset[str]) -> bool:
    """Whether an expression is plainly a set, or a name that was given one."""
    if isinstance(node, ast.Set | ast.SetComp):
        return True
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in SETS
    if isinstance(node, ast.BinOp) and isinstance(
        node.op, ast.BitOr | ast.BitAnd | ast.Sub | ast.BitXor
    ):
        return is_set(node.left, known) or is_set(node.right, known)
    return isinstance(node, ast.Name | ast.Attribute) and ast.unparse(node) in known


def is_set_type(node: ast.expr) -> bool:
    return ast.unparse(node).split("[")[0].split(".")[-1] in SETS


def set_names(tree: ast.AST) -> frozenset[str]:
    """Return the names and attributes that a module (or function) fills with sets."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign) and is_set_type(node.annotation):
            names.append(ast.unparse(node.target))
        elif isinstance(node, ast.Assign) and is_set(node.value, frozenset()):
            names.extend(ast.unparse(target) for target in node.targets)
        elif isinstance(node, ast.arg) and node.annotation and is_set_type(node.annotation):
            names.append(node.arg)
    return frozenset(names)


ORDERLESS = ("all", "any", "bool", "frozenset", "len", "max", "min", "set", "sorted", "sum")
"""Calls whose result does not depend on the order that they walk in."""


def iterated(tree: ast.AST) -> Iterator[ast.expr]:
    """Yield each expression whose order shows in what the code does."""
    excused = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in ORDERLESS:
                for argument in node.args:
                    if isinstance(argument, ast.GeneratorExp | ast.ListComp | ast.SetComp):
                        excused.extend(generator.iter for generator in argument.generators)
            elif node.func.id in ("enumerate", "iter", "list", "map", "next", "tuple", "zip"):
                yield from node.args
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr == "join":
                yield from node.args
        elif isinstance(node, ast.For | ast.AsyncFor):
            yield node.iter
        elif isinstance(node, ast.Starred):
            yield node.value
    for node in ast.walk(tree):
        if isinstance(node, ast.ListComp | ast.GeneratorExp | ast.DictComp):
            for generator in node.generators:
                if not any(generator.iter is one for one in excused):
                    yield generator.iter


def set_iterations(tree: ast.Module) -> list[int]:
    """Return the lines on which something walks through a set in the set's own order."""
    known = set_names(tree)
    return sorted({node.lineno for node in iterated(tree) if is_set(node, known)})


class Arrows(SynchronousTestCase):
    def test_every_module_has_its_place(self) -> None:
        known = [room for floor in FLOORS for room in floor]
        places = sorted(frozenset(module.place for module in MODULES))
        self.assertEqual([place for place in places if place not in known], [])

    def test_every_arrow_points_downwards(self) -> None:
        height = {room: -floor for floor, rooms in enumerate(FLOORS) for room in rooms}
        wrong = [
            f"{module.name}:{line} imports {place}"
            for module in MODULES
            for line, place in module.places()
            if place != module.place and height[place] >= height[module.place]
        ]
        self.assertEqual(wrong, [])

    def test_pure_modules_touch_nothing_of_the_world(self) -> None:
        wrong = [
            f"{module.name}:{line} imports {name}"
            for module in MODULES
            if module.place in PURE
            for line, name in module.imports()
            if any(starts_with(name, world) for world in NOT_PURE)
        ]
        self.assertEqual(wrong, [])

    def test_only_rooms_that_join_others_import_the_real_world(self) -> None:
        wrong = [
            f"{module.name}:{line}"
            for module in MODULES
            if module.place not in JOINERS
            for line, name in module.imports()
            if any(starts_with(name, real) for real in REAL)
        ]
        self.assertEqual(wrong, [])


class Determinism(SynchronousTestCase):
    def test_no_module_imports_the_reactor_when_it_is_imported(self) -> None:
        wrong = []
        for path in [*(ROOT / PACKAGE).rglob("*.py"), *(ROOT / "twisted").rglob("*.py")]:
            for node in module_level(ast.parse(path.read_text(encoding="utf-8"))):
                names: list[str] = []
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom):
                    names = [f"{node.module}.{alias.name}" for alias in node.names]
                if "twisted.internet.reactor" in names:
                    wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}")
        self.assertEqual(wrong, [])

    def test_nothing_walks_through_a_set(self) -> None:
        wrong = [
            f"{module.name}:{line}" for module in MODULES for line in set_iterations(module.tree)
        ]
        self.assertEqual(wrong, [])

    def test_the_check_for_sets_sees_them(self) -> None:
        for text in (
            "for one in {1, 2}: pass",
            "[one for one in set(many)]",
            "a = set()\nfor one in a: pass",
            "class A:\n def b(self):\n  self.c: set[int] = fill()\n  list(self.c)",
            "def a(b: frozenset[int]):\n for c in b - d: pass",
            "', '.join({one for one in many})",
            "[*frozenset(many)]",
        ):
            self.assertEqual(len(set_iterations(ast.parse(text))), 1, text)
        for text in (
            "for one in sorted({1, 2}): pass",
            "any(one for one in {1, 2})",
            "1 in {1, 2}",
            "a = []\nfor one in a: pass",
        ):
            self.assertEqual(set_iterations(ast.parse(text)), [], text)

    def test_ruff_bans_clocks_randomness_and_threads(self) -> None:
        lint = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["ruff"][
            "lint"
        ]
        self.assertIn("TID251", lint["select"])
        banned = lint["flake8-tidy-imports"]["banned-api"]
        self.assertEqual([name for name in REQUIRED_BANS if name not in banned], [])

    def test_the_ban_is_lifted_only_where_the_real_world_begins(self) -> None:
        wrong = [
            module.name
            for module in MODULES
            if "TID251" in module.text and module.name not in MAY_LIFT_THE_BAN
        ]
        self.assertEqual(wrong, [])


class Shape(SynchronousTestCase):
    def test_the_plugin_leaves_the_namespace_of_twisted_alone(self) -> None:
        self.assertEqual(list((ROOT / "twisted").rglob("__init__.py")), [])
        self.assertEqual(
            [str(path.relative_to(ROOT)) for path in (ROOT / "twisted").rglob("*.py")],
            ["twisted/plugins/twisted_mta_plugin.py"],
        )

    def test_every_module_says_what_it_is(self) -> None:
        wrong = [
            module.name
            for module in MODULES
            if module.text.strip() and not ast.get_docstring(module.tree)
        ]
        self.assertEqual(wrong, [])
