"""The config: what is typed wrong is named, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from flows.config.loading import load_config, store_of
from flows.config.models import Config
from flows.errors import ConfigError
from flows.stages.building import build_stages
from flows.stages.detector import stage as detector_stage
from flows.studies.members import resolve_study
from flows.studies.reading import is_study, read_study
from personsearch_core.recipes import OBJECTIVE_FIELDS, Objective

PROJECT = Path(__file__).resolve().parents[3]


def minimal() -> dict[str, object]:
    view = {"dataset": "prw", "split": "train"}
    return {
        "store": "store",
        "datasets": {"prw": {"adapter": "prw", "root": "data/prw"}},
        "detector": {"train": [view]},
        "reid": {"train": view},
        "evaluation": {"test": {"dataset": "prw", "split": "test"}},
    }


def write(folder: Path, body: object) -> Path:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(body))
    return path


def test_relative_paths_resolve_against_the_config_file(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, minimal()))
    assert config.store == str(tmp_path / "store")
    assert config.datasets["prw"].root == tmp_path / "data" / "prw"


def test_a_file_of_weights_resolves_against_the_config_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = minimal() | {"detector": {"train": [{"dataset": "prw", "split": "train"}]}}
    path = write(tmp_path, body)
    (tmp_path / "my.safetensors").touch()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    name = "detector.model.initial_weights"
    config = load_config(path, [f"{name}=my.safetensors"])
    assert config.detector.model.initial_weights == str(tmp_path / "my.safetensors")
    assert detector_stage(config).fixed_inputs.keys() == {"initial_weights"}
    assert load_config(path, [f"{name}=coco"]).detector.model.initial_weights == "coco"
    with pytest.raises(
        ConfigError, match=r"'cocoo' is not one of coco, imagenet, and file .*/cocoo does not exist"
    ):
        load_config(path, [f"{name}=cocoo"])


@pytest.mark.parametrize("store", ["s3://", "s3:///", "memory://"])
def test_a_url_without_a_place_is_refused(tmp_path: Path, store: str) -> None:
    with pytest.raises(ConfigError, match="does not name a place"):
        load_config(write(tmp_path, minimal() | {"store": store}))
    with pytest.raises(ConfigError, match="does not name a place"):
        load_config(write(tmp_path, minimal()), store=store)


def test_an_alias_of_what_it_lies_in_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("store: here\ndatasets: &all {prw: *all}\n")
    with pytest.raises(ConfigError, match=r"an alias \(\*\) stands for something that contains it"):
        load_config(path)


def test_the_store_is_told_though_the_rest_is_wrong(tmp_path: Path) -> None:
    path = write(tmp_path, minimal() | {"reeid": 3})
    assert store_of(path) == str(tmp_path / "store")
    assert store_of(path, store="s3://bucket/there") == "s3://bucket/there"
    with pytest.raises(ConfigError, match="store: this field is missing"):
        store_of(write(tmp_path, {"datasets": {}}))


def test_variables_with_and_without_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = minimal()
    body["store"] = "${WHERE:-elsewhere}/store"
    path = write(tmp_path, body)
    monkeypatch.delenv("WHERE", raising=False)
    assert load_config(path).store == str(tmp_path / "elsewhere" / "store")
    monkeypatch.setenv("WHERE", "/there")
    assert load_config(path).store == "/there/store"
    body["store"] = "${WHERE_NOT_SET_ANYWHERE}"
    with pytest.raises(ConfigError, match="WHERE_NOT_SET_ANYWHERE is not set"):
        load_config(write(tmp_path, body))


def test_paths_have_variables_as_a_shell_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.delenv("NOT_SET", raising=False)
    body = minimal() | {"store": "$HOME/store"}
    body["datasets"]["prw"] |= {"root": "${EMPTY:-$HOME}/data", "options": {"pattern": "x$HOME$"}}
    path = write(tmp_path, body)
    (tmp_path / "own").mkdir()
    own = tmp_path / "own" / "own.yaml"
    own.write_text("extends: ../config.yaml\n")
    for file in (path, own):
        config = load_config(file)
        assert config.store == "/home/me/store"
        assert config.datasets["prw"].options["pattern"] == "x$HOME$"
    assert load_config(path, ["store=$HOME/other"]).store == "/home/me/other"
    assert load_config(path, ["store=a$$b"]).store == str(tmp_path / "a$b")
    assert load_config(path, store="~/x").store == "/home/me/x"
    for store, message in (
        ("$NOT_SET/x", r"'\$NOT_SET/x': the environment variable NOT_SET is not set; .*or write \$\$"),
        ("${NOT_SET-x}", "write a variable as"),
    ):
        with pytest.raises(ConfigError, match=rf"^--set: .*{message}"):
            load_config(write(tmp_path, minimal()), [f"store={store}"])
        with pytest.raises(ConfigError, match=rf"config\.yaml: .*{message}"):
            load_config(write(tmp_path, minimal() | {"store": store}))


def test_a_root_that_is_not_there_names_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PLACE_OF_DATA", raising=False)
    body = minimal()
    body["datasets"]["prw"]["root"] = "${PLACE_OF_DATA:-data}/prw"
    path = write(tmp_path, body)
    (tmp_path / "own.yaml").write_text("extends: config.yaml\n")
    for file in (path, tmp_path / "own.yaml"):
        with pytest.raises(
            ConfigError, match=r"datasets\.prw\.root: folder .* does not exist; \$PLACE_OF_DATA is not set"
        ):
            build_stages(load_config(file, ["report.title=x"]))
    monkeypatch.setenv("PLACE_OF_DATA", str(tmp_path))
    with pytest.raises(ConfigError, match=r"folder [^;]* does not exist$"):
        build_stages(load_config(path))


def test_problems_of_the_file_and_of_overrides_are_blamed_apart(tmp_path: Path) -> None:
    path = write(tmp_path, minimal() | {"reeport": {}})
    with pytest.raises(ConfigError) as raised:
        load_config(path, ["reid.lr=-1", "reid.shots=two"])
    found = str(raised.value).split("; ")
    assert f"{path}: reeport: unknown field" in found
    assert "--set reid.lr: must be greater than 0 (given: -1)" in found
    assert "--set reid.shots: write a whole number (given: 'two')" in found


def test_overrides_reach_any_depth_and_are_typed(tmp_path: Path) -> None:
    path = write(tmp_path, minimal())
    config = load_config(
        path, ["reid.lr=3e-4", "detector.model.backbone=resnet18", "detector.train.0.choose=7"]
    )
    assert config.reid.lr == 3e-4
    assert config.detector.model.backbone == "resnet18"
    assert config.detector.train[0].amount.choose == 7


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("reid.lrr=1", r"^--set reid\.lrr: unknown field; did you mean 'lr'\?$"),
        ("reid.learning_rate=1", r"^--set reid\.learning_rate: unknown field; did you mean 'lr'\?$"),
        ("reid.bakbone=1", r"did you mean 'detector\.model\.backbone'\?$"),
        ("reid.phases=[{epochs: 1, objektives: []}]", r"phases\.0\.objektives: .*did you mean 'objectives'"),
        ("detector.train=3", r"^--set detector\.train: write a list such as \[1, 2\] \(given: 3\)$"),
        ("features=3", r"^--set features: write its fields below it as NAME: VALUE \(given: 3\)$"),
        (
            "datasets.prw.options={a: [1]}",
            r"options\.a: write text, a number, true or false \(given: a list\)$",
        ),
        ("roi.variant=j9", r"^--set roi\.variant: choose 'j2', 'j3', 'j4' or 'disj' \(given: 'j9'\)$"),
        ("report={scenes: 1, scenes: 2}", "scenes appears twice, in line 1, columns 2 and 13; keep one"),
        ("reid.lr=fast", r"^--set reid\.lr: write a number \(given: 'fast'\)$"),
        ("reid.lr=-1", r"reid\.lr: .*greater than 0"),
        ("detector.train.3.choose=7", "not a position from 0 to 0"),
        ("nonsense", "NAME=VALUE"),
        (
            "reid.train.dataset=unknown",
            "reid.train.dataset: 'unknown' is not a dataset of this config; it has prw",
        ),
        ("features.dtype=uint8", "does not go with variant"),
        ("detector.model.initial_weights=null", r"'frozen_batch' .*from scratch use 'batch' or 'group'$"),
        (
            "reid.branch={norm: frozen_batch, initial_weights: random}",
            r"'frozen_batch' needs branch\.initial_weights",
        ),
        (
            "reid.branch={norm: group}",
            r"reid\.branch: norm 'group' cannot start from.* 'detector', whose norms are 'frozen_batch'",
        ),
        (
            "reid.branch={norm: group, initial_weights: imagenet}",
            "initial_weights 'imagenet', whose norms are 'batch'",
        ),
        (
            "detector.model={norm: group, initial_weights: detector.pth}",
            r"reid\.branch: norm 'batch' cannot start from.*whose norms are 'group': use norm 'group'",
        ),
        ("detector.model.norm=group", r"detector\.model: norm 'group' cannot start from.*'coco'"),
        ("reid.lr=[", r"--set reid\.lr=\[: this is not valid YAML: while parsing"),
        ("report.title=2024-13-01", "is not valid YAML: month must be in 1..12"),
        ("run.device=foo", r"run\.device: 'foo' is not a device: use auto, cpu, cuda"),
        ("run.memory_budget_gib=.inf", r"run\.memory_budget_gib: write a finite number"),
        ("run.memory_budget_gib=.nan", r"run\.memory_budget_gib: write a finite number"),
        ("datasets.prw.root=~nosuchuser/x", "~nosuchuser/x: that user has no home folder"),
        ("reid.cuda_graphs=true", r"cuda_graphs needs compute\.compile"),
        ("reid.phases=[]", r"reid\.phases: .*at least 1"),
        ("reid.phases=[{epochs: 1, objectives: []}]", r"reid\.phases\.0\.objectives: .*at least 1"),
        ("reid.phases=[{epochs: 1, objectives: [{kind: ioim}]}]", "ioim learns from unlabelled people"),
        (
            "reid.phases=[{epochs: 1, objectives: [{kind: semi_hard_triplet, queue: 9, temperature: 1}]}]",
            "semi_hard_triplet has no queue and no temperature: besides weight it takes margin, squared",
        ),
        ("detector.augmentation.scale_jitter=[2.0, 0.5]", r"must be \(smallest, largest\), not \(2, 0\.5\)"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(write(tmp_path, minimal()), [override])


def test_norms_that_fit_their_weights_are_taken(tmp_path: Path) -> None:
    path = write(tmp_path, minimal())
    for overrides in (
        ["reid.branch={norm: group, initial_weights: random}"],
        ["reid.branch={norm: frozen_batch, initial_weights: imagenet}"],
        ["detector.model={norm: group, initial_weights: null}", "reid.branch={norm: group}"],
        ["detector.model={norm: group, initial_weights: null}", "reid.branch.initial_weights=imagenet"],
    ):
        assert load_config(path, overrides).reid is not None


def test_every_kind_of_objective_says_which_fields_it_takes(tmp_path: Path) -> None:
    named = {
        "loss": "CircleLoss",
        "miner": "BatchHardMiner",
        "loss_options": {"m": 0.3},
        "miner_options": None,
    }
    for kind, fields in OBJECTIVE_FIELDS.items():
        given = Objective.model_validate({"kind": kind, **{name: named.get(name, 1) for name in fields}})
        # A recipe out of an artifact names every field, those without effect as null.
        assert Objective.model_validate(given.model_dump(mode="json")) == given


def test_holding_out_nothing_keeps_the_detectors_key(tmp_path: Path) -> None:
    path = write(tmp_path, minimal())
    recipes = [detector_stage(load_config(path, part)).recipe["detector"]["training"] for part in (
        [], ["detector.training.held_out=0.1"],
    )]  # fmt: skip
    assert "held_out" not in recipes[0] and recipes[1]["held_out"] == 0.1


def test_an_entry_has_one_amount(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="one of proportion, repeat and choose"):
        load_config(write(tmp_path, minimal()), ["detector.train.0.choose=7", "detector.train.0.repeat=2"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"a: [", "not valid YAML"),
        (b"- 1", "does not hold a mapping"),
        (b"report: {title: caf\xe9}", "not UTF-8 text: byte 19 is 0xe9"),
        (b"a: 2024-13-01", "not valid YAML"),
    ],
)
def test_files_that_are_no_config(tmp_path: Path, text: bytes, message: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(text)
    with pytest.raises(ConfigError, match=message):
        load_config(path)
    with pytest.raises(ConfigError, match=r"config .*absent\.yaml does not exist"):
        load_config(tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([], ["roi.roi_height=32", "roi.roi_width=16"]),
        (["roi.roi_scale=0.5"], ["roi.roi_height=16", "roi.roi_width=8"]),
        (["roi.roi_scale=0.3"], ["roi.roi_scale=0.31"]),
        (["roi.roi_height=20"], ["roi.roi_height=20", "roi.roi_width=16"]),
    ],
)
def test_equal_roi_sizes_are_one_recipe_however_they_are_written(
    tmp_path: Path, one: list[str], other: list[str]
) -> None:
    path = write(tmp_path, minimal())
    recipe = load_config(path, one).features_recipe()
    assert recipe == load_config(path, other).features_recipe()
    assert recipe.roi == recipe.roi.canonical()


def test_the_roi_is_read_from_its_old_place_and_what_to_write_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    body = minimal()
    path = write(tmp_path, body)
    new = load_config(path, ["roi.variant=j2", "roi.roi_height=8", "roi.roi_width=4"])
    body["reid"] |= {"variant": "j3", "roi_height": 8, "roi_width": 4}  # type: ignore[operator]
    path = write(tmp_path, body)
    for override in ("reid.variant=j2", "roi.variant=j2"):
        assert load_config(path, [override]).features_recipe() == new.features_recipe()
    assert f"{path}: reid.roi_height has moved: write roi.roi_height" in caplog.text
    assert "--set: reid.variant has moved: write roi.variant" in caplog.text
    body["roi"] = {"roi_height": 9}
    with pytest.raises(ConfigError, match=r"reid\.roi_height: roi\.roi_height is given, too; keep only that"):
        load_config(write(tmp_path, body))


@pytest.mark.parametrize("path", sorted(PROJECT.glob("configs/**/*.yaml")), ids=lambda path: path.stem)
def test_every_config_and_study_of_the_project_is_valid(path: Path) -> None:
    if is_study(path):
        assert resolve_study(path, read_study(path)).members
    else:
        assert isinstance(load_config(path), Config)


@pytest.mark.parametrize("name", ["$HERE/config.yaml", "${HERE}/config.yaml", "~/config.yaml"])
def test_what_a_config_extends_is_a_path_as_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("HERE", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    base = load_config(write(tmp_path, minimal()))
    (tmp_path / "inner").mkdir()
    own = tmp_path / "inner" / "own.yaml"
    own.write_text(f"extends: {name}\n")
    assert load_config(own).model_dump() == base.model_dump()
    own.write_text("extends: $NOWHERE/config.yaml\n")
    with pytest.raises(ConfigError, match=r"own\.yaml: extends.*NOWHERE is not set"):
        load_config(own)


def test_a_config_extends_another(tmp_path: Path) -> None:
    write(tmp_path, minimal())
    more = tmp_path / "more.yaml"
    more.write_text("extends: config.yaml\nreid: {lr: 0.5, train: {split: val}}\n")
    config = load_config(more)
    assert config.reid_section.lr == 0.5
    (entry,) = config.reid_section.train
    assert entry.dataset == "prw" and entry.split == "val"
    more.write_text("extends: more.yaml\n")
    with pytest.raises(ConfigError, match="another config file"):
        load_config(more)


def test_an_extended_configs_paths_are_from_its_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, middle, own = (tmp_path / name for name in ("base", "base/middle", "own"))
    for folder in (middle, own):
        folder.mkdir(parents=True)
    weights = base / "start.pth"
    weights.touch()
    body = minimal()
    body["store"] = "${PLACE:-here}/store"
    body["datasets"]["prw"]["root"] = "../data"
    body["detector"].setdefault("model", {})["initial_weights"] = "start.pth"
    write(base, body)
    (middle / "middle.yaml").write_text("extends: ../config.yaml\n")
    (own / "own.yaml").write_text("extends: ../base/middle/middle.yaml\n")
    config = load_config(own / "own.yaml")
    assert config.store == str(base / "here" / "store")
    assert config.datasets["prw"].root == tmp_path / "data"
    assert config.detector.model.initial_weights == str(weights)
    monkeypatch.setenv("PLACE", "s3://bucket")
    assert load_config(own / "own.yaml").store == "s3://bucket/store"
    monkeypatch.setenv("PLACE", "/elsewhere")
    assert load_config(own / "own.yaml").store == "/elsewhere/store"
    assert load_config(own / "own.yaml", ["store=mine"]).store == str(own / "mine")


def test_a_config_may_end_with_the_detector(tmp_path: Path) -> None:
    body = minimal()
    del body["evaluation"], body["reid"]
    assert load_config(write(tmp_path, body)).reid is None
    body["evaluation"] = {"test": {"dataset": "prw", "split": "test"}}
    with pytest.raises(ConfigError, match="nothing to evaluate without a reid section"):
        load_config(write(tmp_path, body))
