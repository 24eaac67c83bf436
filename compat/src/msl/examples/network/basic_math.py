"""A service that takes its time to calculate: seconds, so that one can see what runs beside what.

::

    python -m msl.examples.network.basic_math
"""

# Who looks at the service sees the signatures, as they are when they are evaluated: with the annotations of
# the future, they would show quotes.
import math
import time
from typing import Union

from msl.network import Service

__all__ = ["BasicMath"]


class BasicMath(Service):
    """Two constants, and calculations that take from one second to six."""

    euler = math.e
    """A constant is read by calling it: ``link.euler()``."""

    @property
    def pi(self) -> float:
        """A property is read in the same way."""
        return math.pi

    def add(self, x: Union[int, float], y: Union[int, float]) -> Union[int, float]:
        """Takes a second."""
        time.sleep(1)
        return x + y

    def subtract(self, x: Union[int, float], y: Union[int, float]) -> Union[int, float]:
        """Takes two seconds."""
        time.sleep(2)
        return x - y

    def multiply(self, x: Union[int, float], y: Union[int, float]) -> Union[int, float]:
        """Takes three seconds."""
        time.sleep(3)
        return x * y

    def divide(self, x: Union[int, float], y: Union[int, float]) -> Union[int, float]:
        """Takes four seconds."""
        time.sleep(4)
        return x / y

    def ensure_positive(self, x: Union[int, float]) -> bool:
        """Takes five seconds.

        Raises:
            ValueError: `x` is negative.
        """
        time.sleep(5)
        if x < 0:
            raise ValueError("The value is < 0")
        return True

    def power(self, x: Union[int, float], n=2) -> Union[int, float]:  # type: ignore[no-untyped-def]
        """Takes six seconds."""
        time.sleep(6)
        result: float = x**n
        return result


if __name__ == "__main__":
    BasicMath().start()
