"""The command line's frame: exit codes, one-line errors, help, and a quick start."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest

from splitinfer.cli import main as frame
from splitinfer.errors import CheckFailedError, InputError


def run(*arguments: str, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "splitinfer.cli.main", *arguments], capture_output=True, text=True, check=False, **kwargs
    )


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Register a verb that does what the test says."""

    def register(action: Any) -> None:
        def boom() -> int | None:
            """Do something.

            Example:
              splitinfer boom
            """
            return action()  # type: ignore[no-any-return]

        module = ModuleType("splitinfer.cli.boom")
        module.boom = boom  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "splitinfer.cli.boom", module)
        monkeypatch.setitem(frame._VERBS, "boom", "do something")
        monkeypatch.setattr(frame, "verbs", lambda: ["boom"])

    return register


def raising(error: BaseException) -> Any:
    def action() -> None:
        raise error

    return action


def test_help_and_version_need_no_heavy_module() -> None:
    code = (
        "import sys\n"
        "from splitinfer.cli.main import main\n"
        "assert main(['--help']) == 0 and main(['--version']) == 0\n"
        "assert main(['profile', '--help']) == 0 and main(['models', '--help']) == 0\n"
        "heavy = {'torch', 'torchvision', 'numba', 'cvxpy', 'grpc', 'matplotlib', 'fvcore', 'scipy'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "splitinfer 0." in done.stdout


def test_no_arguments_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert frame.main([]) == 0
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in frame.verbs())
    assert {"profile", "models"} <= set(frame.verbs())


@pytest.mark.parametrize("name", frame.verbs())
def test_the_help_of_every_verb_ends_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert frame.main([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"Usage: splitinfer {name}")
    _, _, example = text.rpartition("Example:")
    lines = [line.strip() for line in example.strip().splitlines()]
    assert lines
    assert all(line.startswith(f"splitinfer {name}") for line in lines), lines


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["bogus"], "No such command 'bogus'"),
        (["--bogus"], "No such option: --bogus"),
        (["profile"], "Missing argument"),
        (["profile", "resnet18", "--batch", "many"], "--batch"),
        (["profile", "resnet18", "--batch", "0"], "--batch"),
        (["models", "--bogus"], "No such option: --bogus"),
        *(
            ([verb, "resnet18", "--threads", "1000000"], "less than or equal to 1024")
            for verb in ("infer", "profile", "demo")
        ),
        (["serve", "--models", "resnet18", "--threads", "1000000"], "less than or equal to 1024"),
        (["serve", "--models", "resnet18", "--port", "99999"], "less than or equal to 65535"),
        (["train", "lyappo", "--steps", "9" * 20], "--steps"),
    ],
)
def test_a_usage_mistake_is_one_line_and_exit_code_2(
    arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert frame.main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("splitinfer: error: ")
    assert reason in shown.err
    assert "--help" in shown.err
    assert len(shown.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("cut 9 is\nout of range"), 2, "splitinfer: error: cut 9 is out of range"),
        (CheckFailedError("differs by 0.1"), 1, "splitinfer: error: differs by 0.1"),
        (
            PermissionError(13, "Permission denied", "/etc/x"),
            2,
            "splitinfer: error: cannot use /etc/x: Permission denied",
        ),
    ],
)
def test_errors_of_a_verb_become_a_line_and_a_code(
    verb: Any, error: Exception, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    verb(raising(error))
    assert frame.main(["boom"]) == code
    shown = capsys.readouterr()
    assert shown.err == line + "\n"
    assert shown.out == ""


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["simulate", "--slots", "9" * 14], "side by side are more than 20,000,000,000"),
        (["simulate", "--slots", "9" * 26], "shorten the run"),
        (["simulate", "--slots", "2000000", "--set", "arrival_rate_hz=1000"], "bring about 160,000,000 requests"),
        (["bound", "--slots", "9" * 14, "--no-fluid"], "slots: must be in 1..10,000,000"),
        (["run", "--policy", "fixed", "--duration", "nan"], "--duration: must be at least one slot"),
        (["run", "--policy", "fixed", "--duration", "1e300"], "--duration: must be at least one slot"),
        (["edge", "--policy", "fixed", "--duration", "inf"], "--duration: must be at least one slot"),
        (["train", "lyappo", "--out", "pyproject.toml"], "pyproject.toml is a file, and a run is a folder"),
    ],
)
def test_what_no_machine_holds_is_refused_before_it_begins(
    arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert frame.main(arguments) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert reason in line


def test_an_interrupt_is_one_line(verb: Any, capsys: pytest.CaptureFixture[str]) -> None:
    verb(raising(KeyboardInterrupt()))
    assert frame.main(["boom"]) == 130
    assert capsys.readouterr().err == "splitinfer: interrupted\n"


def test_a_bug_is_not_hidden(verb: Any) -> None:
    verb(raising(ZeroDivisionError("a bug")))
    with pytest.raises(ZeroDivisionError):
        frame.main(["boom"])


def test_a_verb_may_return_its_exit_code(verb: Any) -> None:
    verb(lambda: 3)
    assert frame.main(["boom"]) == 3
    verb(lambda: None)
    assert frame.main(["boom"]) == 0


def test_a_reader_that_leaves_early_is_no_error() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "splitinfer.cli.main", "models"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 141
    assert errors == ""


def test_the_process_exits_with_the_code() -> None:
    done = run("profile", "resnet19")
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
