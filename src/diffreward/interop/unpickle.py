"""The steps of a pickle that build plain data, and no others.

A pickle is a program for a small machine. :mod:`pickletools` takes it apart without running
it, and the table below does the few steps that strings, numbers and containers need. A step
that is not in the table ends the reading: none of them imports, calls or changes anything
that was not made here.
"""

import pickletools
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

STEP = 256
"""Bytes that no step takes more of, beside the text it carries."""
LONGEST = 16 * 2**20
"""Bytes of the longest pickle that is read; those of large models have one."""


class Builder(NamedTuple):
    """What a known name stands for: a function of its arguments, harmless by itself."""

    name: str
    call: Callable[..., Any]


class Pending:
    """Stands for an object until its state is known."""

    def __init__(self):
        """Nothing refers to it yet."""
        self.keys: list[int] = []
        """Where the pickle remembers it."""


class Blank(NamedTuple):
    """What the name of a class stands for that is known to hold settings alone."""

    name: str


class Inert:
    """An object of such a class: its state, and nothing that it could do."""

    def __init__(self, name: str):
        """It has no state yet."""
        self.name, self.state = name, {}


class Refused(ValueError):
    """A pickle that wants more than plain data."""


class Known(NamedTuple):
    """What a pickle may use beside plain data."""

    names: Mapping[str, Any]
    """Builders, or plain values, by ``module.name``."""
    stored: Callable[[Any], Any]
    """The object of a persistent identifier."""
    build: Callable[[Any, Any], Any]
    """An object that stands for one of ours and its state; raises for any other."""
    spend: Callable[[int, str], None]
    """Asks for memory."""


def unpickle(data: bytes, known: Known) -> Any:
    """Builds what a pickle describes; its sets become lists.

    Args:
        data: the pickle.
        known: what it may use.

    Raises:
        Refused: at the first step or name that is not known.
        ValueError: if it is damaged, or has keys other than strings and whole numbers.
    """
    if len(data) > LONGEST:
        raise Refused(f"has a pickle of {len(data):,} bytes, more than {LONGEST:,}")
    machine = _Machine(known, len(data))
    for op, argument, _ in pickletools.genops(data):
        known.spend(STEP, "its structure")
        if op.name in PLAIN:
            machine.stack.append(argument)
        elif op.name in EMPTY:
            machine.stack.append(EMPTY[op.name]())
        elif op.name in STEPS:
            STEPS[op.name](machine, argument)
        else:
            raise Refused(f"wants to run the step {op.name}")
    if len(machine.stack) != 1 or machine.marks:
        raise ValueError("its pickle ends in the middle")
    result = machine.pop()
    if isinstance(result, Builder | Blank):
        raise Refused(f"holds {result.name} alone")
    return result


class _Machine:
    def __init__(self, known: Known, length: int):
        self.known, self.length = known, length
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def pop(self) -> Any:
        self.need(1)
        return self.stack.pop()

    def need(self, count: int) -> None:
        """Steps reach no further down than the last mark."""
        if len(self.stack) - (self.marks[-1] if self.marks else 0) < count:
            raise ValueError("its pickle takes more than it made")

    def since_mark(self) -> list[Any]:
        if not self.marks:
            raise ValueError("its pickle takes more than it made")
        place = self.marks.pop()
        items = self.stack[place:]
        del self.stack[place:]
        return items

    def top(self, kind: type) -> Any:
        self.need(1)
        if not isinstance(self.stack[-1], kind):
            raise ValueError(f"its pickle fills what is no {kind.__name__}")
        return self.stack[-1]


def _set(target: dict, items: list[Any]) -> None:
    if len(items) % 2:
        raise ValueError("its pickle has a key without a value")
    for key, value in zip(items[::2], items[1::2], strict=True):
        # Hashing a nested tuple may take for ever.
        if not isinstance(key, str | int):
            raise Refused(f"has a {type(key).__name__} as a key")
        target[key] = value


def _put(machine: _Machine, key: int) -> None:
    value = machine.top(object)
    if not 0 <= key <= machine.length:
        raise Refused(f"remembers a thing as number {key:,}, more than there are")
    machine.memo[key] = value
    if isinstance(value, Pending):
        value.keys.append(key)


def _get(machine: _Machine, key: int) -> None:
    if key not in machine.memo:
        raise ValueError("its pickle uses what it did not make")
    machine.stack.append(machine.memo[key])


def _tuple(machine: _Machine, count: int) -> None:
    machine.need(count)
    items = tuple(machine.stack[-count:])
    del machine.stack[-count:]
    machine.stack.append(items)


def _name(machine: _Machine, module: Any, name: Any) -> None:
    full = f"{module}.{name}"
    if full not in machine.known.names:
        raise Refused(f"wants to run {full}")
    machine.stack.append(machine.known.names[full])


def _stack_global(machine: _Machine, _: Any) -> None:
    name, module = machine.pop(), machine.pop()
    if not (isinstance(name, str) and isinstance(module, str)):
        raise Refused("names a function by what is no text")
    # A dot in the name walks attributes there.
    _name(machine, module, name if "." not in name else f" {name}")


def _reduce(machine: _Machine, _: Any) -> None:
    arguments, function = machine.pop(), machine.pop()
    if not isinstance(function, Builder) or not isinstance(arguments, tuple):
        raise Refused("calls what is no function of ours")
    for part in arguments:  # which it may have used before, and often
        if isinstance(part, str | bytes | list | tuple):
            width = 2 if isinstance(part, str | bytes) else STEP
            machine.known.spend(width * len(part), "its structure")
    machine.stack.append(function.call(*arguments))


def _new(machine: _Machine, _: Any) -> None:
    arguments, kind = machine.pop(), machine.pop()
    if not isinstance(kind, Blank) or arguments != ():
        raise Refused("makes an object of a class that is not known")
    machine.stack.append(Inert(kind.name))


def _build(machine: _Machine, _: Any) -> None:
    state, target = machine.pop(), machine.pop()
    if isinstance(target, Inert):
        if not isinstance(state, dict):
            raise Refused("changes an object by what is no table")
        target.state = state
        machine.stack.append(target)
        return
    made = machine.known.build(target, state)
    if isinstance(target, Pending):
        machine.memo |= {k: made for k in target.keys if machine.memo[k] is target}
    machine.stack.append(made)


def _dict(machine: _Machine, _: Any) -> None:
    items = machine.since_mark()
    machine.stack.append({})
    _set(machine.stack[-1], items)


def _set_item(machine: _Machine, _: Any) -> None:
    value, key = machine.pop(), machine.pop()
    _set(machine.top(dict), [key, value])


def _set_items(machine: _Machine, _: Any) -> None:
    items = machine.since_mark()
    _set(machine.top(dict), items)


def _append(machine: _Machine, _: Any) -> None:
    value = machine.pop()
    machine.top(list).append(value)


def _extend(machine: _Machine, _: Any) -> None:
    items = machine.since_mark()
    machine.top(list).extend(items)


PLAIN = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
"""Steps that put their own argument on the stack."""
EMPTY: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": list,
}
STEPS: dict[str, Callable[[_Machine, Any], Any]] = {
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "STOP": lambda machine, _: None,
    "MARK": lambda machine, _: machine.marks.append(len(machine.stack)),
    "POP": lambda machine, _: machine.pop(),
    "POP_MARK": lambda machine, _: machine.since_mark(),
    "PUT": _put,
    "BINPUT": _put,
    "LONG_BINPUT": _put,
    "MEMOIZE": lambda machine, _: _put(machine, len(machine.memo)),
    "GET": _get,
    "BINGET": _get,
    "LONG_BINGET": _get,
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.since_mark())),
    "TUPLE1": lambda machine, _: _tuple(machine, 1),
    "TUPLE2": lambda machine, _: _tuple(machine, 2),
    "TUPLE3": lambda machine, _: _tuple(machine, 3),
    "LIST": lambda machine, _: machine.stack.append(machine.since_mark()),
    "FROZENSET": lambda machine, _: machine.stack.append(machine.since_mark()),
    "DICT": _dict,
    "SETITEM": _set_item,
    "SETITEMS": _set_items,
    "APPEND": _append,
    "APPENDS": _extend,
    "ADDITEMS": _extend,
    "GLOBAL": lambda machine, names: _name(machine, *names.split(" ", 1)),
    "STACK_GLOBAL": _stack_global,
    "BINPERSID": lambda machine, _: machine.stack.append(
        machine.known.stored(machine.pop())
    ),
    "REDUCE": _reduce,
    "NEWOBJ": _new,
    "BUILD": _build,
}


def ordered(*items: Any) -> OrderedDict:
    """Builder of an ordered dictionary, from nothing or from a list of pairs.

    Raises:
        ValueError: for anything else.
    """
    made: OrderedDict = OrderedDict()
    pairs = items[0] if items else []
    if len(items) > 1 or not isinstance(pairs, list):
        raise ValueError("an OrderedDict of other things than pairs")
    for pair in pairs:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise ValueError("an OrderedDict of other things than pairs")
        _set(made, list(pair))
    return made
