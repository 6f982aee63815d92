"""A model of a disk that may lose power: what is durable, and what may be left after a loss.

While `DiskRecorder` is active, it records the files below a folder at every call of this process
that renames, links, deletes, creates a folder or flushes. A file's content is durable as it was
at its last fsync, and the entries of a folder as they were at the folder's last fsync. Files that
other libraries write are found by reading the tree before every call; they count as never flushed.
This is the worst case that POSIX allows: most file systems keep more.
"""

import os
import re
import stat
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

__all__ = ["CrashPoint", "Disk", "DiskRecorder", "Node"]

_CHANGES = ("rename", "replace", "link", "symlink", "unlink", "remove", "mkdir", "rmdir")
"""Functions of `os` that change entries of folders."""
_FLUSHES = ("fsync", "fdatasync")


@dataclass(frozen=True, eq=False)
class Node:
    """A file or folder, whatever its names are: an inode that is never used again."""

    is_folder: bool


@dataclass(frozen=True)
class Disk:
    """The entries of folders, and the contents of files; also of files without a name."""

    entries: Mapping[Node, Mapping[str, Node]] = field(default_factory=dict)
    contents: Mapping[Node, bytes] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class CrashPoint:
    """A moment of the recorded process: what it sees, and what a disk must hold after a loss."""

    event: str
    """The call that the loss prevented."""
    root: Node
    current: Disk
    durable: Disk


class DiskRecorder:
    """Records what is durable below a folder while it is active, and calls back at every change.

    Everything that exists at the start is durable. Only one may be active at a time. Thread-safe.
    """

    def __init__(self, folder: Path, on_point: Callable[[CrashPoint], None]) -> None:
        """`on_point` is called before every call that changes or flushes something."""
        self._folder, self._on_point = folder.resolve(), on_point
        self._root = Node(is_folder=True)
        self._lock = threading.RLock()
        self._nodes: dict[int, Node] = {}
        self._names: dict[Node, set[tuple[Node, str]]] = {}
        self._read: dict[Node, tuple[int, ...]] = {}
        """Size and times of each file when its content was read."""
        self._current = self._durable = Disk()
        self._functions: dict[str, Callable[..., Any]] = {}

    def __enter__(self) -> Self:
        self._scan()
        self._durable = self._current
        for name in _CHANGES:
            self._hook(name, self._change)
        for name in _FLUSHES:
            self._hook(name, self._flush)
        self._hook("sync", self._flush_all)
        return self

    def __exit__(self, *error: object) -> None:
        for name, function in self._functions.items():
            setattr(os, name, function)

    def point(self, event: str) -> None:
        """Read the tree, and call back as before a call."""
        with self._lock:
            self._scan()
            self._on_point(
                CrashPoint(
                    event=event, root=self._root, current=self._current, durable=self._durable
                )
            )

    def _hook(self, name: str, handle: Callable[..., Any]) -> None:
        self._functions[name] = getattr(os, name)
        setattr(os, name, partial(handle, name))

    def _change(self, name: str, *arguments: Any, **keywords: Any) -> Any:
        function = self._functions[name]
        if not self._is_inside(arguments, keywords):
            return function(*arguments, **keywords)
        with self._lock:
            paths = [path for path in arguments if not isinstance(path, int)]
            self.point(f"{name} {self._shown(paths[-1])}")
            result = function(*arguments, **keywords)
            self._scan(by_hook=True)
            return result

    def _flush(self, name: str, target: Any) -> None:
        descriptor = target if isinstance(target, int) else target.fileno()
        path = _path_of(descriptor)
        function = self._functions[name]
        if not self._is_inside((path,), {}):
            function(target)
            return
        with self._lock:
            self.point(f"{name} {self._shown(path)}")
            function(target)
            status = os.fstat(descriptor)
            node = self._nodes.get(status.st_ino)
            if node is None:
                return
            entries, contents = dict(self._durable.entries), dict(self._durable.contents)
            if stat.S_ISDIR(status.st_mode):
                entries[node] = self._current.entries[node]
            else:
                contents[node] = self._current.contents[node]
            self._durable = Disk(entries, contents)

    def _flush_all(self, name: str) -> None:
        with self._lock:
            self.point(name)
            self._functions[name]()
            self._durable = self._current

    def _is_inside(self, arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> bool:
        """Return whether a call concerns a path below the folder."""
        keys = ("dir_fd", "src_dir_fd", "dst_dir_fd")
        open_folders = [_path_of(keywords[key]) for key in keys if keywords.get(key) is not None]
        paths = [Path(os.fsdecode(a)).absolute() for a in arguments if not isinstance(a, int)]
        return any(path.is_relative_to(self._folder) for path in open_folders or paths)

    def _shown(self, path: Any) -> str:
        """Return a path below the folder without the random parts of temporary names."""
        name = os.path.relpath(self._folder / os.fsdecode(path), self._folder)
        return re.sub(r"\.tmp-[0-9a-f]{8}$", ".tmp", name)

    def _scan(self, *, by_hook: bool = False) -> None:
        """Read the tree; `by_hook` if a call that is known has just changed its names."""
        found: dict[Node, set[tuple[Node, str]]] = {}
        entries: dict[Node, Mapping[str, Node]] = {}
        contents = dict(self._current.contents)
        nodes: dict[int, Node] = {}
        waiting = [(str(self._folder), self._root)]
        while waiting:
            path, folder = waiting.pop()
            names = {}
            for entry in _entries(path):
                status = _status(entry.path)
                if status is None:
                    continue
                node = nodes.get(status.st_ino) or self._node(
                    status, (folder, entry.name), by_hook=by_hook
                )
                if node.is_folder:
                    waiting.append((entry.path, node))
                elif not self._read_content(node, entry.path, status, contents):
                    continue
                nodes[status.st_ino] = names[entry.name] = node
                found.setdefault(node, set()).add((folder, entry.name))
            entries[folder] = names
        self._nodes, self._names = nodes, found
        # The root itself is not an entry of the tree.
        self._nodes[self._folder.stat().st_ino] = self._root
        self._current = Disk(entries, contents)

    def _node(self, status: os.stat_result, name: tuple[Node, str], *, by_hook: bool) -> Node:
        """Return the node of an inode. A number that another file had before gets a new one."""
        node = self._nodes.get(status.st_ino)
        is_folder = stat.S_ISDIR(status.st_mode)
        is_same = node is not None and node.is_folder == is_folder
        if node is not None and is_same and (by_hook or name in self._names.get(node, ())):
            return node
        return Node(is_folder=is_folder)

    def _read_content(
        self, node: Node, path: str, status: os.stat_result, contents: dict[Node, bytes]
    ) -> bool:
        """Read a file if it has changed; return whether it still exists."""
        version = (status.st_size, status.st_mtime_ns, status.st_ino)
        if node not in contents or self._read.get(node) != version:
            try:
                contents[node] = Path(path).read_bytes()
            except FileNotFoundError:
                return False
            self._read[node] = version
        return True


def _path_of(descriptor: int) -> Path:
    """Return the path of an open file or folder."""
    return Path(f"/proc/self/fd/{descriptor}").readlink()


def _entries(folder: str) -> list[os.DirEntry[str]]:
    """Return the entries of a folder, sorted; none if it was deleted meanwhile."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except FileNotFoundError:
        return []


def _status(path: str) -> os.stat_result | None:
    """Return the status of a file or folder; None if it was deleted meanwhile."""
    try:
        return os.lstat(path)
    except FileNotFoundError:
        return None
