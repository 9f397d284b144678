"""The card of a model: what it was trained on and how, how good it is, and where its limits are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from flows.config.pins import Section
from flows.plan.finished import FinishedModel
from flows.report.origin import departures
from flows.report.results import EvaluationFiles
from personsearch_core.checksums import write_checksums
from personsearch_core.export import MODEL_CARD, present_files, save_model
from storage import durable
from storage.manifest import Manifest

_COLUMNS = ("mAP", "rank1", "rank5", "rank10")
_RESPONSIBLE = """\
## Responsible use

A match says that two pictures look alike to this model. It does not prove who a person is: people in similar
clothes are confused, and errors are more frequent for people, places and cameras that the training data does
not show. Have a person check every match before it has consequences. Search for people only where the law
allows it (in the EU, see the GDPR and the AI Act) and where those who are filmed know of it. Keep no more
pictures, and no longer, than the purpose needs; `personsearch index --remove IMAGE...` takes pictures out of
an index for good.
"""


def write_model(finished: FinishedModel, folder: Path) -> None:
    """Write a finished model and its card into one folder, which loads without this package's store."""
    net = finished.load("cpu")
    save_model(folder, net.detector, net.branch, net.roi, finished.provenance())
    durable.write(folder / MODEL_CARD, model_card(finished))
    write_checksums(folder, present_files(folder))


def model_card(finished: FinishedModel) -> str:
    """The card, in Markdown."""
    made = {"detector": finished.detector.manifest, "re-ID branch": finished.reid.manifest}
    results = {name: EvaluationFiles.of(artifact) for name, artifact in finished.evaluations().items()}
    parts = [
        f"# Model card\n\n{_what(finished)}",
        f"## Training data\n\n{_lines(_training_data(finished))}",
        f"## Recipe\n\nFields that differ from their defaults.\n\n{_lines(_recipe(made))}",
        f"## Figures\n\n{_figures(results)}",
        f"## Limits\n\n{_lines(_limits(finished, results))}",
        _RESPONSIBLE,
        f"## Artifacts\n\n{_lines(_artifacts(made))}",
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _what(finished: FinishedModel) -> str:
    config = finished.config
    model, roi = config.detector.model, config.roi
    shares = {"disj": "shares no layers with it and reads crops"}.get(
        roi.variant, f"shares its layers C1 to C{roi.variant[1:]}"
    )
    return (
        "Finds people in images, and computes an embedding of "
        f"{config.reid_section.branch.embedding_dim} numbers for each, by which a person is found again. The "
        f"detector is a RetinaNet ({model.backbone}) on inputs of {model.image_width}x{model.image_height} "
        f"pixels; the re-ID branch ({roi.variant}) {shares}. Method: Loesch et al., ICIP 2019."
    )


def _training_data(finished: FinishedModel) -> Iterator[str]:
    config = finished.config
    parts: tuple[tuple[Section, str], ...] = (("detector", "detector"), ("reid", "re-ID branch"))
    for part, name in parts:
        if part in config.pins:
            yield from (f"{name}: {each}" for each in config.pins[part].learnt())
        for view in config.training_views(part):
            adapter = config.datasets[view.dataset].adapter
            yield f"{name}: {view.dataset}, split {view.split} (format {adapter})"
    yield f"initial weights of the detector: {config.detector.model.initial_weights or 'random'}"


def _recipe(made: Mapping[str, Manifest]) -> Iterator[str]:
    for name, manifest in made.items():
        for field, value in departures(manifest):
            yield f"{name}: `{field}: {value}`"


def _figures(results: Mapping[str, EvaluationFiles]) -> str:
    if not results:
        return "Not evaluated: `personsearch run CONFIG` evaluates the model if the config says on what."
    rows = [f"| test | setting | {' | '.join(_COLUMNS)} |", "|---" * (2 + len(_COLUMNS)) + "|"]
    for test, each in results.items():
        for setting in each.settings:
            intervals = {
                "mAP": setting.get("mAP_interval"),
                "rank1": each.rank1_intervals.get(setting["name"]),
            }
            cells = [_figure(setting[name], intervals.get(name)) for name in _COLUMNS]
            rows.append(f"| {test} | {setting['name']} | {' | '.join(cells)} |")
    detection = [
        f"- {test}: detection AP50 {100 * each.headline['detection_ap50']:.1f} over "
        f"{each.headline['images']} images, {each.headline['queries']} queries"
        for test, each in results.items()
    ]
    note = "Percent, with 95 % intervals over resampled queries where the evaluation has them."
    return "\n".join([note, "", *rows, "", *detection])


def _figure(value: float, interval: Sequence[float] | None) -> str:
    shown = f"{100 * value:.1f}"
    return shown if interval is None else f"{shown} ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})"


def _limits(finished: FinishedModel, results: Mapping[str, EvaluationFiles]) -> Iterator[str]:
    config = finished.config
    views = (*config.training_views("detector"), *config.training_views("reid"))
    trained = {view.dataset for view in views}
    trained |= {each.dataset for pin in config.pins.values() for each in pin.trained_on}
    yield (
        f"It was trained on {' and '.join(sorted(trained)) or 'unknown data'}; on other cameras, places, "
        "seasons and clothes it can be much worse than the figures say."
    )
    tested = {entry.test.dataset for entry in config.evaluation} if results else set()
    if same := sorted(tested & trained):
        yield f"It was tested on the domain that it was trained on: {', '.join(same)}."
    for test, each in results.items():
        if each.headline["queries"] < 500:
            yield f"{test} has only {each.headline['queries']} queries: its figures are uncertain."
    yield "People who are small, hidden or cut off are often not detected, and then no search finds them."
    yield "It compares appearance, mostly clothes: the same person in other clothes looks like another."


def _artifacts(made: Mapping[str, Manifest]) -> Iterator[str]:
    for name, manifest in made.items():
        yield f"{name}: {manifest.name}, built {manifest.created}"


def _lines(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items) or "- none"
