"""The script that starts a manager on another computer, run by the shells of this one."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from armillary.network.protocol.remote_starting import SHELL, Report, Running, read_report, start_script

MARKER = "5ab1ec0ffee"
SHELLS = [shell for shell in ("sh", "bash", "dash", "busybox") if shutil.which(shell)]
# Tells what it was given, in a line of its own, and ends.
TELL = [sys.executable, "-S", "-c", "import json, sys; print(json.dumps(sys.argv[1:]))"]

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
odd = st.sampled_from(
    ["'", '"', "\\", "$(id)", "`id`", "$HOME", "\n", "-n", "~/x", "!", "*", "a=b", "; id", "é", ""]
)
arguments = st.lists(texts | odd | st.lists(odd).map("".join), max_size=5)
secrets = (
    st.lists(st.sampled_from("'\"\\$` abc!é\t"), min_size=1)
    .map("".join)
    .filter(lambda text: text == text.strip())
)


def run(script: str, *, shell: str = "sh", home: Path | None = None) -> str:
    """What a shell prints that is given the script as another computer's shell would be."""
    words = shlex.split(SHELL)[1:]
    words[0:1] = [shell, "sh"] if shell == "busybox" else [shell]
    environment = {**os.environ, **({} if home is None else {"HOME": str(home), "TMPDIR": str(home)})}
    done = subprocess.run(words, input=script.encode(), capture_output=True, timeout=60, env=environment)
    assert (done.returncode, done.stderr) == (0, b""), done
    return done.stdout.decode()


def reported(command: Any, options: dict[str, Any] | None = None, **how: Any) -> Report:
    shell, home = how.pop("shell", "sh"), how.pop("home", None)
    script = start_script(command, options or {}, **{"marker": MARKER, "timeout": 20, **how})
    report = read_report(run(script, shell=shell, home=home), MARKER)
    assert report is not None
    return report


def leftovers(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


@settings(max_examples=40, deadline=None)
@given(arguments=arguments, values=arguments)
def test_arguments_arrive_as_they_are(arguments: list[str], values: list[str]) -> None:
    """Whatever is in them, a shell hands on each argument and each value as one, and runs nothing."""
    options = {f"option_{number}": value for number, value in enumerate(values)}
    report = reported([*TELL, *arguments], options)
    expected = [*arguments, *(f"--option-{number}={value}" for number, value in enumerate(values))]
    assert json.loads(report.log) == expected
    assert (report.status, report.running) == (0, None)


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell(shell: str, tmp_path: Path) -> None:
    """The script is for any POSIX shell, and when the program has ended it leaves no file behind."""
    report = reported(
        [*TELL, "a b"], {"auth_password": "it's", "disable_tls": True}, shell=shell, home=tmp_path
    )
    given, password, flag = json.loads(report.log)
    assert (given, flag) == ("a b", "--disable-tls")
    assert password.startswith(f"--auth-password={tmp_path}/armillary-manager.")
    assert leftovers(tmp_path) == []


READ = "import sys; print(open(sys.argv[1].partition('=')[2]).read(), end='|')"


@settings(max_examples=20, deadline=None)
@given(secret=secrets)
def test_passwords_arrive_in_files(secret: str) -> None:
    """A password is the first line of a file that is named to the program, as it was given."""
    report = reported([sys.executable, "-S", "-c", READ], {"key_file_password": secret})
    assert report.log == secret + "\n|"


RUNNING = "Network Manager running on lab-pc:1875 (TLS ENABLED)"
LOOK = f"""
import os, stat, sys
print(oct(stat.S_IMODE(os.stat(sys.argv[1].partition("=")[2]).st_mode)))
print(os.popen("umask").read().strip())
print("2026-01-01 [INFO ] - {RUNNING}", flush=True)
sys.stdin.read()
os.read(os.open(sys.argv[2].partition("=")[2], os.O_RDONLY), 1)
"""


def test_a_program_that_runs(tmp_path: Path) -> None:
    """The report comes while it runs, on and on; its passwords, for nobody else to read, are gone by then."""
    os.mkfifo(tmp_path / "end")
    options = {"auth_password": "polonium", "end": tmp_path / "end"}
    report = reported([sys.executable, "-c", LOOK], options, home=tmp_path)
    assert report.running == Running("lab-pc", 1875, tls=True)
    assert report.status is None
    assert report.log.splitlines()[:2] == ["0o600", subprocess.getoutput("umask")]
    os.kill(report.pid, 0)
    output = Path(report.output)
    assert output.read_text() == report.log
    assert sorted(path.name for path in output.parent.iterdir()) == ["output", "pid"]
    assert output.parent.stat().st_mode & 0o777 == 0o700
    (tmp_path / "end").write_text("now")


def test_a_program_that_says_nothing(tmp_path: Path) -> None:
    """After the time-out there is a report that names the process, which goes on."""
    os.mkfifo(tmp_path / "end")
    wait = (
        "import os, sys; print('starting', flush=True); os.open(sys.argv[1].partition('=')[2], os.O_RDONLY)"
    )
    report = reported([sys.executable, "-c", wait], {"end": tmp_path / "end"}, timeout=0.5, home=tmp_path)
    assert (report.status, report.running, report.log) == (None, None, "starting\n")
    os.kill(report.pid, 0)
    (tmp_path / "end").write_text("now")


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    """What the shell says of it is the log."""
    report = reported(["no-such-program"], home=tmp_path)
    assert report.status == 127
    assert "no-such-program" in report.log


def test_a_program_in_the_home(tmp_path: Path) -> None:
    """``~/`` begins a path in the user's home; in arguments it is nothing special."""
    program = tmp_path / "my lab" / "start"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\nimport sys\nprint(sys.argv[1:])\n")
    program.chmod(0o700)
    assert reported("'~/my lab/start' ~/x '$HOME'", home=tmp_path).log == "['~/x', '$HOME']\n"


SUDO = f"""#!{sys.executable}
import os, sys
words = sys.argv[1:]
rest = words[words.index("--") + 1:]
print("sudo", words[:words.index("--")], repr(sys.stdin.readline()), flush=True)
os.execvp(rest[0], rest)
"""


@pytest.mark.parametrize(
    ("password", "said"),
    [(None, "sudo ['-n'] ''"), ("pol'o$nium", """sudo ['-S', '-p', ''] "pol'o$nium\\n\"""")],
)
def test_sudo(password: str | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sudo reads its password, and is told to ask for none if there is none."""
    sudo = tmp_path / "sudo"
    sudo.write_text(SUDO)
    sudo.chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    report = reported([*TELL, "x"], as_sudo=True, sudo_password=password)
    assert report.log == f'{said}\n["x"]\n'


def test_options_that_are_none() -> None:
    """False and None leave an option out, and numbers and paths are written out."""
    options = {
        "port": 1876,
        "auth_login": False,
        "host": None,
        "database": Path("/a b"),
        "log_level": "DEBUG",
    }
    assert json.loads(reported(TELL, options).log) == ["--port=1876", "--database=/a b", "--log-level=DEBUG"]


@pytest.mark.parametrize(
    ("command", "options", "error"),
    [
        ("", {}, "expected a command"),
        ("a", {"Port": 1}, "expected the name of an option"),
        ("a", {"port;id": 1}, "expected the name of an option"),
        ("a", {"-x": 1}, "expected the name of an option"),
        ("a", {"port": [1]}, "expected a text, a number, a path or a bool as 'port', got list"),
        ("a", {"host": "a\0b"}, "NUL"),
        ("a", {"host": "\ud800"}, "surrogate"),
        ("a", {"auth_password": 12345}, "expected a text as 'auth_password', got int"),
        ("a", {"auth_password": "sec\nret"}, "'auth_password' to be one line"),
        ("a", {"auth_password": " secret"}, "'auth_password' to be one line"),
        ("a", {"auth_password": ""}, "'auth_password' to be one line"),
    ],
)
def test_what_cannot_be_given(command: str, options: dict[str, object], error: str) -> None:
    """What no command line or no file could hand on is refused, and a password is not in the error."""
    with pytest.raises((ValueError, TypeError), match=error) as caught:
        start_script(command, options, marker=MARKER, timeout=1)
    assert "secret" not in str(caught.value)
    assert "12345" not in str(caught.value)


REPORT = f"{MARKER}\npid 12\nstatus \noutput /tmp/x\nrunning {{}}\nlog\n"


@pytest.mark.parametrize(
    ("line", "running"),
    [
        (f"2026-01-01 00:00:00,000 [INFO ] armillary.network - {RUNNING}", Running("lab-pc", 1875, tls=True)),
        ("Network Manager running on [::1]:1876 (TLS DISABLED)", Running("::1", 1876, tls=False)),
        ("Network Manager running on ::1:1876 (TLS DISABLED)", Running("::1", 1876, tls=False)),
        ("Network Manager running on", None),
        ("", None),
    ],
)
def test_where_it_runs(line: str, running: Running | None) -> None:
    """The line that tells is that of armillary and of MSL-Network 1.0, whatever stands before it."""
    report = read_report("Welcome!\n" + REPORT.format(line), MARKER)
    assert report == Report(pid=12, status=None, running=running, output="/tmp/x", log="log\n")  # noqa: S108


@pytest.mark.parametrize("end", range(0, len(REPORT) - len("log\n"), 3))
def test_half_a_report(end: int) -> None:
    """A report that was cut off before the log is none, and neither is one with another marker."""
    assert read_report(REPORT[:end], MARKER) is None
    assert read_report(REPORT, "another") is None


@given(st.text(), st.text())
def test_any_text(before: str, after: str) -> None:
    """Whatever a computer answers, it is a report or none."""
    for text in (before + after, f"{before}{MARKER}\n{after}", f"{MARKER}\npid 1\nstatus {after}\n"):
        assert read_report(text, MARKER) is None or MARKER in text
