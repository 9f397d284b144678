"""Configs and studies: YAML, what it extends, and the values of its fields."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from data_catalog.synthetic import PrwSpec, write_prw
from flows.config.loading import load_config
from flows.plan.states import make_plan
from flows.stages.building import build_stages
from flows.studies.loading import Loader
from flows.studies.members import resolve_study
from flows.studies.reading import is_study, read_study
from storage.opening import open_store
from tests.end_to_end.tiny import tiny_settings
from tests.flows.studies.files import write_study
from tests.fuzz.edits import Edit, Edits, Tree, of_file, values
from tests.fuzz.target import Target, all_of

_PRW = PrwSpec(train_images=2, test_images=1, width=32, height=32, train_identities=1, people=(1, 1))


def _write_config(folder: Path) -> None:
    write_prw(folder / "data" / "prw", _PRW, seed=1)
    settings = tiny_settings("data", "store")
    del settings["datasets"]["tracks"], settings["detector"]["train"][1]
    (folder / "base.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    (folder / "tiny.yaml").write_text("extends: base.yaml\nreid:\n  lr: 2e-3\n")
    (folder / "set.txt").write_text("reid.lr=3e-4")


_NAMES = st.sampled_from(
    ("extends", "store", "datasets", "detector", "reid", "run", "<<", "roi", "x", "1", "no")
)
_SCALARS = st.sampled_from(
    ("base.yaml", "tiny.yaml", "/dev/zero", "/dev/stdin", "..", "~nobody/x", "${X}", "${HOME",
     "!!python/object:os.x {}", "!!binary x", "!!set {a}", "!!timestamp 9999-99-99", "0o17", "0x1F",
     "1_000", "190:20:30", ".inf", ".nan", "&a [*a]", "*a", "? x", "{", "[", "'", '"', "|", ">", "- -",
     "2024-13-01", "99999-01-01", "1e999", "null", "~", "\t", "%TAG ! x", "---", "...", "@", "`")
)  # fmt: skip


def _text(draw: Any) -> str:
    lines = draw(st.lists(st.tuples(st.integers(0, 2), _NAMES, _SCALARS), max_size=6))
    return "".join(f"{'  ' * depth}{name}: {value}\n" for depth, name, value in lines)


@st.composite
def _yaml_texts(draw: Any) -> Any:
    """YAML of odd parts: aliases that multiply, brackets, merges, tags."""
    kind = draw(st.sampled_from(("lines", "aliases", "brackets", "flow", "merges", "chain")))
    count = draw(st.sampled_from((2, 9, 30, 200)))
    if kind == "aliases":
        rows = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9) if n else 'x'}]\n" for n in range(count)]
        return "".join(rows)
    if kind == "brackets":
        return (draw(st.sampled_from(("[", "{", "- ", "? ", "{a: ", "!!seq ["))), count * 100)
    if kind == "merges":
        return "".join(
            f"b{n}: &b{n} {{<<: [{', '.join(f'*b{m}' for m in range(n))}], k{n}: 1}}\n" for n in range(count)
        )
    if kind == "flow":
        return "{" + ", ".join(draw(st.lists(_SCALARS, max_size=6))) + "}"
    return _text(draw)


def _hostile_configs(tree: Tree) -> SearchStrategy[Edits]:
    texts = st.builds(
        lambda file, text: Edit(file, "whole", (), _latin(text)),
        st.sampled_from(("base.yaml", "tiny.yaml")),
        _yaml_texts(),
    )
    overrides = st.builds(
        lambda name, value: Edit("set.txt", "whole", (), _latin(f"{name}={value}")),
        st.sampled_from(
            (
                "reid.lr",
                "datasets",
                "store",
                "detector.train.0.split",
                "detector.train.9",
                "reid.phases.0",
                "x.y",
                "",
                ".",
                "a..b",
                "run",
            )
        ),
        st.one_of(_SCALARS, values.map(str)),
    )
    extends = st.builds(
        lambda file, value: Edit(file, "value", ("extends",), value),
        st.sampled_from(("base.yaml", "tiny.yaml")),
        st.sampled_from(
            (
                "base.yaml",
                "tiny.yaml",
                "./base.yaml",
                "/dev/zero",
                "/dev/tty",
                ".",
                "data",
                "x.yaml",
                ["base.yaml"],
                3,
                "\0",
                "x" * 5_000,
            )
        ),
    )
    files = [of_file(name, tree[name]) for name in ("base.yaml", "base.yaml", "base.yaml", "tiny.yaml")]
    return st.lists(st.one_of(*files, texts, overrides, extends), min_size=1, max_size=3).map(tuple)


def _latin(text: Any) -> Any:
    return text.encode("latin-1", "replace").decode("latin-1") if isinstance(text, str) else text


def _use_config(folder: Path) -> None:
    path = folder / "tiny.yaml"
    override = (folder / "set.txt").read_bytes().decode("latin-1") if (folder / "set.txt").is_file() else ""

    def planned() -> None:
        config = load_config(path, [override] if override else [])
        make_plan(build_stages(config), open_store(config.store))

    all_of((lambda: is_study(path), planned))


def _hostile_studies(tree: Tree) -> SearchStrategy[Edits]:
    texts = st.builds(lambda text: Edit("study.yaml", "whole", (), _latin(text)), _yaml_texts())
    file = of_file("study.yaml", tree["study.yaml"])
    return st.lists(st.one_of(file, file, file, texts), min_size=1, max_size=3).map(tuple)


def _use_study(folder: Path) -> None:
    path = folder / "study.yaml"
    study = resolve_study(path, read_study(path))
    loader = Loader(absent={})
    for member in list(study.members.values())[:3]:
        loader.load(member)


TARGETS = [
    Target("config", _write_config, _use_config, _hostile_configs),
    Target("study", write_study, _use_study, _hostile_studies),
]
