"""Documents that were right, with seeded damage: values, sizes, depth, names, RLE, polygons."""

import copy
import json
import math
import random
from collections.abc import Iterator
from typing import Any

Random = random.Random

NUMBERS: list[Any] = [
    *(0, -1, 1, 2**31 - 1, 2**31, 2**32 + 1, 2**53, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**400),
    *(0.5, -0.0, 1e-320, 1e9, 1e18, 1e308, -1e308, math.nan, math.inf, -math.inf),
]
TEXTS: list[Any] = [
    *(
        "",
        " ",
        "0",
        "1",
        "null",
        "a" * 300,
        "x" * 70_000,
        "\0",
        "\n",
        "\ud800",
        "\u202e",
        "ſ",
        "🍎",
    ),
    *(
        "../x",
        "/etc/passwd",
        "C:\\x",
        "a/../../b",
        ".",
        "con",
        "a%2Fb",
        "%",
        "%ff",
        "http://[",
        "//",
    ),
    *(
        "s3://",
        "file:///x",
        "-1",
        "1e999",
        "${x}",
        "' OR 1=1",
        "<b>",
        "&x;",
        "1,2;3",
        ",",
        ";",
        "9" * 5000,
    ),
]
KINDS: list[Any] = [None, True, False, [], {}, [[]], [{}], {"": None}, [None] * 50, [[[[1]]]]]
COUNTS: list[Any] = [
    *("", "0", "~", "o" * 50, "P", "PPPPPPPPPPPPPPPP", "\x00", "0" * 100_000, "oooooooooooooo0"),
    *([], [0], [-1, 1201], [1200], [0, 1200], [2**62, 2**62], [1.5, 1198.5], ["1200"], [1] * 5_000),
]
POLYGONS: list[Any] = [
    *(
        [],
        [[]],
        [[1]],
        [[1, 2]],
        [[1, 2, 3, 4]],
        [[1, 2, 3, 4, 5]],
        [[0, 0, 0, 0, 0, 0]],
        [1, 2, 3],
    ),
    *([[0, 0, 1e9, 0, 1e9, 1e9]], [[-1e9, 0, 5, 0, 5, 5]], [[0, 0, 40, 0, 40, 30, 0, 30]] * 200),
    *([[math.nan] * 6], [["1"] * 6], [[0, 0, 39, 29] * 5_000], [[True, 0, 5, 0, 5, 5]], [None]),
]
SIZES: list[Any] = [
    *([30, 40], [40, 30], [0, 0], [-30, -40], [1, 1200], [2**31 - 1, 2**31 - 1], [2**32 + 30, 40]),
    *([30.0, 40.0], ["30", "40"], [30], [30, 40, 3], 1200, None, [2**62, 2**62], [True, True]),
]
DEPTHS = (65, 300, 3_000, 100_000)


def hostile(r: Random) -> Any:
    """A value that has no place in a document."""
    make = r.randrange(8)
    if make == 0:
        return copy.deepcopy({"size": r.choice(SIZES), "counts": r.choice(COUNTS)})
    if make == 1:
        return f"deep {r.choice(DEPTHS)}"
    pool = (NUMBERS, TEXTS, KINDS, COUNTS, POLYGONS, SIZES)[make - 2]
    return copy.deepcopy(r.choice(pool))


def damaged(document: Any, r: Random) -> Any:
    """A copy with one to four places changed."""
    changed = copy.deepcopy(document)
    for _ in range(r.choice((1, 1, 2, 4))):
        places = list(_places(changed))
        if not places:
            return hostile(r)
        parent, key = r.choice(places)
        match r.randrange(7):
            case 0:
                del parent[key]
            case 1 if isinstance(parent, list):
                parent.extend(copy.deepcopy(parent[key]) for _ in range(r.choice((1, 40))))
            case 2:
                other, name = r.choice(places)
                parent[key] = copy.deepcopy(other[name])
            case 3 if isinstance(parent, dict):
                parent[r.choice(("", "mask", "points", "group_id", "segmentation", "a/b~c"))] = (
                    hostile(r)
                )
            case _:
                parent[key] = hostile(r)
    return changed


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Each list or object, with each of its indices or names."""
    if isinstance(value, dict | list):
        keys = list(value) if isinstance(value, dict) else range(len(value))
        for key in list(keys)[:200]:
            yield value, key
            yield from _places(value[key])


def written(document: Any, r: Random) -> bytes:
    """Its JSON, deeper than `json.dumps` goes where it says so, and sometimes with broken bytes."""
    text = json.dumps(document)
    for levels in DEPTHS:
        text = text.replace(f'"deep {levels}"', "[" * levels + "]" * levels)
    raw = bytearray(text.encode())
    if r.random() < 0.1 and raw:
        for _ in range(r.choice((1, 5))):
            raw[r.randrange(len(raw))] = r.randrange(256)
    if r.random() < 0.05:
        raw = raw[: r.randrange(len(raw) + 1)]
    return bytes(raw)
