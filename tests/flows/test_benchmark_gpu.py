"""The table of all that waits for a GPU: parts that fail leave a row, and promises are held against it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import gpu
from benchmarks.compiled import CompiledRow
from benchmarks.gpu import CheckedFigure, CommandPart

RATES = {
    "training, torchvision": 50.0,
    "training, ours": 140.0,
    "training, ours, best": 300.0,
    "our loader alone": 800.0,
    "inference, torchvision": 90.0,
    "inference, ours, best": 400.0,
    "overhead": 0.01,
}


def promised(folder: Path) -> dict[str, CheckedFigure]:
    return {row.what.split(" (")[0]: row for row in gpu._of_loops(folder / "loops.json") if row.promised}


def test_loops_are_held_against_what_was_recorded_or_another_version(tmp_path: Path) -> None:
    (tmp_path / "loops.json").write_text(json.dumps(RATES))
    found = promised(tmp_path)
    assert [row.holds for row in found.values()] == [True, False]
    assert found["training, best against the H200's of 2026-11-26"].figure == "2.07 x"
    (tmp_path / "earlier.json").write_text(
        json.dumps({**RATES, "training, ours, best": 160.0, "inference, ours, best": 100.0})
    )
    found = promised(tmp_path)
    assert [row.holds for row in found.values()] == [False, True]
    assert found["inference, best against the other checkout's"].figure == "4.00 x"


def test_tests_that_are_skipped_prove_nothing(tmp_path: Path) -> None:
    file = tmp_path / "tests.json"
    suite = '<testsuites><testsuite tests="5" failures="{}" errors="0" skipped="{}"/></testsuites>'
    for bad, skipped, holds in ((0, 0, True), (1, 0, False), (0, 5, False)):
        file.write_text(suite.format(bad, skipped))
        (row,) = gpu._of_tests(file)
        assert row.holds is holds and f"{5 - bad - skipped} passed" in row.figure


def test_a_part_that_fails_or_takes_too_long_says_so(tmp_path: Path) -> None:
    def run(code: str, seconds: int = 20) -> str | None:
        words = [sys.executable, "-c", code]
        return gpu._run(CommandPart(words, gpu._of_figures, seconds), tmp_path / "part.json")

    assert run("import pathlib, sys; pathlib.Path(sys.argv[-1]).write_text('{}')") is None
    assert (tmp_path / "part.json").read_text() == "{}"
    failed = run("print('no such GPU'); raise SystemExit(3)")
    assert failed is not None and "failed with status 3" in failed
    assert (tmp_path / "part.log").read_text() == "no such GPU\n" and not (tmp_path / "part.json").exists()
    assert "stopped after 1 s" in str(run("import time; time.sleep(60)", 1))
    missing = gpu._run(
        CommandPart([str(tmp_path / "personsearch")], gpu._of_figures, 20), tmp_path / "part.json"
    )
    assert missing is not None and "could not run" in missing and "personsearch" in missing


def test_parts_run_the_checkouts_own_program() -> None:
    """Which need not be installed."""
    parts = gpu._parts(Path("work"), "cpu", None, tiny=False)
    assert all(part.words[:2] == [sys.executable, "-m"] for part in parts.values())
    assert parts["reid"].words[2:5] == ["flows.cli.main", "benchmark", "reid"]


def test_two_commands_of_ten_minutes_take_all_parts() -> None:
    parts = gpu._parts(Path("work"), "cpu", None, tiny=False)
    texts = str(gpu.__doc__).split("--only ")
    halves = [text.split()[0].split(",") for text in texts[2:]]
    assert sorted([*halves[0], *halves[1]]) == sorted(parts)
    assert all(sum(parts[name].seconds for name in half) <= 580 for half in halves)


def test_extraction_has_shards_to_compute_while_one_is_written() -> None:
    words = gpu._parts(Path("work"), "cpu", None, tiny=False)["extraction"].words
    assert int(words[words.index("--shards") + 1]) >= 8


def test_another_checkout_runs_our_loops_alone_if_it_can(tmp_path: Path) -> None:
    def words(other: Path) -> list[str]:
        return list(gpu._parts(tmp_path, "cpu", other, tiny=True)["earlier"].words)

    assert gpu.OURS_ALONE in words(gpu.HERE) and gpu.OURS_ALONE not in words(tmp_path)


def _main(
    work: Path, monkeypatch: pytest.MonkeyPatch, parts: dict[str, CommandPart], **options: object
) -> list[CheckedFigure]:
    """The rows of a run of these parts, from its JSON file."""
    monkeypatch.setattr(gpu, "_parts", lambda *_: parts)
    gpu.main(work, device="cpu", json_file=work.parent / "all.json", **options)  # type: ignore[arg-type]
    return [CheckedFigure(**row) for row in json.loads((work.parent / "all.json").read_text())["rows"]]


def _part(code: str, fresh: Path | None = None) -> CommandPart:
    words = [sys.executable, "-c", f"import pathlib, sys; out = pathlib.Path(sys.argv[-1]); {code}"]
    return CommandPart(words, gpu._of_earlier, 20, fresh=fresh)


def test_what_has_ended_is_kept_whatever_becomes_of_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = {
        "good": _part("out.write_text('{\"a\": 2}')"),
        "missing": CommandPart([str(tmp_path / "personsearch")], gpu._of_earlier, 20),
        "half": _part("out.write_text('{\"a\": ')"),
        "last": _part(
            "import os; print(open(os.path.dirname(out) + '/../all.json').read()); out.write_text('{}')"
        ),
    }
    rows = _main(tmp_path / "work", monkeypatch, parts)
    assert [(row.part, row.what, row.holds) for row in rows] == [
        ("earlier", "a", None),
        ("missing", "the command", False),
        ("half", "its figures", False),
    ]
    before_the_last = json.loads((tmp_path / "work" / "last.log").read_text())
    assert [row["figure"] for row in before_the_last["rows"]] == [row.figure for row in rows]
    shown = capsys.readouterr()
    assert "a: 2.0 images/s" in shown.err and "2.0 images/s" in shown.out


def test_rows_of_another_device_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = {"one": _part("out.write_text('{\"a\": 2}')"), "two": _part("out.write_text('{\"b\": 3}')")}
    work = tmp_path / "work"
    assert len(_main(work, monkeypatch, parts, only="one")) == 1
    assert [row.what for row in _main(work, monkeypatch, parts, only="two")] == ["a", "b"]
    file = work / "one.rows.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "device": "NVIDIA H200, torch 2.14"}))
    assert [row.what for row in _main(work, monkeypatch, parts, only="two")] == ["b"]


def test_each_run_starts_from_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    demo, work = tmp_path / "demo", tmp_path / "work"
    parts = {"one": _part(f"demo = pathlib.Path({str(demo)!r}); demo.mkdir(); out.write_text('{{}}')", demo)}
    pipeline = gpu._parts(work, "cpu", None, tiny=True)["pipeline"]
    assert str(pipeline.fresh) in pipeline.words
    for _ in range(2):
        assert _main(work, monkeypatch, parts) == [] and demo.is_dir()


def test_another_checkouts_loops_of_an_earlier_run_are_not_compared_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "earlier.json").write_text(json.dumps(RATES))
    loops = CommandPart(_part(f"out.write_text({json.dumps(json.dumps(RATES))})").words, gpu._of_loops, 20)
    held = [row.what for row in _main(work, monkeypatch, {"loops": loops}) if row.promised]
    assert len(held) == 2 and all("the H200's" in what for what in held)


def test_what_compiling_brings_is_in_the_table(tmp_path: Path) -> None:
    row = CompiledRow("training", eager=10.0, compiled=25.0, compilation=31.0)
    file = tmp_path / "compiled.json"
    file.write_text(json.dumps([vars(row) | {"ratio": row.ratio}]))
    assert [row.figure for row in gpu._of_compiled(file)] == ["25.0 images/s, 2.50 x eager", "31 s"]
