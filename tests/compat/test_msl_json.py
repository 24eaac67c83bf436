"""JSON as 1.0's users choose it."""

from __future__ import annotations

import importlib
import importlib.util
import math
import subprocess
import sys
from collections.abc import Iterator

import pytest

from msl.network import json

# Each package, with all its names.
NAMES = {
    "json": ["BUILTIN", "JSON"],
    "ujson": ["ULTRA", "UJSON"],
    "rapidjson": ["RAPID", "RAPIDJSON"],
    "simplejson": ["SIMPLE", "SIMPLEJSON"],
    "orjson": ["OR", "ORJSON"],
}


@pytest.fixture(autouse=True)
def builtin() -> Iterator[None]:
    """Each test begins with the standard library, and so does what comes after it."""
    json.use("builtin")
    yield
    json.use("builtin")


# `test_every_name_in_any_case_chooses_a_package` says which ones are not.
INSTALLED = [name for name in NAMES if importlib.util.find_spec(name)]


@pytest.fixture(params=INSTALLED)
def package(request: pytest.FixtureRequest) -> str:
    """A package that is installed, and in use."""
    name: str = request.param
    json.use(name)
    return name


class Reading:
    def __init__(self, value: object) -> None:
        self.value = value

    def to_json(self) -> object:
        return {"value": self.value}


def test_the_packages_and_their_names() -> None:
    """There are five, each with two names, and the value of each is the first."""
    assert [name for names in NAMES.values() for name in names] == list(json.Package.__members__)
    for first, second in NAMES.values():
        assert json.Package[first] is json.Package[second]
        assert json.Package[first].value == first


@pytest.mark.parametrize("package_name", NAMES)
def test_every_name_in_any_case_chooses_a_package(package_name: str) -> None:
    """The backend is what `use` was told last, by name or as a member, with that package's functions."""
    pytest.importorskip(package_name)
    names = NAMES[package_name]
    choices = [
        spelled for name in names for spelled in (name, name.lower(), name.title(), json.Package[name])
    ]
    for choice in choices:
        json.use("json")
        json.use(choice)
        assert json.backend.name == package_name
        assert json.backend.enum is json.Package[names[0]]
        assert json.backend.loads.__module__ == package_name
        assert json.backend.dumps.__module__ == package_name


@pytest.mark.parametrize("name", ["", "xxx", "Package.OR", None])
def test_an_unknown_name_is_a_key_error(name: str) -> None:
    """The package that was in use stays so."""
    with pytest.raises(KeyError):
        json.use(name)
    assert json.backend.name == "json"


def test_a_package_that_is_not_installed_is_an_import_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package that was in use stays so."""
    monkeypatch.setitem(sys.modules, "orjson", None)
    with pytest.raises(ImportError):
        json.use("orjson")
    assert json.backend.name == "json"
    assert json.backend.enum is json.Package.BUILTIN


@pytest.mark.parametrize(
    ("variable", "answer"), [(None, "json"), ("builtin", "json"), ("Json", "json"), ("no-such", "KeyError")]
)
def test_a_variable_names_the_first_package(
    variable: str | None, answer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read when the module is imported, and a wrong one is told of then."""
    if variable is None:
        monkeypatch.delenv("MSL_NETWORK_JSON", raising=False)
    else:
        monkeypatch.setenv("MSL_NETWORK_JSON", variable)
    program = (
        "try:\n from msl.network import json\n print(json.backend.name)\n"
        "except Exception as error:\n print(type(error).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == answer


VALUES = [1, "é", None, True, 0.1, "", [], {}, [1, [2, {"a": None}]], {"a": {"b": [1.5, "x"]}}, '</a>\\"\n']


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_what_is_written_can_be_read(package: str, value: object) -> None:
    """As text, bytes or bytearray; non-ASCII characters are written as they are."""
    text = json.serialize(value)
    assert isinstance(text, str)
    assert json.deserialize(text) == value
    assert json.deserialize(text.encode()) == value
    assert json.deserialize(bytearray(text.encode())) == value
    assert "\\u" not in text


def test_tuples_become_lists(package: str) -> None:
    """At any depth."""
    assert json.deserialize(json.serialize({"a": (1, (2, 3))})) == {"a": [1, [2, 3]]}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Reading(1), {"value": 1}),
        ([Reading(1), {"a": (Reading(2),)}], [{"value": 1}, {"a": [{"value": 2}]}]),
        (Reading(Reading([Reading(3)])), {"value": {"value": [{"value": 3}]}}),
    ],
    ids=["alone", "inside", "inside each other"],
)
def test_objects_say_what_they_are_written_as(package: str, value: object, expected: object) -> None:
    """An object with `to_json` is what that returns, wherever it stands."""
    assert json.deserialize(json.serialize(value)) == expected


def test_a_subclass_of_dict_says_so_too(package: str) -> None:
    """`to_json` has the last word if the package knows what it is given."""

    class Settings(dict[str, int]):
        def to_json(self) -> list[str]:
            return sorted(self)

    assert json.deserialize(json.serialize(Settings(b=1, a=2))) == ["a", "b"]


@pytest.mark.parametrize("value", [1j, [1j], {"a": object()}, {1, 2}, Reading, [Reading]])
def test_what_is_no_json(package: str, value: object) -> None:
    """It is a TypeError with words that callers look for."""
    with pytest.raises(TypeError, match="not JSON serializable"):
        json.serialize(value)


@pytest.mark.parametrize("text", ["", "x", "{", "[1,]", b"\xff"], ids=repr)
def test_what_cannot_be_read(package: str, text: str | bytes) -> None:
    """It is a ValueError."""
    with pytest.raises(ValueError):  # noqa: PT011 - the words are the package's
        json.deserialize(text)


def test_the_standard_library_writes_and_reads_what_json_has_not() -> None:
    """Numbers that are none, or too large, are words of JavaScript."""
    assert json.serialize([math.inf, -math.inf, math.nan]) == "[Infinity, -Infinity, NaN]"
    assert json.deserialize("[Infinity, -Infinity]") == [math.inf, -math.inf]


def test_the_options_of_each_package() -> None:
    """They are there to be looked at, and to be changed until another package is chosen."""
    assert json.backend.kwargs_dumps == {"ensure_ascii": False}
    assert json.backend.kwargs_loads == {}
    json.backend.kwargs_dumps["indent"] = 1
    assert json.serialize([1]) == "[\n 1\n]"
    json.use("builtin")
    assert json.serialize([1]) == "[1]"


def test_numbers_of_rapidjson_are_those_of_the_machine() -> None:
    """Both ways."""
    rapidjson = pytest.importorskip("rapidjson")
    json.use("rapid")
    assert json.backend.kwargs_loads == {"number_mode": rapidjson.NM_NATIVE}
    assert json.backend.kwargs_dumps["number_mode"] == rapidjson.NM_NATIVE


def test_the_module_is_the_only_one_of_its_name() -> None:
    """Importing it leaves the standard library's alone."""
    assert importlib.import_module("json") is not json
    assert "armillary" not in (importlib.import_module("json").__file__ or "")
