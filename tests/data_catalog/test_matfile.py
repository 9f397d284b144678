""".mat files read as scipy reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.io import loadmat, savemat

from data_catalog.errors import CatalogError
from data_catalog.matfile import only_variable, read_mat
from data_catalog.matstream import StructStream, named_boxes
from data_catalog.synthetic import write_protocol

NUMBERS = st.sampled_from(["u1", "i2", "u2", "i4", "f4", "f8"])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    array=NUMBERS.flatmap(
        lambda code: hnp.arrays(code, hnp.array_shapes(min_dims=2, max_dims=3, max_side=5))
    ),
    compressed=st.booleans(),
)
def test_arrays(tmp_path: Path, array: np.ndarray, compressed: bool) -> None:
    path = tmp_path / "a.mat"
    savemat(path, {"x": array}, do_compression=compressed)
    name, found = only_variable(path)
    assert name == "x"
    np.testing.assert_array_equal(found, loadmat(path)["x"])


def test_structs_cells_and_text(tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    cells = np.empty((1, 2), dtype=object)
    cells[0, 0], cells[0, 1] = "häuser", np.array([[1, 2]], np.uint8)
    savemat(path, {"s": {"name": "x", "cells": cells}, "empty": np.empty((0, 0))})
    found = read_mat(path)
    assert found["s"][0]["name"] == "x"
    assert found["s"][0]["cells"][0] == "häuser"
    assert found["s"][0]["cells"][1].tolist() == [[1, 2]]
    assert found["empty"].size == 0


def test_what_is_no_such_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "new.mat"
    path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(128) + bytes(64))
    with pytest.raises(CatalogError, match=r"new\.mat.*7\.3.*-v7"):
        read_mat(path)
    with pytest.raises(CatalogError, match=r"gone\.mat"):
        read_mat(tmp_path / "gone.mat")


def test_protocols_stream_as_scipy_reads_them(shared: Path) -> None:
    path = shared / "data/CUHK-SYSU/annotation/test/train_test/TestG100.mat"
    expected = loadmat(path)["TestG100"].ravel()
    with StructStream(path) as stream:
        assert stream.count == len(expected) == 2_900
        for index, value in enumerate(stream):
            gallery = named_boxes(value["Gallery"], stream.order)
            truth = expected[index]["Gallery"].ravel()
            assert gallery.names.to_pylist() == [str(entry["imname"][0]) for entry in truth]
            located = [entry["idlocate"].ravel().astype(float).tolist() for entry in truth]
            assert gallery.labelled.tolist() == [row for row, box in enumerate(located) if box]
            assert gallery.xywh.tolist() == [box for box in located if box]


def test_synthetic_protocols_are_what_scipy_reads(tmp_path: Path) -> None:
    path = tmp_path / "TestG50.mat"
    write_protocol(path, queries=3, gallery=50, images=90)
    truth = loadmat(path)["TestG50"].ravel()
    with StructStream(path) as stream:
        entries = [named_boxes(value["Gallery"], stream.order) for value in stream]
    assert [each.names.to_pylist() for each in entries] == [
        [str(image["imname"][0]) for image in query["Gallery"].ravel()] for query in truth
    ]
