"""What all settings have in common: they are checked, errors name them, and no error ever shows a value."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from math import inf, isnan
from typing import NoReturn, TypeVar

from ._errors import ConfigError

__all__ = [
    "check_choice",
    "check_int",
    "check_seconds",
    "check_type",
    "construct",
    "replicas_in",
    "to_int",
    "to_minutes",
    "to_switch",
    "wrong",
]

_T = TypeVar("_T")


def wrong(name: str, problem: str) -> NoReturn:
    # Never the value: it may be a password that ended up in the wrong place.
    raise ConfigError(f"{name} {problem}") from None


def check_type(name: str, value: object, kind: type | tuple[type, ...], text: str) -> None:
    if not isinstance(value, kind):
        wrong(name, f"must be {text}, not {type(value).__name__}")


def check_choice(name: str, value: object, *choices: bool | str) -> None:
    # By type too: 1 equals True, but is no answer to yes or no.
    if not any(type(value) is type(choice) and value == choice for choice in choices):
        wrong(name, f"must be one of {', '.join(map(repr, choices))}")


def check_int(name: str, value: object, least: int, most: float = inf) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        wrong(name, f"must be an int, not {type(value).__name__}")
    if not least <= value <= most:
        wrong(name, f"must be at least {least}" + (f", at most {most}" if most < inf else ""))


def check_seconds(name: str, value: object, *, zero: bool = False, forever: bool = True) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        wrong(name, f"must be a number of seconds, not {type(value).__name__}")
    if isinstance(value, int) and abs(value) > 10**18:
        wrong(name, "is beyond all clocks; math.inf means never")
    if isnan(value) or value < 0 or (value == 0 and not zero):
        wrong(name, f"must be {'at least' if zero else 'more than'} 0 seconds")
    if value == inf and not forever:
        wrong(name, "must be finite")


_find_replicas = re.compile(r"replicas:([1-9][0-9]{0,2})").fullmatch


def replicas_in(durability: object) -> int:
    """How many replicas a `durability` asks for."""
    if durability is None:
        return 0
    check_type("durability", durability, str, "a str or None")
    found = _find_replicas(str(durability))
    if found is None:
        wrong("durability", "must be 'replicas:' and how many, as in 'replicas:1'")
    return int(found[1])


def construct(
    kind: Callable[..., _T],
    environ: Mapping[str, str],
    **variables: tuple[str, Callable[[str], object]],
) -> _T:
    """Make a `kind` of what the environment says; errors name the variable, not the field."""
    values: dict[str, object] = {}
    for field_name, (variable, convert) in variables.items():
        if text := environ.get(variable):
            try:
                values[field_name] = convert(text)
            except ValueError as error:
                wrong(variable, str(error))
    try:
        return kind(**values)
    except ConfigError as error:
        field_name, _, problem = str(error).partition(" ")
        wrong(variables[field_name][0], problem)


def to_int(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError("must be a whole number") from None


def to_minutes(text: str) -> float:
    try:
        return float(text) * 60
    except ValueError:
        raise ValueError("must be a number of minutes") from None


def to_switch(text: str) -> bool | str:
    switches: dict[str, bool | str] = {"1": True, "true": True, "0": False, "false": False}
    switch = switches.get(text.lower(), text.lower())
    if switch not in (True, False, "auto"):
        raise ValueError("must be true, false or auto")
    return switch
