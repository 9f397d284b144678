from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import zarr
from PIL import Image

from flows.errors import ConfigError
from flows.search import Index, build_index, open_index, remove_images
from flows.search.building import Where
from flows.search.layout import Settings
from flows.search.model import GivenModel, given_model
from tests.flows.search.conftest import SETTINGS
from tests.forking import finish
from tests.personsearch_core.scene_files import write_scenes


def content(index: Path) -> dict[str, bytes]:
    """Every file of an index by its name."""
    return {
        str(path.relative_to(index)): path.read_bytes()
        for path in sorted(index.rglob("*"))
        if path.is_file() and "model" not in path.relative_to(index).parts
    }


def images(index: Path) -> list[str]:
    return pq.read_table(index / "sources.parquet")["image"].to_pylist()


def test_an_index_is_plain_files(scenes: Path, model: GivenModel, tmp_path: Path) -> None:
    out = tmp_path / "index"
    outcome = build_index(out, [scenes], model, settings=SETTINGS)
    assert (outcome.added, outcome.images, outcome.skipped) == (6, 6, 0)
    assert {path.name for path in out.iterdir()} == {
        "model", "index.json", "people.parquet", "sources.parquet", "embeddings.zarr", "SHA256SUMS"
    }  # fmt: skip
    array = zarr.open_array(str(out / "embeddings.zarr"), mode="r")
    assert array.shape == (24, 16) and array.dtype == np.float16
    people = pq.read_table(out / "people.parquet").to_pylist()
    assert {row["camera"] for row in people} == {"entrance", "hall"}
    assert [row["image"] for row in people] == sorted(row["image"] for row in people)
    np.testing.assert_array_equal(array[:], np.concatenate(open_index(out).blocks))


def test_an_update_reads_only_what_is_new_or_changed(scenes: Path, model: GivenModel, tmp_path: Path) -> None:
    out = tmp_path / "index"
    build_index(out, [scenes], model, settings=SETTINGS)
    before = content(out)
    assert build_index(out).images == 0 and content(out) == before

    os.utime(scenes / "hall" / "b0.png")  # another date, the same bytes
    assert build_index(out).images == 0
    write_scenes(scenes / "yard", 1, source="c", seed=3)
    write_scenes(scenes / "hall", 1, source="b", seed=9)  # b0.png shows something else
    (scenes / "entrance" / "a1.png").unlink()
    outcome = build_index(out)
    assert (outcome.added, outcome.changed, outcome.dropped, outcome.unchanged) == (1, 1, 1, 4)
    assert outcome.images == 2

    fresh = tmp_path / "fresh"
    build_index(fresh, [scenes], model, settings=SETTINGS)
    assert images(out) == images(fresh)
    tables = [open_index(each).table for each in (out, fresh)]
    for name in tables[0].column_names:
        if name in ("x1", "y1", "x2", "y2", "score"):  # found in batches of other images
            np.testing.assert_allclose(tables[0][name], tables[1][name], atol=0.01)
        else:
            assert tables[0][name].to_pylist() == tables[1][name].to_pylist()
    ours, theirs = (np.concatenate(open_index(each).blocks).astype(float) for each in (out, fresh))
    np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_what_cannot_be_read_is_named_and_counted(scenes: Path, model: GivenModel, tmp_path: Path) -> None:
    (scenes / "hall" / "bad.jpg").write_bytes(b"\xff\xd8 not an image")
    (scenes / "hall" / "text.jpg").write_text("a text")
    (scenes / "hall" / "empty.mp4").write_bytes(b"")
    outcome = build_index(tmp_path / "index", [scenes], model, settings=SETTINGS)
    assert outcome.images == 6 and outcome.skipped == 3
    for name in ("bad.jpg", "text.jpg", "empty.mp4"):
        assert sum(name in fault for fault in outcome.faults) == 1
    assert all(str(scenes) in fault for fault in outcome.faults)
    assert len(images(tmp_path / "index")) == 6


def test_lists_and_single_files_and_no_file_twice(scenes: Path, model: GivenModel, tmp_path: Path) -> None:
    listed = tmp_path / "some.txt"
    listed.write_text(f"# two\nscenes/hall/b0.png\n\n{scenes / 'hall' / 'b1.png'}\n")
    out = tmp_path / "index"
    outcome = build_index(
        out, [listed, scenes / "hall" / "b0.png", scenes / "hall" / "b2.png"], model, settings=SETTINGS
    )
    assert outcome.images == 3
    assert sorted(path.name for path in {open_index(out).path(row) for row in range(12)}) == [
        "b0.png",
        "b1.png",
        "b2.png",
    ]


def test_places_are_remembered_and_others_stay_as_they_are(
    scenes: Path, model: GivenModel, tmp_path: Path
) -> None:
    out = tmp_path / "index"
    build_index(out, [scenes / "hall"], model, settings=SETTINGS)
    build_index(out, [scenes / "entrance"])
    assert len(images(out)) == 6
    (scenes / "hall" / "b1.png").unlink()
    assert build_index(out, [scenes / "entrance"]).dropped == 0
    assert build_index(out).dropped == 1
    shutil.rmtree(scenes / "hall")
    (scenes / "hall").mkdir()
    with pytest.raises(ConfigError, match="no images or videos in it"):
        build_index(out)
    assert len(images(out)) == 5


def test_scenes_that_moved_are_found(scenes: Path, model: GivenModel, tmp_path: Path) -> None:
    out = tmp_path / "both" / "index"
    shutil.move(scenes, tmp_path / "both" / "scenes")
    build_index(out, [tmp_path / "both" / "scenes"], model, settings=SETTINGS)
    together = shutil.move(tmp_path / "both", tmp_path / "together")
    index = open_index(Path(together) / "index")
    assert index.picture(0).size
    assert build_index(Path(together) / "index").unchanged == 6
    shutil.move(Path(together) / "scenes", tmp_path / "elsewhere")
    old = index.places[0].path
    moved = open_index(Path(together) / "index", roots={old: tmp_path / "elsewhere"})
    assert moved.path(0).is_file() and moved.picture(0).size


def test_removed_files_are_gone_for_good(scenes: Path, model: GivenModel, tmp_path: Path) -> None:
    out = tmp_path / "index"
    build_index(out, [scenes], model, settings=SETTINGS)
    gone = scenes / "hall" / "b1.png"
    rows = [row for row in range(24) if open_index(out).path(row) == gone]
    secrets = [open_index(out).blocks[0][row].tobytes() for row in rows]
    with pytest.raises(ConfigError, match="nothing was removed"):
        remove_images(out, [gone, scenes / "absent.png"])
    assert remove_images(out, [gone]) == (1, 4)
    shutil.copy(gone, scenes / "hall" / "copy.png")
    outcome = build_index(out)
    assert outcome.barred == 2 and outcome.images == 0
    kept = b"".join(content(out).values())
    assert b"b1.png" not in kept and not any(secret in kept for secret in secrets)


def test_another_model_other_settings_and_strange_folders_are_refused(
    scenes: Path, model: GivenModel, tmp_path: Path
) -> None:
    out = tmp_path / "index"
    with pytest.raises(ConfigError, match="name the model"):
        build_index(out, [scenes])
    with pytest.raises(ConfigError, match="nothing to index"):
        build_index(out, [], model)
    build_index(out, [scenes], model, settings=SETTINGS)
    with pytest.raises(ConfigError, match=r"score_threshold 0\.0, not 0\.5"):
        build_index(out, settings=Settings(max_per_image=4))
    with pytest.raises(ConfigError, match="another model"):
        from dataclasses import replace

        build_index(out, [scenes], replace(model, digest="0" * 64))
    with pytest.raises(ConfigError, match=r"holds entrance and no index"):
        build_index(scenes, [scenes], model)
    with pytest.raises(ConfigError, match="does not exist"):
        build_index(out, [tmp_path / "absent"])
    (out / "index.json").write_text("{")
    with pytest.raises(ConfigError, match="damaged"):
        open_index(out)


def build_killed_ten_times(scenes: Path, model: Path, out: Path, whole: Path) -> None:
    """Build the index once, and again with ten kills; in a process that has started no thread."""
    import personsearch_core.search.network  # noqa: F401

    torch.set_num_threads(1)

    def build(target: Path, seconds: float | None = None) -> tuple[float, int]:
        started = time.monotonic()
        child = os.fork()
        if child == 0:
            where = Where(batch=2, part_seconds=0.0)
            build_index(target, [scenes], given_model(model), settings=SETTINGS, where=where)
            os._exit(0)
        if seconds is not None:
            time.sleep(seconds)
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        return time.monotonic() - started, status

    seconds, status = build(whole)
    assert status == 0
    killed = [build(out, seconds * (kill + 0.5) / 11)[1] for kill in range(10)]
    assert signal.SIGKILL in killed, "no build was killed"
    assert build(out)[1] == 0


@pytest.mark.slow
def test_killed_at_ten_moments_the_index_is_the_same(
    scenes: Path, model_folder: Path, tmp_path: Path
) -> None:
    write_scenes(scenes / "yard", 8, source="c", seed=5)
    out, whole = tmp_path / "index", tmp_path / "whole"
    finish(build_killed_ten_times, scenes, model_folder, out, whole)
    assert content(out) == content(whole)


def test_a_kill_while_files_are_put_in_place_is_finished_by_the_next(
    scenes: Path, model: GivenModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever file was the last to be moved before the process died: the update is whole, or not begun."""
    out = tmp_path / "index"
    build_index(out, [scenes / "hall"], model, settings=SETTINGS)
    before = len(open_index(out))
    rename = Path.replace

    class Killed(Exception):
        pass

    for survived in (0, 3, 4, 5, 7):
        copy = tmp_path / f"copy{survived}"
        shutil.copytree(out, copy, copy_function=shutil.copy2)
        calls = iter(range(100))

        def replace_or_die(path: Path, target: Path, calls: object = calls, survived: int = survived) -> Path:
            if ".next" in path.parts and next(calls) >= survived:  # type: ignore[call-overload]
                raise Killed
            return rename(path, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", replace_or_die)
            with contextlib.suppress(Killed):
                build_index(copy, [scenes / "entrance"])
        assert len(open_index(copy)) in (before, 2 * before)
        assert build_index(copy, [scenes / "entrance"]).people_in_all == 2 * before
        assert len(open_index(copy)) == 2 * before


def test_two_updates_at_once_are_refused(scenes: Path, model: GivenModel, tmp_path: Path) -> None:
    from flows.search.committing import alone

    with alone(tmp_path / "index"), pytest.raises(ConfigError, match="being updated by another process"):
        build_index(tmp_path / "index", [scenes], model)


def test_exif_turns_pictures_and_gives_the_time(scenes: Path, model: GivenModel, tmp_path: Path) -> None:
    folder = tmp_path / "taken"
    folder.mkdir()
    with Image.open(scenes / "hall" / "b0.png") as image:
        exif = Image.Exif()
        exif[0x0112] = 6
        exif.get_ifd(0x8769)[0x9003] = "2023:04:05 06:07:08"
        image.save(folder / "a.jpg", exif=exif)
    build_index(tmp_path / "index", [folder], model, settings=SETTINGS)
    index = open_index(tmp_path / "index")
    assert index.search(shots=[0]).matches[0].time == "2023-04-05T06:07:08"
    assert index.picture(0, scene=True).size == (80, 120)


def test_an_index_without_people_can_be_searched(scenes: Path, model: GivenModel, tmp_path: Path) -> None:
    build_index(tmp_path / "index", [scenes], model, settings=Settings(score_threshold=1.0))
    index: Index = open_index(tmp_path / "index")
    assert len(index) == 0 and index.cameras == () and index.time_range is None
    assert index.search(scenes / "hall" / "b0.png").matches == ()
