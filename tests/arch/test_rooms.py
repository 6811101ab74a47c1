"""The house holds: rooms and files import only what stands before them; public names and options are frozen."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import deepskip

ROOT = Path(deepskip.__file__).parent
DOCS = ROOT.parents[1]

# The reading order. A room may import the rooms before it; within a room, a file the files before it.
# Where that is not obvious: docs/decisions/0001-rooms.md.
ROOMS: dict[str, tuple[str, ...]] = {
    "_version": (),
    "errors": (),
    "files": (),
    "extras": (),
    "seeds": (),
    "garbage": (),
    "describe": ("value", "preprocessing", "spec", "families", "zoo", "ledger"),
    "nets": ("parts", "block", "network", "initial", "builder"),
    "weights": (
        "store",
        "adapters.layers",
        "adapters.rules",
        "adapters.classic",
        "adapters.torchvision",
        "adapters.timm",
        "adapters.transformers",
        "adapters.cifar",
        "adapters.translate",
        "foreign",
    ),
    "surgery": ("growing", "folding"),
    "data": (
        "variation",
        "dataset",
        "jpeg",
        "decode",
        "listing",
        "ahead",
        "store",
        "layouts",
        "published",
        "copies",
        "builtin",
        "folder",
        "sources",
        "arrays",
        "rows",
        "doctor.finding",
        "doctor.likeness",
        "doctor.survey",
        "doctor.files",
        "doctor.classes",
        "doctor.doubles",
        "doctor.examination",
        "augment",
        "trivial",
        "mixing",
        "batches",
    ),
    "hub": (
        "known",
        "published",
        "architectures",
        "importing",
        "card",
        "download",
        "repository",
        "huggingface",
        "addresses",
    ),
    "scoring": (),
    "model": (),
    "instruments": (
        "images",
        "taps",
        "columns",
        "intervals",
        "trials",
        "ends",
        "identity",
        "insertion",
        "summary",
        "lesion",
        "paths",
        "signal",
        "gradient",
        "lens",
        "calibration",
        "saliency",
        "landscape",
        "inspection",
    ),
    "training": (
        "events",
        "progress",
        "recipe",
        "schedule",
        "plan",
        "precision",
        "distributed",
        "segments",
        "glibc",
        "relief",
        "recompute",
        "replay",
        "way",
        "memory",
        "heap",
        "tuning",
        "interrupt",
        "frozen",
        "average",
        "muon",
        "optimiser",
        "objective",
        "diagnosis",
        "flow",
        "stepper",
        "validation",
        "finder",
        "packing",
        "rundir",
        "track",
        "engine",
    ),
    "studies": (
        "pool",
        "worker",
        "cell",
        "grid",
        "scheduler",
        "cluster",
        "study",
        "verdict",
        "depth",
        "argument",
        "identity",
        "reach",
        "spectrum",
    ),
    "figures": (
        "rows",
        "colour",
        "style",
        "labels",
        "curves",
        "flow",
        "depth",
        "identity",
        "spectrum",
        "places",
        "lesion",
        "lengths",
        "signal",
        "gradient",
        "lens",
        "calibration",
        "saliency",
        "landscape",
        "ratio",
        "confusion",
        "bench",
        "contact",
        "diagram",
        "anatomy",
        "blocks",
        "twin",
        "whole",
        "paths",
        "drawings",
    ),
    "reports": ("words", "inline", "page", "depth", "identity", "spectrum", "inspection", "run", "gallery"),
    "pages": (),
    "sklearn": (),
    "deploy": (
        "runner",
        "lowering",
        "graph",
        "metadata",
        "pictures",
        "proof",
        "formats.onnx",
        "formats.openvino",
        "formats.program",
        "formats.torchvision",
        "export",
        "quantize",
        "engines",
        "ways",
        "choosing",
        "stream",
        "results",
        "threshold",
        "samples",
        "worker",
        "bench",
        "serve.limits",
        "serve.body",
        "serve.decoder",
        "serve.queue",
        "serve.metrics",
        "serve.answers",
        "serve.refusals",
        "serve.guard",
        "serve.query",
        "serve.look",
        "serve.service",
        "serve.app",
        "serve.connection",
        "serve.server",
    ),
    "cli": (
        "show",
        "nets",
        "doctor",
        "prepare",
        "train",
        "use",
        "bench",
        "inspect",
        "weights",
        "export",
        "board",
        "study",
        "depth",
        "identity",
        "spectrum",
        "serve",
        "app",
    ),
}
TORCHLESS = ("_version", "errors", "files", "extras", "seeds", "describe", "figures", "reports")
LAZY = ("cli", "__init__", "__main__")  # torch only inside functions
ORDER = [f"{room}.{file}" if file else room for room, files in ROOMS.items() for file in (files or ("",))]

PUBLIC = [
    "Block",
    "Conv",
    "DeepskipError",
    "DivergedError",
    "InputError",
    "Junction",
    "Ledger",
    "Model",
    "Network",
    "Prediction",
    "Preprocessing",
    "Recipe",
    "Score",
    "Spec",
    "Stage",
    "Stem",
    "WorkError",
    "__version__",
    "alter",
    "build",
    "count",
    "data",
    "figures",
    "fit",
    "instruments",
    "load",
    "publish",
    "reports",
    "score",
    "studies",
    "surgery",
    "tap",
    "weights",
    "zoo",
]


def _modules() -> list[tuple[str, ast.Module]]:
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        found.append((name, ast.parse(path.read_text(encoding="utf-8"))))
    return found


def _imports(tree: ast.AST, *, top: bool = False) -> Iterator[tuple[int, str]]:
    """Yield every imported module, `from deepskip.data import sources` as `deepskip.data.sources`."""
    nodes: list[ast.AST] = list(ast.walk(tree))
    if top:
        inner = {
            id(child)
            for node in nodes
            if isinstance(node, ast.FunctionDef)
            or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
            for child in ast.walk(node)
        }
        nodes = [node for node in nodes if id(node) not in inner]
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name the whole path"
            for alias in node.names:
                deeper = ROOT.parent.joinpath(*f"{node.module}.{alias.name}".split("."))
                is_module = deeper.with_suffix(".py").exists() or (deeper / "__init__.py").exists()
                yield node.lineno, f"{node.module}.{alias.name}" if is_module else str(node.module)


def violations(modules: list[tuple[str, ast.Module]]) -> list[str]:
    """Return every import that goes up or sideways in the order."""
    found = []
    for name, tree in modules:
        if name.split(".")[-1] in ("__init__", "__main__"):
            continue
        for line, target in _imports(tree):
            if not target.startswith("deepskip."):
                continue
            target = target.removeprefix("deepskip.")
            if ROOMS.get(target):
                found.append(f"{name}:{line} imports the whole room {target}")
            elif ORDER.index(target) >= ORDER.index(name):
                found.append(f"{name}:{line} imports {target}, which stands after it")
    return found


def test_every_file_has_its_place() -> None:
    here = [name for name, _ in _modules() if name.split(".")[-1] not in ("__init__", "__main__")]
    assert sorted(here) == sorted(ORDER)


def test_imports_go_downwards_only() -> None:
    assert violations(_modules()) == []


def test_an_import_that_goes_up_is_seen() -> None:
    tree = ast.parse("def f():\n    from deepskip.training import engine\n")
    assert violations([("data.store", tree)]) == ["data.store:2 imports training.engine, which stands after it"]


def test_torch_stays_out_of_the_rooms_that_need_none() -> None:
    for name, tree in _modules():
        room = name.split(".")[0]
        used = {target.split(".")[0] for _, target in _imports(tree)}
        if room in TORCHLESS:
            assert not used & {"torch", "safetensors"}, name
        if room in LAZY:
            assert not {t.split(".")[0] for _, t in _imports(tree, top=True)} & {
                "torch",
                "numpy",
                "matplotlib",
            }, name


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from deepskip.cli.app import main; main(['train', '--help']);"
        "sys.exit(', '.join({'torch', 'numpy', 'matplotlib', 'sklearn', 'PIL'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--recipe" in done.stdout


def test_no_public_function_has_a_modules_name() -> None:
    """Importing the module would put it in the function's place."""
    modules = {path.stem for path in ROOT.iterdir()}
    assert not modules & set(deepskip._HOMES)


def test_public_names_are_frozen() -> None:
    assert deepskip.__all__ == sorted(PUBLIC)
    for name in PUBLIC:
        assert getattr(deepskip, name) is not None
    with pytest.raises(AttributeError):
        deepskip.nothing_of_the_kind  # noqa: B018


def _commands() -> Iterator[tuple[str, set[str]]]:
    from deepskip.cli.app import app, study

    for group, prefix in ((app, ""), (study, "study ")):
        for name in group:
            if name.startswith("-") or (not prefix and name == "study"):
                continue
            arguments = group[name].assemble_argument_collection()
            yield (
                prefix + name,
                {
                    n
                    for argument in arguments
                    for n in argument.names
                    if n.startswith("--") and not n.startswith("--no-") and argument.show
                },
            )


def test_every_command_and_option_is_documented() -> None:
    text = (DOCS / "docs" / "commands.md").read_text(encoding="utf-8")
    headed = re.compile(r"^## `deepskip ([a-z ]+)`[^\n]*\n(.*?)(?=^## |\Z)", re.DOTALL | re.MULTILINE)
    sections = dict(headed.findall(text))
    commands = dict(_commands())
    assert set(sections) == set(commands)
    common = set(re.findall(r"`(--[a-z0-9-]+)", text.split("\n## ")[0]))
    for command, options in commands.items():
        documented = set(re.findall(r"`(--[a-z0-9-]+)", sections[command]))
        assert options - common == documented - common, command


def test_every_recipe_field_and_named_recipe_is_documented() -> None:
    from deepskip.training.recipe import RECIPES, Recipe

    text = (DOCS / "docs" / "recipes.md").read_text(encoding="utf-8")
    for name in (*Recipe.model_fields, *RECIPES):
        assert f"`{name}`" in text, name


def test_the_zoo_is_as_published_and_its_table_is_new() -> None:
    script = DOCS / "docs" / "zoo_table.py"
    run = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_every_decision_is_numbered_in_order() -> None:
    numbers = [int(path.name[:4]) for path in sorted((DOCS / "docs" / "decisions").glob("*.md"))]
    assert numbers == list(range(1, len(numbers) + 1))
