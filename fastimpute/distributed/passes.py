"""Reading a Dask array once more, instead of keeping it in memory from one pass to the next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

if TYPE_CHECKING:
    import dask.array as da
    from dask.delayed import Delayed


def read_anew(array: da.Array, after: Delayed) -> da.Array:
    """The same array, computed by tasks of its own that begin only after another one is done.

    Dask computes a task once and keeps the result until all have used it: of an array that is needed early and late
    every chunk would be kept. (`dask.graph_manipulation.bind` is meant for this, but as of Dask 2026.8 it leaves the
    tasks of a rechunked array as they are.) What is in memory already, as data or as futures, stays as it is.
    """
    import dask.array as da
    from dask._task_spec import Task, TaskRef, convert_legacy_graph
    from dask.base import optimize
    from dask.highlevelgraph import HighLevelGraph

    (array,) = optimize(array)
    nodes: dict[Any, Any] = convert_legacy_graph(dict(array.__dask_graph__()))
    token = uuid4().hex
    names = {key: _renamed(key, token) for key in nodes}
    graph: dict[Any, Any] = {}
    for key, node in nodes.items():
        anew = node.substitute(names, key=names[key])
        if isinstance(node, Task) and not node.dependencies:
            anew = Task(names[key], _second, TaskRef(after.key), anew)
        graph[names[key]] = anew
    name = str(_renamed(array.name, token))
    collections: Any = [after]
    layers = HighLevelGraph.from_collections(name, graph, dependencies=collections)
    return da.Array(layers, name, array.chunks, meta=array)


def _renamed(key: Any, token: str) -> Any:
    return (f"{key[0]}-{token}", *key[1:]) if isinstance(key, tuple) else f"{key}-{token}"


def _second(first: object, value: Any) -> Any:
    return value
