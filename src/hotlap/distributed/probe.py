"""Ask a Ray cluster who it is, in a process of its own.

Ray's client waits for minutes, prints as it does so and may abort the process where the token or
the address is wrong; here the asker can set a time limit and read one line of JSON.

    python -P probe.py HOST:PORT
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import Any

_LOOPBACK = ("127.", "::1")


def main(address: str) -> None:
    """Print what the cluster at `address` says of itself, or the kind of failure."""
    ray: Any = importlib.import_module("ray")
    facts: dict[str, Any] = {}
    try:
        client = ray._raylet.GcsClient(address=address)
        said = client.internal_kv_get(b"CLUSTER_METADATA", b"cluster", timeout=10)
        metadata = json.loads(said) if said else {}
        facts["ray"] = metadata.get("ray_version")
        facts["python"] = metadata.get("python_version")
    except ray.exceptions.AuthenticationError:
        facts["failure"] = "token"
    except Exception as error:  # whatever it is, the asker says it in words
        facts["failure"] = f"{type(error).__name__}: {error}".splitlines()[0]
    else:
        facts["member"] = _member()
        nodes = client.get_all_node_info(timeout=10).values()
        facts["loopback"] = any(node.node_manager_address.startswith(_LOOPBACK) for node in nodes)
        facts["open"] = _lets_in_without_token(ray, address)
    print(json.dumps(facts))  # noqa: T201


def _lets_in_without_token(ray: Any, address: str) -> bool:
    """Say whether the cluster wants no token; one that is shown all the same confuses workers."""
    os.environ["RAY_AUTH_MODE"] = "disabled"
    inside = ray._raylet
    if hasattr(inside, "AuthenticationTokenLoader"):  # since 2.52
        inside.Config.initialize("")
        inside.AuthenticationTokenLoader.instance().reset_cache()
    try:
        inside.GcsClient(address=address).internal_kv_get(b"CLUSTER_METADATA", b"cluster")
    except Exception:  # it would have been let in with the token
        return False
    return True


def _member() -> bool:
    """Say whether a node of Ray runs on this machine, without which no driver can start."""
    services: Any = importlib.import_module("ray._private.services")
    if not hasattr(services, "find_node_ids"):  # an older Ray: then `ray.init` says it, and later
        return True
    return bool(services.find_node_ids())


if __name__ == "__main__":
    main(sys.argv[1])
