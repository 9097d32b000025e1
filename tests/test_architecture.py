"""The layout of the package: which way imports point, and what no module may do."""

import ast
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "twisted_mta"

FLOORS = (
    # What a person imports, starts or types.
    ("__init__", "daemon", "submitter", "testing"),
    # The operator's tool, which mailq and newaliases are commands of.
    ("cli",),
    # MailTransferAgent: one service, whether it is one process or several.
    ("service",),
    # The parent process, its worker processes and the pipe between them.
    ("workers",),
    # The questions of operators and programs, and the answers over HTTP.
    ("admin",),
    # Everything that one process does with mail, put together.
    ("agent",),
    # Mail that an application sends straight to a server, without the queue; events for URLs.
    ("sending", "webhooks"),
    # Mail comes in, waits, and goes out, and is reported: rooms that know nothing of one another.
    ("server", "queue", "delivery", "reports"),
    # Decisions: whether a client may send, and where a recipient's mail goes.
    ("policy", "routing"),
    # Identities, names and certificates.
    ("auth", "dns", "tls"),
    # The machines of one queue, and what holds for all of them.
    ("cluster",),
    # The log and the metrics.
    ("telemetry",),
    # The troubles of the whole, and how long each lasts.
    ("health",),
    # The operating system: time, randomness, threads, files, ports.
    ("system",),
    # A received message as a test or a page shows it.
    ("inbox_message",),
    # Settings, what rooms ask of each other and of the world, and the files of attachments.
    ("config", "interfaces", "attachment"),
    # Pure: header fields, MIME, delivery status notifications.
    ("message",),
    # Pure: SMTP and LMTP as both sides speak it.
    ("smtp",),
    # Pure: the values that all others hand on.
    ("mail",),
    ("_version",),
)
"""The rooms by floor, from what a person starts down to the values.

A room imports from floors below its own, never from its own floor or above.
"""

PURE = ("mail", "smtp", "message")
"""Rooms that take octets and return values, without I/O and without a reactor."""

JOINERS = ("__init__", "agent", "cli", "daemon", "sending", "service", "testing", "workers")
"""Rooms that put others together, and so may import `REAL`."""

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
    "submitter/waiting.py",  # a program of its own, which loads no Twisted
    "sending/sendmail.py",  # for a caller that hands in no reactor
    "system/executors.py",
    "system/line_logger.py",
    "system/real_world.py",
    "system/timers.py",
    "workers/main.py",
)


class Module:
    """A source file of the package and its imports.

    Attributes:
        path: the file.
        file: the path below the package, ``smtp/command.py``.
        name: the dotted name, ``twisted_mta.smtp.command``.
        room: the top-level folder or file below the package that it belongs to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = str(path.relative_to(ROOT / PACKAGE))
        self.text = path.read_text(encoding="utf-8")
        self.tree = ast.parse(self.text, str(path))
        parts = path.relative_to(ROOT).with_suffix("").parts
        self.name = ".".join(parts).removesuffix(".__init__")
        self.room = parts[1]
        self._folders = parts[:-1]

    def imports(self) -> Iterator[tuple[int, str]]:
        """Yield (line, absolute dotted name) for each import, even inside functions."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield node.lineno, alias.name
            elif isinstance(node, ast.ImportFrom):
                start = list(self._folders[: len(self._folders) - node.level + 1])
                base = ".".join((start if node.level else []) + ([node.module or ""]))
                for alias in node.names:
                    yield node.lineno, f"{base.strip('.')}.{alias.name}"

    def imported_rooms(self) -> Iterator[tuple[int, str]]:
        """Yield (line, room) for each import from the package."""
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


Arrows = Mapping[str, frozenset[str]]
"""From the name of a module to the names of the modules that it imports from."""


def arrows(modules: list[Module]) -> Arrows:
    names = frozenset(module.name for module in modules)
    imported = {}
    for module in modules:
        targets = {
            name if name in names else name.rpartition(".")[0] for _, name in module.imports()
        }
        imported[module.name] = frozenset(targets & names - {module.name})
    return imported


def circles(arrows: Arrows) -> list[list[str]]:
    """Return the strongly connected components of more than one module (Tarjan's algorithm)."""
    found: list[list[str]] = []
    index: dict[str, int] = {}
    lowest: dict[str, int] = {}
    path: list[str] = []

    def visit(name: str) -> None:
        index[name] = lowest[name] = len(index)
        path.append(name)
        for target in sorted(arrows[name]):
            if target not in index:
                visit(target)
                lowest[name] = min(lowest[name], lowest[target])
            elif target in path:
                lowest[name] = min(lowest[name], index[target])
        if lowest[name] == index[name]:
            start = path.index(name)
            if len(path) - start > 1:
                found.append(sorted(path[start:]))
            del path[start:]

    for name in arrows:
        if name not in index:
            visit(name)
    return found


def drawn(circle: list[str], arrows: Arrows) -> str:
    """Return the files of a circle and the arrows among them, one file a line."""
    return "\n".join(
        f"  {name} imports {', '.join(sorted(arrows[name] & frozenset(circle)))}" for name in circle
    )


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
    """Whether an expression is plainly a set, or a name in ``known``."""
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
    """Return the names, attributes and arguments of a module (or function) that hold sets."""
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
"""Calls whose result does not depend on the order of their argument."""


def iterated(tree: ast.AST) -> Iterator[ast.expr]:
    """Yield each expression that is iterated where its order can show in the result."""
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
    """Return the lines on which a set is iterated in its own, arbitrary order."""
    known = set_names(tree)
    return sorted({node.lineno for node in iterated(tree) if is_set(node, known)})


class Imports(SynchronousTestCase):
    def test_no_module_stands_outside_of_the_package(self) -> None:
        self.assertEqual([path.name for path in ROOT.glob("*.py")], [])

    def test_every_module_belongs_to_a_room_of_some_floor(self) -> None:
        known = [room for floor in FLOORS for room in floor]
        homeless = sorted({module.room for module in MODULES if module.room not in known})
        self.assertEqual(homeless, [])

    def test_rooms_import_only_from_floors_below(self) -> None:
        height = {room: -floor for floor, rooms in enumerate(FLOORS) for room in rooms}
        wrong = [
            f"{module.file}:{line} imports {room}"
            for module in MODULES
            for line, room in module.imported_rooms()
            if room != module.room and height[room] >= height[module.room]
        ]
        self.assertEqual(wrong, [])

    def test_files_form_no_circle(self) -> None:
        imported = arrows(MODULES)
        found = circles(imported)
        if found:
            self.fail("\n".join(["files import each other", *(drawn(c, imported) for c in found)]))

    def test_a_circle_is_reported_with_its_files_and_arrows(self) -> None:
        imported: Arrows = {
            "p.a": frozenset({"p.b", "p.d"}),
            "p.b": frozenset({"p.c"}),
            "p.c": frozenset({"p.a"}),
            "p.d": frozenset(),
        }
        (circle,) = circles(imported)
        self.assertEqual(
            drawn(circle, imported), "  p.a imports p.b\n  p.b imports p.c\n  p.c imports p.a"
        )

    def test_pure_rooms_import_no_io_and_no_reactor(self) -> None:
        wrong = [
            f"{module.file}:{line} imports {name}"
            for module in MODULES
            if module.room in PURE
            for line, name in module.imports()
            if any(starts_with(name, world) for world in NOT_PURE)
        ]
        self.assertEqual(wrong, [])

    def test_only_rooms_that_join_others_import_the_real_world(self) -> None:
        wrong = [
            f"{module.file}:{line}"
            for module in MODULES
            if module.room not in JOINERS
            for line, name in module.imports()
            if any(starts_with(name, real) for real in REAL)
        ]
        self.assertEqual(wrong, [])


class Determinism(SynchronousTestCase):
    def test_importing_a_module_installs_no_reactor(self) -> None:
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

    def test_no_module_of_tests_has_a_name_that_trial_takes_for_a_mark(self) -> None:
        """An imported function `skip` would skip every test of the module, without a failure."""
        marks = {"skip", "todo", "timeout", "suppress"}
        wrong = []
        for path in (ROOT / "tests").rglob("test_*.py"):
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                names = {getattr(node, "name", "")}
                if isinstance(node, ast.Import | ast.ImportFrom):
                    names = {alias.asname or alias.name for alias in node.names}
                elif isinstance(node, ast.Assign):
                    names = {each.id for each in node.targets if isinstance(each, ast.Name)}
                if names & marks:
                    wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}")
        self.assertEqual(wrong, [])

    def test_no_module_iterates_a_set(self) -> None:
        wrong = [
            f"{module.file}:{line}" for module in MODULES for line in set_iterations(module.tree)
        ]
        self.assertEqual(wrong, [])

    def test_iterating_a_set_is_recognized(self) -> None:
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

    def test_sorting_a_set_or_asking_for_membership_is_not_iterating_it(self) -> None:
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
            module.file
            for module in MODULES
            if "TID251" in module.text and module.file not in MAY_LIFT_THE_BAN
        ]
        self.assertEqual(wrong, [])


class Files(SynchronousTestCase):
    def test_the_plugin_adds_nothing_else_to_the_namespace_of_twisted(self) -> None:
        self.assertEqual(list((ROOT / "twisted").rglob("__init__.py")), [])
        self.assertEqual(
            [str(path.relative_to(ROOT)) for path in (ROOT / "twisted").rglob("*.py")],
            ["twisted/plugins/twisted_mta_plugin.py"],
        )

    def test_every_module_has_a_docstring(self) -> None:
        wrong = [
            module.file
            for module in MODULES
            if module.text.strip() and not ast.get_docstring(module.tree)
        ]
        self.assertEqual(wrong, [])
