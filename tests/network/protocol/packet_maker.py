"""Makes lines that are packets, or nearly: for those who read them under fire."""

from __future__ import annotations

import json
import random

__all__ = ["Maker"]

KEYS = ["service", "attribute", "uid", "requester", "error", "result", "args", "kwargs", "more", "bin1", "x"]
TEXTS = ["DMM", "Manager", "__disconnect__", "notification", "c0ffee-1", "é", "\ud800", 'a"\\', "", "😀"]
SIGNS = (
    rb"""{ } [ ] " : , \ 0 1 - . e NaN Infinity -Infinity null true \u00e9 \ud800 \u12 '' [[ [{"": ] ]] }"""
)
RAW = [
    b"",
    b" ",
    b"\t",
    b"\r",
    b"\n",
    b"\x00",
    b"\x01",
    b"\x7f",
    b"\xc3\xa9",
    b"\xc3",
    b"\xff",
    b"\xed\xa0\x80",
]
DAMAGE = [*SIGNS.split(), *RAW]


class Maker:
    """Makes lines."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def value(self, depth: int = 0) -> object:
        rng = self.rng
        match rng.randrange(12 if depth < 5 else 6):
            case 0:
                return rng.choice(
                    [0, -1, 10**25, -0.0, 1.5, 1e300, float("nan"), float("inf"), -float("inf")]
                )
            case 1:
                return rng.choice([True, False, None])
            case 2 | 3 | 4 | 5:
                return rng.choice([*TEXTS, "{", "}", "[,]", '"uid":', "\n", "x" * rng.choice([3, 300, 3000])])
            case 6 | 7 | 8 | 9:
                return [self.value(depth + 1) for _ in range(rng.randrange(5))]
        return {rng.choice([*KEYS, "", '"']): self.value(depth + 1) for _ in range(rng.randrange(4))}

    def text(self, value: object) -> bytes:
        rng = self.rng
        separators = rng.choice([(",", ":"), (", ", ": "), (" ,\t", " :\r")])
        text = json.dumps(value, ensure_ascii=rng.random() < 0.5, separators=separators)
        return text.encode("utf-8", "backslashreplace")

    def member(self) -> bytes:
        rng = self.rng
        key = rng.choice(KEYS)
        value = self.value()
        if rng.random() < 0.85:
            if key in ("service", "attribute", "uid", "requester"):
                value = rng.choice(TEXTS)
            elif key in ("error", "more"):
                value = rng.choice([True, False, None])
            elif key == "bin1":
                value = rng.choice([0, 1, 5, 1000])
        name = json.dumps(key)
        if rng.random() < 0.05:
            name = name.replace("r", r"\u0072")
        return name.encode() + self.blank() + b":" + self.blank() + self.text(value) + self.blank()

    def blank(self) -> bytes:
        return self.rng.choice([b"", b"", b"", b" ", b"\t", b"\r "])

    def line(self) -> bytes:
        """A packet, more or less, with its terminator."""
        rng = self.rng
        members = [self.member() for _ in range(rng.randrange(8))]
        if rng.random() < 0.5:
            members = list({member.split(b":")[0].strip(): member for member in members}.values())
            members += [b'"service":"DMM"', b'"attribute":"a"'] if rng.random() < 0.5 else [b'"result":1']
            rng.shuffle(members)
        line = b"{" + b",".join(members) + b"}"
        if rng.random() < 0.4:
            for _ in range(rng.randrange(1, 4)):
                start = rng.randrange(len(line) + 1)
                line = line[:start] + rng.choice(DAMAGE) + line[start + rng.randrange(3) :]
        return line.replace(b"\n", b"") + rng.choice([b"\r\n", b"\n", b" \r\n"])

    def sizes(self, length: int) -> list[int]:
        largest = self.rng.choice([1, 3, 20, 700, 10_000])
        return [self.rng.randrange(largest) + 1 for _ in range(max(3, 2 * length // largest))]
