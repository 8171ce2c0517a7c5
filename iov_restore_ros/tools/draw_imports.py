"""
Print which package imports which, as a Mermaid diagram: the picture in docs/develop.md.

    python -m iov_restore_ros.tools.draw_imports

An arrow that other arrows already imply is left out.
"""

import ast
import sys
from collections.abc import Mapping
from graphlib import TopologicalSorter
from importlib.util import resolve_name
from pathlib import Path

import iov_restore_ros

ROOT = iov_restore_ros.__name__
FOLDER = Path(iov_restore_ros.__file__).parent


def imported_packages(folder: Path = FOLDER) -> dict[str, set[str]]:
    """Return, by package in ``folder``, the other packages there that its modules import."""
    packages = sorted(path.parent.name for path in folder.glob('*/__init__.py'))
    imports: dict[str, set[str]] = {package: set() for package in packages}
    for package in packages:
        for path in (folder / package).rglob('*.py'):
            within = '.'.join((ROOT, *path.relative_to(folder).parent.parts))
            for name in _imported_names(ast.parse(path.read_text()), within):
                root, _, rest = name.partition('.')
                imported = rest.partition('.')[0]
                if root == ROOT and imported in imports and imported != package:
                    imports[package].add(imported)
    return imports


def diagram(imports: Mapping[str, set[str]]) -> str:
    """
    Return the Mermaid diagram of ``imports``, highest package first.

    Raises ``graphlib.CycleError`` if packages import each other in a circle.
    """
    order = [*TopologicalSorter({name: sorted(imports[name]) for name in imports}).static_order()]
    below: dict[str, set[str]] = {}  # all that a package reaches
    for package in order:
        below[package] = imports[package].union(*(below[name] for name in imports[package]))
    lines = ['flowchart TD']
    for package in reversed(order):
        implied = set().union(*(below[name] for name in imports[package]))
        lines += [f'    {package} --> {name}' for name in sorted(imports[package] - implied)]
    return '\n'.join(lines)


def _imported_names(tree: ast.AST, package: str) -> list[str]:
    """Return the full names of the modules, or of what is in them, that a module imports."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = resolve_name('.' * node.level + (node.module or ''), package)
            names += [f'{module}.{alias.name}' for alias in node.names]
    return names


def main() -> int:
    """Print the diagram; returns the exit status."""
    print(diagram(imported_packages()))
    return 0


if __name__ == '__main__':
    sys.exit(main())
