"""Earlier states of the repository's packages, as git's history has them."""

from __future__ import annotations

import io
import subprocess
import tarfile
import tomllib
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from packaging.utils import canonicalize_name


class State(NamedTuple):
    """One state of a package's folder: the folder's name and git's id of its tree."""

    folder: str
    tree: str


class HistoryUnavailable(RuntimeError):
    """Git or the history is missing; the message says which."""


class History:
    """Every committed state of the packages below `preprocessors`.

    Raises HistoryUnavailable if the folder is not under version control.
    """

    def __init__(self, preprocessors: Path) -> None:
        self._root = preprocessors
        #: For each name and version, newest first.
        self._states: dict[tuple[str, str], list[State]] = defaultdict(list)
        seen: set[str] = set()
        for commit in self._git("log", "--format=%H", "--", ".").decode().split():
            for line in self._git("ls-tree", "-d", commit, "./").decode().splitlines():
                details, _, path = line.partition("\t")
                tree = details.split()[2]
                if tree not in seen:
                    seen.add(tree)
                    self._add(State(Path(path).name, tree))

    @property
    def shallow(self) -> bool:
        """Whether this clone lacks older commits."""
        return self._git("rev-parse", "--is-shallow-repository").strip() == b"true"

    def states(self, name: str, version: str) -> list[State]:
        """Return the distinct states of a package's sources that had this version."""
        return self._states.get((name, version), [])

    def extract(self, state: State, folder: Path) -> Path:
        """Write a state's files below `folder`; return their own folder."""
        # From a folder inside, git would archive that path of the tree.
        top = Path(self._git("rev-parse", "--show-toplevel").decode().rstrip("\n"))
        content = self._git("archive", state.tree, at=top)
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            archive.extractall(folder / state.folder, filter="data")
        return folder / state.folder

    def _add(self, state: State) -> None:
        try:
            text = self._git("cat-file", "blob", f"{state.tree}:pyproject.toml").decode()
            project = tomllib.loads(text)["project"]
            key = canonicalize_name(project["name"]), str(project["version"])
        except (HistoryUnavailable, ValueError, KeyError):
            return  # no package then, or not one that could be built
        self._states[key].append(state)

    def _git(self, *arguments: str, at: Path | None = None) -> bytes:
        command = ["git", "-C", str(at or self._root), *arguments]
        try:
            done = subprocess.run(command, capture_output=True, check=False)  # noqa: S603
        except OSError as error:
            raise HistoryUnavailable(f"git cannot be run: {error}") from None
        if done.returncode:
            raise HistoryUnavailable(done.stderr.decode(errors="replace").strip())
        return done.stdout
