"""`sidecar run` becomes a process that only serves: it is still the same process, and still says what is wrong."""

import gc
import os
import subprocess
import sys
import textwrap
from pathlib import Path

from settings_files import SIDECAR

from sidecar.main import heap

ROOT = Path(__file__).resolve().parents[2]


def python(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), *arguments], cwd=ROOT, capture_output=True, text=True, check=False,
        timeout=120, env={**os.environ, "CUSTOMHOUSE_TEST": "kept"},
    )  # fmt: skip


BECOMING = """
    import os, sys
    from sidecar.cli import serving
    serving._MODULE = sys.argv[1]
    print(os.getpid(), flush=True)
    serving.become({"drain": [1.5, "x" * 200_000]})
"""


def test_it_is_the_same_process_with_the_same_environment_and_the_settings(tmp_path: Path) -> None:
    probe = tmp_path / "probe_of_serving.py"
    probe.write_text(
        textwrap.dedent("""
        import os, pickle, sys
        with os.fdopen(int(sys.argv[1]), "rb") as file:
            found = pickle.load(file)
        print(os.getpid(), os.environ["CUSTOMHOUSE_TEST"], found["drain"][0], len(found["drain"][1]), sys.argv[2:])
        print(*(one for one in ("pydantic", "typer", "rich") if one in sys.modules))
    """)
    )
    ran = python("import sys; sys.path.insert(0, sys.argv[2]); import os; os.environ['PYTHONPATH'] = sys.argv[2]\n"
                 + textwrap.dedent(BECOMING), probe.stem, str(tmp_path))  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    before, after, loaded = ran.stdout.splitlines()
    assert after == f"{before} kept 1.5 200000 {[probe.stem, str(tmp_path)]}"
    assert loaded == ""


def test_no_descriptor_but_that_of_the_settings_is_handed_on() -> None:
    ran = python(
        """
        import os, sys
        from sidecar.cli import serving
        open_before = os.open("/dev/null", os.O_RDONLY)
        os.execv = lambda _path, words: print(*(fd for fd in map(int, os.listdir("/proc/self/fd"))
            if fd > 2 and os.path.exists(f"/proc/self/fd/{fd}") and os.get_inheritable(fd)), words[words.index("-m") + 2])
        serving.become({})
        """
    )
    handed, named = ran.stdout.split()
    assert handed == named


def test_started_by_hand_it_says_who_starts_it() -> None:
    for arguments in ((), ("x",), ("9999",)):
        ran = subprocess.run(
            [sys.executable, "-m", "sidecar.cli.serving", *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (ran.returncode, ran.stderr) == (2, "this is started by `sidecar run`\n")


def test_a_file_that_the_settings_name_and_that_is_not_there_ends_it_with_one_line(tmp_path: Path) -> None:
    file = tmp_path / "sidecar.yaml"
    file.write_text(SIDECAR)
    ran = subprocess.run(
        [sys.executable, "-m", "sidecar", "run", "--config", str(file)],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert (ran.returncode, ran.stdout) == (2, "")
    (line,) = ran.stderr.splitlines()
    assert line.startswith("configuration: ")
    assert str(tmp_path) in line


def test_what_is_there_before_calls_is_never_looked_through_again() -> None:
    ran = python(
        """
        import gc
        class Round:
            pass
        def circle():
            one = Round(); one.own = one
        gc.disable()
        circle()
        kept = [Round() for _ in range(1000)]
        from sidecar.main import heap
        heap.settle()
        print(gc.isenabled(), gc.get_freeze_count() > 1000, gc.get_threshold()[0] == heap.YOUNG)
        print(sum(isinstance(one, Round) for one in gc.get_objects()))
        circle()
        print(gc.collect() > 0)
        """
    )
    assert ran.stdout.split() == ["True", "True", "True", "0", "True"], ran.stderr


def test_young_objects_are_few_enough_for_a_short_look() -> None:
    assert gc.get_threshold()[0] < heap.YOUNG <= 10_000


def test_nothing_is_imported_from_the_folder_it_is_started_in(tmp_path: Path) -> None:
    (tmp_path / "pickle.py").write_text("raise SystemExit(99)")
    program = (
        "import sys; sys.path = [one for one in sys.path if one]\n"
        "from sidecar.cli import serving\n"
        "serving._MODULE = 'this'\n"
        "serving.become({})\n"
    )
    source = Path(__file__).parents[2]
    ran = subprocess.run(
        [sys.executable, "-P", "-X", "utf8", "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={"PATH": "/usr/bin", "PYTHONPATH": str(source)},
    )  # fmt: skip
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "Zen of Python" in ran.stdout


def test_another_interpreter_has_the_flags_of_this_one() -> None:
    program = "from sidecar.main.interpreter import command; print(*command('x.y')[1:])"
    for cwd, here in ((Path(__file__).parents[2], ""), (Path("/"), "-P ")):
        ran = subprocess.run(
            [sys.executable, "-P", "-W", "error", "-c", program], cwd=cwd, capture_output=True, text=True, check=True,
            env={"PATH": "/usr/bin", "PYTHONPATH": str(Path(__file__).parents[2])},
        )  # fmt: skip
        flags = ran.stdout.split()
        assert flags[-2:] == ["-m", "x.y"]
        assert "-Werror" in flags
        assert ("-P" in flags) >= bool(here)
