"""Study files: what they say, and what is refused with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.config.loading import load_config
from flows.errors import ConfigError
from flows.studies.cells import check_cells
from flows.studies.loading import Loader
from flows.studies.objectives import PRESETS
from flows.studies.reading import is_study, read_study
from tests.flows.studies.files import STUDY, study_of, write_study


def test_members_and_cells(tmp_path: Path) -> None:
    study = study_of(write_study(tmp_path))
    assert list(study.members) == ["j3 on scenes", "j4 on scenes", "no margin"]
    assert study.members["j4 on scenes"].overrides == ('roi.variant="j4"',)
    assert study.members["j4 on scenes"].settings == {"roi.variant": "j4"}
    a, b = study.tables
    assert a.rows[0].cells["mAP"].members == ("j3 on scenes",)
    assert (a.rows[0].cells["mAP"].published, a.rows[1].cells["rank1"].published) == (22.5, None)
    assert b.rows[0].cells["mAP"].members == ("no margin",) and b.rows[0].ours


def test_seeds_multiply_members_and_cells_take_all(tmp_path: Path) -> None:
    study = study_of(write_study(tmp_path), seeds=range(3))
    assert len(study.members) == 9
    assert study.members["j3 on scenes, seed 2"].overrides[-1] == "reid.seed=2"
    assert study.tables[0].rows[0].cells["mAP"].members == tuple(f"j3 on scenes, seed {n}" for n in range(3))


def test_rows_leave_out_members_that_no_cell_needs(tmp_path: Path) -> None:
    study = study_of(write_study(tmp_path))
    small = study.of_rows("J4,")
    assert list(small.members) == ["j4 on scenes"]
    assert [[row.name for row in table.rows] for table in small.tables] == [["j4"]]
    with pytest.raises(ConfigError, match=r"no row 'no margn'; did you mean 'no margin'\?"):
        study.of_rows("J4, no margn")
    with pytest.raises(ConfigError, match="--rows: name at least one row; there are J3; J4; no margin"):
        study.of_rows(" ,")


def test_rows_may_have_a_comma_in_their_title(tmp_path: Path) -> None:
    text = STUDY.replace("title: J3,", "title: 'J3, p',").replace("title: J4,", "title: 'J3, m-w-p',")
    study = study_of(write_study(tmp_path, text))
    chosen = {
        rows: [row.name for table in study.of_rows(rows).tables for row in table.rows]
        for rows in ("J3, p", "no margin,J3, m-w-p", "J3")
    }
    assert chosen == {"J3, p": ["j3"], "no margin,J3, m-w-p": ["j4", "no margin"], "J3": ["j3", "j4"]}


def test_a_study_extends_another(tmp_path: Path) -> None:
    write_study(tmp_path).rename(tmp_path / "base.yaml")
    path = tmp_path / "sub" / "mine.yaml"
    path.parent.mkdir()
    path.write_text(
        "extends: ../base.yaml\nset: {reid.lr: 0.25}\nstand_ins: drawn.\ntables: {b: null}\n"
        "members: {variants: {set: {reid.seed: 4}}}\n"
    )
    study = study_of(path)
    assert [table.name for table in study.tables] == ["a"]
    assert list(study.members) == ["j3 on scenes", "j4 on scenes"]
    member = study.members["j3 on scenes"]
    assert member.config == tmp_path / "tiny.yaml"
    assert member.overrides == ("reid.lr=0.25", "reid.seed=4", 'roi.variant="j3"')
    assert "not comparable with the published ones: drawn." in study.tables[0].caption


def test_null_takes_away_only_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_study(tmp_path).rename(tmp_path / "base.yaml")
    monkeypatch.setenv("STUDIES", str(tmp_path))
    path = tmp_path / "mine.yaml"
    path.write_text("extends: ${STUDIES}/base.yaml\ntables: {b: null}\n")
    assert [table.name for table in study_of(path).tables] == ["a"]
    path.write_text("extends: ${STUDIES}/base.yaml\nmembers: {plain: }\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml, line 2: members\.plain: .* or {} for the defaults"):
        study_of(path)


def test_an_objective_is_trained_as_long_as_the_configs_phases(tmp_path: Path) -> None:
    grid = "grid: {reid.objective: {OIM: OIM, ours: [[{kind: oim}], [{kind: center}], [{kind: olp}]]}}"
    text = STUDY.replace(
        "  no margin: {set: {roi.margin: 0.0}}", f"  no margin: {{name: '{{reid.objective}}', {grid}}}"
    )
    text = text.replace("{no margin: {ours: true}}", "{OIM: {}, ours: {}}")
    study = study_of(write_study(tmp_path, text))
    phases = [
        [(phase.epochs, phase.objectives[0].kind) for phase in config.reid_section.phases]
        for name in ("OIM", "ours")
        for config in [load_config(tmp_path / "tiny.yaml", study.members[name].overrides)]
    ]
    assert phases == [[(4, "oim")], [(2, "oim"), (2, "center"), (2, "olp")]]


@pytest.mark.parametrize("value", ["NoSuch", "3", "[]", "[[]]"])
def test_an_objective_that_is_none_is_refused(tmp_path: Path, value: str) -> None:
    text = STUDY.replace("{set: {roi.margin: 0.0}}", f"{{grid: {{reid.objective: {{a: {value}}}}}}}")
    with pytest.raises(ConfigError, match=r"study\.yaml, line 7: member 'no margin': .*(OIM|preset)"):
        study_of(write_study(tmp_path, text))
    assert "OIM" in PRESETS


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("source:", "sauce:", r"line 11: tables\.a\.sauce: .*did you mean 'source'"),
        (
            "metric: rank1}",
            "metric: rank1, unit: inch}",
            r"line 14: tables\.a\.columns\.rank1\.unit: choose ",
        ),
        ("mAP: 12.3}", "mAP: good}", r"line 17: tables\.a\.rows\.j4\.published\.mAP: write a number"),
        ("mAP: 12.3}", "map: 12.3}", r"line 17: there is no column 'map'; did you mean 'mAP'"),
        ("{mAP: 24.2}", "{rank2: 24.2}", r"line 19: there is no column 'rank2'"),
        ("  no margin: {set", "  variants: {set", r"variants appears twice, in lines 4 and 7"),
        ("{no margin: {ours", "{no_margin: {ours", r"line 23: there is no member 'no_margin'; did you mean"),
        (
            '"{row} on scenes", metric: mAP',
            '"{rho} on scenes", metric: mAP',
            r"line 13: .*there is no \{rho\}",
        ),
        ("[j3, j4]", "j3", r"line 6: members\.variants\.grid\.roi\.variant: write a list"),
        ("[j3, j4]", "[{a: 1}]", r"give values that are lists or sections a name each"),
        ("{roi.margin: 0.0}", "{roi.margn: 0.0}", r"member 'no margin': set\.roi\.margn: .*did you mean"),
        ('"{roi.variant} on scenes"', "same", r"line 5: several members are called 'same'"),
        ("config: tiny.yaml\n", "", r"line 3: member 'variants': it names no config"),
        ("  no margin: {set", "  plain:\n  no margin: {set", r"line 7: members\.plain: .* or {} for the"),
        ("title: A study", "title: A study\nseeds: [3, 3]", r"line 2: seeds: seed 3 is listed twice"),
        ("title: A study", "title: A study\nseed_fields: []", r"line 2: seed_fields: give at least 1"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in STUDY
    path = write_study(tmp_path, STUDY.replace(old, new, 1))
    with pytest.raises(ConfigError, match=message):
        study = study_of(path)
        check_cells(study, Loader(absent={}))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("metric: rank1}", "metric: rank1, gallery: '100'}", r"line 14: column 'rank1' .*no setting like"),
        (
            "metric: rank1}",
            "metric: rank1, boxes_per_image: 7}",
            r"no setting like this column's; it has prw",
        ),
        ("metric: rank1}", "metric: rank1, test: tracks}", r"not tested on 'tracks' but on scenes"),
        ("metric: rank1}", "metric: rank1, stage: speed}", r"it has no stage speed"),
        ("no margin: {set", "no margin: {until: reid, set", r"line 22: .*it has no stage evaluation"),
        ("metric: rank1}", "metric: rank_1}", r"line 14: .*no metric 'rank_1'; did you mean 'rank1'\?"),
    ],
)
def test_a_cell_that_no_run_can_fill_is_refused_before_it(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    study = study_of(write_study(tmp_path, STUDY.replace(old, new, 1)))
    with pytest.raises(ConfigError, match=message):
        check_cells(study, Loader(absent={}))


def test_configs_are_no_studies(tmp_path: Path) -> None:
    path = write_study(tmp_path)
    assert is_study(path) and not is_study(tmp_path / "tiny.yaml")
    with pytest.raises(ConfigError, match="is a study, not a config; use: personsearch study run"):
        load_config(path)
    with pytest.raises(
        ConfigError, match=r"tiny.yaml is a config, not a study; run it with: personsearch run"
    ):
        read_study(tmp_path / "tiny.yaml")
    (tmp_path / "no.yaml").write_text("title: x\ntables: {}\n")
    with pytest.raises(ConfigError, match=r"members: this field is missing; a study has members and tables"):
        read_study(tmp_path / "no.yaml")
