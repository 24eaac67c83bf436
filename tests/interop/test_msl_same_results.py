"""The same calls, in MSL-Network 1.0 and in the façade, bring the same results.

What differs on purpose is said where it is left out.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.interop

_HERE = Path(__file__).resolve().parent
_THEIRS = _HERE.parents[1] / ".peers" / "msl_network" / "bin" / "python"
# Far more than anything here takes on a busy machine.
_PATIENCE = 60.0

Ask = Callable[..., Any]


def _ask(python: Path, home: Path, *order: object) -> Any:
    """Have one of the calls of ``msl_calls.py`` made in an environment."""
    if not python.exists():
        pytest.fail("MSL-Network 1.0 is not there: run `make peers`")
    done = subprocess.run(
        [str(python), str(_HERE / "peers" / "msl_calls.py")],
        input=json.dumps(order).encode(),
        capture_output=True,
        env={**os.environ, "MSL_NETWORK_HOME": str(home), "PYTHONWARNINGS": "ignore", "PYTHONUTF8": "1"},
        timeout=_PATIENCE,
        check=False,
    )
    if done.returncode:
        pytest.fail(done.stderr.decode().splitlines()[-1])
    return json.loads(done.stdout)


@pytest.fixture
def theirs(tmp_path: Path) -> Ask:
    """Makes a call in 1.0."""
    return partial(_ask, _THEIRS, tmp_path / "their home")


@pytest.fixture
def ours(tmp_path: Path) -> Ask:
    """Makes a call in the façade."""
    return partial(_ask, Path(sys.executable), tmp_path / "our home")


# -- lines that people type ----------------------------------------------------------------------------------

LINES = r"""
identity
IDENTITY
identity x
identities
client
CLIENT
client ""
client ''
client "
client Foo
Client Foo
client "Foo"
client 'Foo'
client 'Foo  Bar'
client "Foo   Bar"
client   Foo   Bar
client Marie's laptop
client 'Marie's laptop'
client ''Foo''
client "Foo'
client Foo 1 x=2
clientFoo Bar
clientFoo
clients
clients DMM
client "a" "b"
client =
disconnect
Exit
EXIT
__disconnect__
 __DISCONNECT__
disconnect now
exit now
"exit"
link DMM
LINK DMM
link Basic Math
linkBasic Math
link "Basic Math"
link 'Basic Math'
link "Basic   Math"
link
link ""
link "a" b
link Marie's
link 'a'b'
linked DMM
"link" DMM
Link x=1
Echo echo
"Basic Math" add 1 2
'Basic Math' add 1 2
"Echo"echo 1
Echo "echo" 1
Echo "echo it" "a b"
Echo 'echo x=1'
"A B" c d=1
A"B" c
A"B"C d
A" B" c
"  Echo " echo
Manager users_table.usernames
Manager identity
"Manager" identity
'Manager' identity
manager identity
manager users_table.usernames
Manager link DMM
a b=c
a b = c
a b = c d
a = b
a=b c
a=b
a
""
" "
"
'
"a
"a"
"a" "b"
"a" b
"a b" "c d" "e f"
"" b
'' b
" " b
a ""
a "" 1
"a b
"a b" c "
Echo echo 1 2 3
Echo echo 1.5 -2 1e3 0x10 1_000 +1
Echo echo true True TRUE false FALSE
Echo echo none None NONE null Null NULL
Echo echo [1,2,3] (1,2) {} [] {1:2}
Echo echo 1,2 None,
Echo echo [1, 2]
Echo echo x=[1,2,3]
Echo echo x=[1, 2]
Echo echo "hello world" 5
Echo echo 'hello world' 5
Echo echo "5" '6' "true" "None" '[1]'
Echo echo "" " a "
Echo echo x="" y=" a "
Echo echo "a" "b c" d
Echo echo 1"2"3
Echo echo "a""b"
Echo echo "a=b"
Echo echo 'a=b' c=d
Echo echo "C:\new" C:\new
Echo echo a.b c/d 007 inf nan 1+1 lambda
Echo echo "abc
Echo echo abc"
Echo echo "
Echo echo ""
Echo echo == =1 x!=1 x:=1 x=
Echo echo os.system('x')
Echo echo x=1
Echo echo x =1
Echo echo x= 1
Echo echo x = 1
Echo echo x   =   1 y = 2
Echo echo 1 2 x=3
Echo echo 1 2 x=3 4
Echo echo 1 2 x=3 4 y=5
Echo echo x=3 4
Echo echo x="a b" y=2
Echo echo x='a b' y=2
Echo echo x="5"
Echo echo x=True y=none z=NULL
Echo echo x=1 x=2
Echo echo x=y=z
Echo echo x==1
Echo echo x=1,y=2
Echo echo x=1;y=2
Echo echo x.y=1
Echo echo x-y=1
Echo echo 1=2
Echo echo é=1
Echo echo _x=1
Echo echo "x"=1
Echo echo "x" = 1
Echo echo x="a"b
Echo echo x=a"b"
Echo echo x=a"b c" d=1
Echo echo x="a
Echo echo x=" y=1
Echo echo x={'a':1}
Echo echo x={"a":1}
Echo echo {'a':1}
Echo echo ['a','b']
Echo echo ["a","b"]
Echo echo x=b'abc'
Echo echo 1j 1+2j x=3j
Echo echo b"a"
Echo echo r"a"
Echo echo ...
Echo echo Ellipsis
Echo echo -1 --1 ~1 not
Echo echo 1e400 -1e400
Echo echo 00 08 0o17 0b11
Echo echo 1__0
Echo echo 'it''s'
Echo echo it's
Echo echo it's x=1
Echo echo # comment
Echo echo 1 # c
Echo echo \
Echo echo \n
Echo echo a\tb
Echo echo $x ${x} %x% `x`
Echo echo (1, 2)
Echo echo (1
Echo echo 1)
Echo echo []]
Echo echo {1,2}
Echo echo set()
Echo echo asynchronous=True
Echo echo timeout=5
Echo echo self=1
Echo echo service=1 attribute=2 args=3
Echo echo uid=7
DMM voltage 3 range=10
DMM voltage? 3
DMM :READ?
DMM *IDN?
DMM.voltage 3
DMM 1
1 2
1 2 3
1.5 x y
true false
None None None
[1,2] x
{"service": "a", "attribute": "b"}
{"service": "a"
[1,2
[]
{}
123
"123"
123 456
null
a b c d e f g
a  b  c
a b "c d" e = "f g" h
a b "c = d" e = f
a b c= "d e"
a b c ="d e"
a b c = "d e" f
x y = z = w
x y z==
x y z= =1
x y z=1 =2
x y z=1= w=2
a b c=True d
a b true=1
a b None=None
a b c=1 d="e f" g='h i' j=[1,2] k=(1,2) l=none
a b 'c d=1'
a b "c d=1" e
a b c'd e'f
a b c'd=e'f
a b c="d=e"
a b c=d="e f"
a b '\''
a b "\""
a b "é à" ü=ö
Ünïcode tëst 1
服务 方法 1 x=2
a b 1.0.0
a b 1:2
a b x[0]
a b x[0]=1
a b x()=1
a "b c" d
a "b" c=1
a "b"c=1
a b"c" d
a "b=1"
a "b=1" c
a b=1 c
a b= c
a b =c
a b =c d=e
'a' 'b' 'c'
'a b' 'c' 'd e' f='g h'
"a' b
'a" b c
users_table insert x y
Manager users_table.insert alice "pw 1" True
Manager users_table.insert alice 'pw 1' is_admin=True
Manager users_table.is_user_registered n.bohr
Manager shutdown_manager
Manager acquire_lock DMM shared=True
Manager release_lock "Basic Math"
"""

# In 1.0, the values before the first name end where the name occurs for the first time, be it in a word: that
# loses what somebody has typed.
DIFFERENT_LINES = {
    "Manager users_table.insert max 1 x=2": "'args': ['max', 1]",
    "Echo echo exit 2 x=1": "'args': ['exit', 2]",
}


def test_lines_that_people_type(theirs: Ask, ours: Ask) -> None:
    """Some two hundred and sixty lines mean the same, to the type of every value."""
    lines = LINES.strip("\n").split("\n")
    assert len(lines) > 250
    expected = theirs("parse_lines", lines)
    assert dict(zip(lines, ours("parse_lines", lines), strict=True)) == dict(
        zip(lines, expected, strict=True)
    )


def test_lines_that_mean_something_else_on_purpose(theirs: Ask, ours: Ask) -> None:
    """All values that were typed arrive here."""
    lines = list(DIFFERENT_LINES)
    for args, old, new in zip(
        DIFFERENT_LINES.values(), theirs("parse_lines", lines), ours("parse_lines", lines), strict=True
    ):
        assert args in new
        assert args not in old


# -- JSON ----------------------------------------------------------------------------------------------------

VALUES = [
    *("1", "-1.5", "0.1 + 0.2", "2 ** 70", "1e400", "float('nan')", "-float('inf')", "True", "None"),
    *("'é'", "'</a>'", "'\\u2028'", "'\"\\\\\\n'", "'\\ud800'"),
    *("[]", "{}", "(1, (2,))", "{'a': (1,)}", "{1: 2}", "{None: 1, True: 2, 1.5: 3}", "[[[1]]]"),
    *("1j", "b'a'", "{1, 2}", "object", "{(1, 2): 3}"),
]
TEXTS = [
    *('{"a": [1, 2.5, null, true]}', '"é"', "NaN", "-Infinity", "1e400", "123456789012345678901234567890"),
    *('{"a": 1, "a": 2}', "0.1", " [1] ", "", "x", "[1,]", "{'a': 1}", "[1] 2"),
]
NAMES = ["json", "BUILTIN", "Json", "xxx", "", "Package.JSON"]


def test_json(theirs: Ask, ours: Ask) -> None:
    """The standard library writes, reads and refuses the same, with the same words."""
    arguments = ("json_results", VALUES, TEXTS, NAMES)
    assert ours(*arguments) == theirs(*arguments)


# -- certificates --------------------------------------------------------------------------------------------

HASHES: list[dict[str, Any]] = [
    {},
    *({"algorithm": name} for name in ("md5", "SHA1", "sha256", "Sha512", "sha3_256", "sha512_224", "sm3")),
    *({"algorithm": name} for name in ("xyz", "", "sha-256", "HashAlgorithm", "blake2b", "blake2s")),
    {"algorithm": "BLAKE2b", "digest_size": 64},
    {"algorithm": "blake2s", "digest_size": 32},
    {"algorithm": "blake2b", "digest_size": 3},
    {"algorithm": "shake128", "digest_size": 8},
    {"algorithm": "sha256", "digest_size": 8},
    {"algorithm": 5},
    {"algorithm": None},
]


@pytest.mark.parametrize("algorithm", ["RSA", "DSA", "ECC"])
@pytest.mark.parametrize("password", [None, "pàß wörd"])
@pytest.mark.parametrize("who", ["theirs", "ours"])
def test_certificates_are_seen_alike(
    algorithm: str, password: str | None, who: str, theirs: Ask, ours: Ask, tmp_path: Path
) -> None:
    """A key of one, and what the other makes of it, are read by both, and shown in the same words."""
    first, second = (theirs, ours) if who == "theirs" else (ours, theirs)
    key, path = str(tmp_path / "key"), str(tmp_path / "certificate")
    first("generate_key", {"path": key, "algorithm": algorithm, "password": password})
    options = {"path": path, "key_path": key, "key_password": password, "years_valid": 7.4}
    assert second("generate_certificate", options) == path
    assert ours("certificate_facts", path) == theirs("certificate_facts", path)
    assert ours("fingerprints", path, HASHES) == theirs("fingerprints", path, HASHES)


def test_keys_that_cannot_be_made(theirs: Ask, ours: Ask, tmp_path: Path) -> None:
    """The errors are the same; of a curve that there is not, we know three names more."""
    options: list[dict[str, Any]] = [
        {"algorithm": "xyz"},
        {"algorithm": "ecc", "curve": "xyz"},
        {"algorithm": "rsa", "size": 100},
        {"algorithm": "dsa", "size": 5},
        {"algorithm": "ecc", "password": ""},
        {"algorithm": "ecc", "curve": "secp256r1"},
        {"algorithm": "ecc", "curve": "Prime256v1"},
    ]
    keys = [{"path": str(tmp_path / "key"), **each} for each in options]
    without_names = [
        [kind, text.replace("P-256, P-384, P-521, ", "")] for kind, text in ours("generate_keys", keys)
    ]
    assert without_names == theirs("generate_keys", keys)


# -- tables --------------------------------------------------------------------------------------------------

LOGINS = [["marie", "polonium"], ["Zoë é", "pàß wörd"], ["marie", "x"], ["nobody", "x"], ["ada", ""]]


@pytest.mark.parametrize("who", ["theirs", "ours"])
def test_a_database_is_seen_alike(who: str, theirs: Ask, ours: Ask, tmp_path: Path) -> None:
    """All that the tables return and refuse is the same, whoever has made the database."""
    path = str(tmp_path / "manager.sqlite3")
    (theirs if who == "theirs" else ours)("fill", path)
    seen = theirs("look", path)
    if who == "ours":
        # 1.0 shows our own tables as well.
        seen = [_without_own_tables(each) for each in seen]
    assert ours("look", path) == seen


def _without_own_tables(seen: object) -> object:
    if isinstance(seen, list):
        return [each for each in seen if not str(each).startswith("armillary_")]
    return seen


def test_passwords_are_verified(theirs: Ask, ours: Ask, tmp_path: Path) -> None:
    """Here they are right whoever has set them; a hash of 1.0 that was verified here is ours from then on."""
    path = str(tmp_path / "manager.sqlite3")
    theirs("fill", path)
    right = [True, True, False, False, False]
    assert theirs("are_valid", path, LOGINS) == right
    for _ in range(2):
        assert ours("are_valid", path, LOGINS) == right
    assert theirs("are_valid", path, [["marie", "polonium"], ["ada", "engine"]]) == [False, True]
    theirs("set_password", path, "marie", "radium")
    assert ours("are_valid", path, [["marie", "radium"], ["marie", "polonium"]]) == [True, False]
