"""A service with lists of numbers.

::

    python -m msl.examples.network.array
"""

# Not with the annotations of the future: see basic_math.
from typing import List, Union

from msl.network import Service

__all__ = ["MyArray"]


class MyArray(Service):
    """Makes lists of numbers, and calculates with them."""

    @staticmethod
    def linspace(start: Union[int, float], stop: Union[int, float], n=100) -> List[float]:  # type: ignore[no-untyped-def]
        """`n` numbers from `start` to `stop`, both included, at equal distances."""
        step = (stop - start) / (n - 1) if n > 1 else 0.0
        return [start + step * index for index in range(n)]

    @staticmethod
    def scalar_multiply(scalar: Union[int, float], data: List[float]) -> List[float]:
        """Each number of `data` times `scalar`."""
        return [scalar * value for value in data]


if __name__ == "__main__":
    MyArray().start()
