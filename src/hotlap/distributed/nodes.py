"""The machines of a cluster: what each has, whether it computes as this one does, who has room."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hotlap.errors import ClusterError

__all__ = ["Node", "differences", "nodes", "room"]

MiB = 2**20

SAME = ("hotlap", "source", "python", "ray")
"""What has to be the same everywhere: these speak with each other."""

ALIKE = ("torch", "numpy", "numba", "cpu")
"""What may differ, but then the same seed may give other bits."""

ANSWER = 60.0
"""Seconds that a node has to say its versions: its first process has to start for it."""


@dataclass(frozen=True)
class Node:
    """One machine of the cluster, as its head sees it."""

    id: str
    """Ray's name of it."""

    address: str
    """Where it listens."""

    alive: bool
    """False once the head has given it up."""

    head: bool
    """Whether the head of the cluster runs on it."""

    cpus: float
    """CPUs that it offers to all who compute on the cluster."""

    memory: int
    """Bytes that it offers to them."""

    store: int
    """Bytes of its object store, in which weights and experience wait to be fetched."""


def nodes() -> tuple[Node, ...]:
    """Return the nodes of the cluster that this process is connected to, the head first."""
    ray: Any = importlib.import_module("ray")
    found = [_node(entry) for entry in ray.nodes()]
    return tuple(sorted(found, key=lambda node: (not node.head, node.address, node.id)))


def _node(entry: dict[str, Any]) -> Node:
    has = entry.get("Resources", {})
    return Node(
        id=entry["NodeID"],
        address=entry["NodeManagerAddress"],
        alive=bool(entry["Alive"]),
        head=bool(has.get("node:__internal_head__")),
        cpus=float(has.get("CPU", 0)),
        memory=int(has.get("memory", 0)),
        store=int(has.get("object_store_memory", 0)),
    )


def room(found: Sequence[Node], threads: int) -> int:
    """Return for how many workers of `threads` CPUs there is room; none spans two nodes."""
    return sum(int(node.cpus // threads) for node in found if node.alive)


def facts() -> Callable[[], dict[str, str]]:
    """Return the function that says what a machine computes with.

    It is a function inside of this one, because Ray sends such functions whole: a node without
    hotlap, or with another one, can run it.
    """

    def gather() -> dict[str, str]:
        said = {"python": platform.python_version(), "cpu": platform.machine()}
        for name in ("ray", "torch", "numpy", "numba", "hotlap"):
            try:
                said[name] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                said[name] = "none"
        try:
            text = Path("/proc/cpuinfo").read_text()
            flags = next(line for line in text.splitlines() if line.startswith("flags")).split()
            wide = [flag for flag in ("avx512f", "avx2", "avx") if flag in flags]
            said["cpu"] += f" with {wide[0]}" if wide else ""
        except (OSError, StopIteration):
            pass
        try:
            hotlap = importlib.import_module("hotlap")
        except ImportError as error:
            said["hotlap"], said["source"] = f"none ({error})", "none"
            return said
        said["hotlap"] = hotlap.__version__
        digest = hashlib.sha256()
        folder = Path(str(hotlap.__file__)).parent
        for file in sorted(folder.rglob("*.py")):
            digest.update(str(file.relative_to(folder)).encode())
            digest.update(file.read_bytes())
        said["source"] = digest.hexdigest()[:12]
        return said

    return gather


def differences(found: Sequence[Node], answer: float = ANSWER) -> tuple[str, ...]:
    """Ask a task on every node what it computes with; return what may change bits, in sentences.

    Raises:
        ClusterError: a node speaks another version than this machine, or does not answer within
            `answer` seconds.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    alive = [node for node in found if node.alive]
    ask = ray.remote(num_cpus=0, max_retries=0)(facts())
    asked = [
        ask.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)
        ).remote()
        for node in alive
    ]
    ready, _ = ray.wait(asked, num_returns=len(asked), timeout=answer)
    here = facts()()
    warnings = []
    for node, reference in zip(alive, asked, strict=True):
        if reference not in ready:
            raise ClusterError(
                f"node {node.address} of the cluster has not answered for {answer:.0f} s. "
                "Look there: ray status; df -h /dev/shm; or take it out of the cluster."
            )
        try:
            there = ray.get(reference)
        except ray.exceptions.RayError as error:
            raise ClusterError(
                f"node {node.address} of the cluster could not run a task: "
                f"{str(error).strip().splitlines()[-1]}"
            ) from error
        for sentence in unlike(here, there, node.address, SAME):
            raise ClusterError(sentence)
        warnings += unlike(here, there, node.address, ALIKE)
    return tuple(dict.fromkeys(warnings))


def unlike(
    here: dict[str, str], there: dict[str, str], address: str, names: Sequence[str]
) -> list[str]:
    """Return a sentence for each of `names` in which a node differs from this machine."""
    sentences = []
    for name in names:
        ours, theirs = here[name], there.get(name, "none")
        if ours == theirs:
            continue
        if theirs.startswith("none") and name in SAME:
            sentences.append(
                f"node {address} has no hotlap that it can import: {theirs}. Install hotlap "
                f"{here['hotlap']} there, for the Python that runs Ray ({there['python']})."
            )
        elif name == "source":
            sentences.append(
                f"node {address} has hotlap {here['hotlap']} too, but not the same files "
                f"({theirs} there, {ours} here). Copy the checkout to all nodes, and restart Ray."
            )
        elif name in SAME:
            sentences.append(
                f"node {address} has {name} {theirs}, this machine has {ours}. "
                "All nodes need the same: install it there, and restart Ray."
            )
        elif name == "cpu":
            sentences.append(
                f"node {address} has another kind of CPU ({theirs}; here: {ours}): the same seed "
                "may give other last bits than on this machine alone."
            )
        else:
            sentences.append(
                f"node {address} has {name} {theirs}, this machine has {ours}: the same seed may "
                "give other last bits."
            )
    return sentences
