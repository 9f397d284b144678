"""CVAT's own XML 1.1, "for images" and "for video", of a job, a task or a project."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from data_catalog.adapters.box_records import BoxRecord
from data_catalog.adapters.cvat_frames import CvatMeta, CvatTask, frames_of
from data_catalog.adapters.cvat_rows import CollectedRows, CvatImage
from data_catalog.adapters.cvat_shapes import SHAPES, WITH_AREA, extent
from data_catalog.adapters.options import PEOPLE, folder_option, identity_option, names_option, plain
from data_catalog.adapters.protocol import Layout, Options, Unit
from data_catalog.adapters.refusals import refusal, what_is_there
from data_catalog.errors import CatalogError
from data_catalog.files import image_files, is_image, path_fault, plain_name, usable, walk
from data_catalog.ids import identity, side, whole_below
from data_catalog.image_lookup import ImageLookup
from data_catalog.rows import Rows
from data_catalog.schema import EXCLUDED, INVALID, SCOPE_SEQUENCE
from data_catalog.split_names import known_split_of_path, split_of
from data_catalog.xmlstream import DamagedXml, Start, elements, root_tag

LAYOUTS = (
    "annotations.xml, in the root or one folder per task, with its images in images/ or beside it",
    "other XML files whose root is <annotations>, with images in images/NAME, NAME/ or images/",
)
MOST_FRAMES = 1 << 31
"""The catalog numbers frames by 32 bits."""
FRAME_NAME = "frame_{:06d}.PNG"
"""How CVAT names the frames of a video."""


class Cvat:
    """Boxes are xtl, ytl, xbr, ybr, 0-based; of polygons, masks, ellipses, cuboids and turned boxes the
    upright box around them is taken. Lines and points have no area and are `excluded`, like labels of
    other things.

    A track of a video is an identity within its sequence (the folder of the XML file, or its name, and the
    task); boxes marked `outside` are not read. Subsets are splits, `default` is train; without subsets they
    are folders called train, val or test. Rows are the shapes of the file, counted from 1.
    """

    name = "cvat"
    version = 1
    marks = ("annotations.xml", "xml")
    options: Mapping[str, str] = {
        "annotations": "XML file, or folder of XML files (default: all in the root)",
        "images": "folder of images; by default images, NAME or images/NAME beside NAME.xml, or its folder",
        "categories": f"names of the labels that are people, in any case (default {PEOPLE})",
        "ignore": "names of the labels that mark ignore regions (default: none)",
        "person_id": "attribute of a shape that holds the identity in the dataset, as person_id or "
        "attributes.person_id; then tracks are not identities",
        "track_id": "the same for an identity within its sequence (default in videos: the track)",
    }

    def discover(self, root: Path, options: Options) -> Layout:
        identity_option(options)
        files = usable(walk(root))
        given = folder_option(options, "annotations", "")
        inside = [path for path in files if not given or path == given or path.startswith(f"{given}/")]
        sources = _sources(root, [path for path in inside if path.lower().endswith(".xml")])
        if not sources:
            raise refusal(root, "CVAT dataset", LAYOUTS, _nearest(root, files))
        units = []
        for source in sources:
            folder = _image_folder(root, source, options)
            images = image_files(root, folder, recursive=True)
            units.append(Unit(source, known_split_of_path(source), images, parameters=(folder,)))
        return Layout(tuple(units))

    def read(self, root: Path, unit: Unit, options: Options) -> Iterator[Rows]:
        try:
            yield from _Reader(root, unit, options).read()
        except DamagedXml as error:
            raise CatalogError(f"{root / unit.source}: not readable as CVAT's XML: {error}") from error


def _sources(root: Path, found: Sequence[str]) -> list[str]:
    """The files whose root is <annotations>. Where the first ones are another format's, so are the others."""
    tags = {path: root_tag(root / path) for path in found[:8]}
    if tags and "annotations" not in tags.values() and len(found) > len(tags):
        return [path for path in found if PurePosixPath(path).name == "annotations.xml"]
    return [path for path in found if tags.get(path, root_tag(root / path)) == "annotations"]


def _nearest(root: Path, files: Sequence[str]) -> str:
    for path in files:
        if path.lower().endswith(".xml"):
            tag = root_tag(root / path)
            hint = {
                "annotation": ", which looks like VOC (adapter voc)",
                None: ", which is not readable as XML",
            }
            return f"{path}{hint.get(tag, f', whose root is <{tag}>')}"
    archive = next((path for path in files if path.lower().endswith(".zip")), None)
    return f"{archive}; unpack it" if archive else what_is_there(files)


def _image_folder(root: Path, source: str, options: Options) -> str:
    if "images" in options:
        return folder_option(options, "images", "")
    own, stem = source.rpartition("/")[0], PurePosixPath(source).stem
    beside = [f"{own}/{name}".lstrip("/") for name in (f"images/{stem}", f"{stem}/images", stem, "images")]
    found = next((folder for folder in beside if image_files(root, folder, recursive=True)), None)
    return found if found is not None else own if image_files(root, own) else beside[-1]


@dataclass
class _Video:
    """The frames of one task."""

    sequence: str
    split: str
    folder: str
    files: dict[int, str]
    task: CvatTask
    seen: dict[int, CvatImage] = field(default_factory=dict)


class _Reader:
    """Reads one file in one pass: <meta>, then images or tracks with their shapes."""

    def __init__(self, root: Path, unit: Unit, options: Options) -> None:
        self.path = root / unit.source
        self.unit = unit
        self.folder = unit.parameters[0]
        self.where = self.folder or "the root"
        self.people = names_option(options, "categories", PEOPLE)
        self.ignored = names_option(options, "ignore", "")
        key, self.scope = identity_option(options)
        self.key = (key or "").removeprefix("attributes.")
        own, stem = unit.source.rpartition("/")[0], PurePosixPath(unit.source).stem
        self.sequence = own if own and stem == "annotations" else f"{own}/{stem}".lstrip("/")
        self.lookup = ImageLookup(unit.images)
        self.meta = CvatMeta()
        self.videos: dict[str, _Video] = {}
        self.rows = Rows(unit.source)
        self.collected = CollectedRows(self.scope)
        self.row = 0
        self.people_seen = self.with_key = 0
        self.image: CvatImage | None = None
        self.track: Start | None = None
        self.shape: Start | None = None
        self.attributes: dict[str, str] = {}

    def read(self) -> Iterator[Rows]:
        open_tags: list[str] = []
        starts: list[Start] = []
        for each in elements(self.path):
            if isinstance(each, Start):
                open_tags.append(each.tag)
                starts.append(each)
                self._start(each, open_tags)
            else:
                open_tags.pop()
                self._end(starts.pop(), each.text, open_tags)
                if self.collected.is_full:
                    self._flush()
                if self.rows.is_large():
                    yield self.rows
                    self.rows = Rows(self.unit.source)
        self._flush()
        if self.key and self.people_seen and not self.with_key:
            raise CatalogError(
                f"{self.path}: none of its {self.people_seen:,} people has the attribute {self.key!r} "
                "that an option names; check its spelling"
            )
        yield self.rows

    def _start(self, found: Start, open_tags: Sequence[str]) -> None:
        if "meta" in open_tags[1:2]:
            self.meta.start(found.tag)
        elif found.tag == "image" and len(open_tags) == 2:
            self.image = self._named_image(found)
        elif found.tag == "track" and len(open_tags) == 2:
            self.track = found
            self._video(found)
        elif found.tag in SHAPES and len(open_tags) == 3 and open_tags[1] in ("image", "track"):
            self.shape, self.attributes = found, {}

    def _end(self, found: Start, text: str, parents: Sequence[str]) -> None:
        if "meta" in parents[1:2]:
            self.meta.end(parents[-1], found.tag, text)
        elif found.tag == "attribute" and self.shape is not None and len(parents) == 3:
            self.attributes[found.attributes.get("name", "")] = text
        elif found is self.shape:
            self.row += 1
            self._shape(found)
            self.shape = None
        elif found is self.track:
            self.track = None
        elif found.tag == "image" and len(parents) == 1:
            self.image = None

    def _named_image(self, found: Start) -> CvatImage | None:
        """The image of an <image>; None, and a reject, where it cannot be used."""
        name = plain_name(found.attributes.get("name", ""))
        task = self.meta.of(found.attributes.get("task_id"))
        subset = found.attributes.get("subset", task.subset)
        inner = f"{subset}/" if self.meta.is_project and subset else ""
        if fault := path_fault(name):
            detail = f"line {found.line}: its name {name[:80]!r}: {fault}"
            self.rows.reject(INVALID, "image_unreadable", detail, self.row)
            return None
        path = self._file_of(name, inner)
        if path is None:
            detail = f"line {found.line}: {name[:80]!r} is not among the images in {self.where}"
            self.rows.reject(INVALID, "image_missing", detail, self.row)
            return None
        sequence = f"{self.sequence}/{name.rpartition('/')[0]}".rstrip("/")
        image = CvatImage(
            path,
            split_of(subset) if subset else self.unit.split,
            sequence,
            side(found.attributes.get("width")),
            side(found.attributes.get("height")),
            whole_below(found.attributes.get("id"), MOST_FRAMES),
        )
        self.collected.images.append(image)
        return image

    def _file_of(self, name: str, inner: str) -> str | None:
        """The file of an image's name, which has no suffix where it is a frame of a video."""
        names = [f"{self.folder}/{inner}{name}".lstrip("/"), f"{self.folder}/{name}".lstrip("/")]
        if not self.unit.images:
            return names[0] if is_image(name) else f"{names[0]}.PNG"
        for each in names:
            found = self.lookup.find(each) or self.lookup.without_suffix(each)
            if found is not None:
                return found
        return None

    def _video(self, track: Start) -> _Video:
        """The frames of a track's task; its images become rows when it is met first."""
        task_id = track.attributes.get("task_id", "")
        if task_id in self.videos:
            return self.videos[task_id]
        task = self.meta.of(task_id)
        subset = track.attributes.get("subset", task.subset)
        split = split_of(subset) if subset else self.unit.split
        folder = self.folder
        if self.meta.is_project and subset and path_fault(subset) is None:
            folder = f"{folder}/{subset}".lstrip("/")
        files = [path for path in self.unit.images if path.startswith(f"{folder}/")] or self.unit.images
        if files and any(video.folder == folder for video in self.videos.values()):
            raise CatalogError(
                f"{self.path}: several tasks of subset {subset!r} have frames of the same names; export each "
                "task by itself, into a folder of its own"
            )
        sequence = f"{self.sequence}/task_{task_id}" if task_id else self.sequence
        frames = frames_of(files, task, str(self.path)) if files else {}
        video = _Video(sequence, split, folder, frames, task)
        self.videos[task_id] = video
        for frame in sorted(frames) if files else task.frames() or ():
            self._frame(video, frame)
        return video

    def _frame(self, video: _Video, frame: int) -> CvatImage | None:
        """The image of a frame; None where the others have files and it has none."""
        if frame in video.seen:
            return video.seen[frame]
        if video.files and frame not in video.files:
            return None
        path = video.files.get(frame, f"{video.folder}/{FRAME_NAME.format(frame)}".lstrip("/"))
        sides = (video.task.number("width") or None, video.task.number("height") or None)
        image = CvatImage(path, video.split, video.sequence, *sides, frame)
        video.seen[frame] = image
        self.collected.images.append(image)
        return image

    def _shape(self, shape: Start) -> None:
        where = f"line {shape.line}"
        image = self.image
        if self.track is not None:
            if shape.attributes.get("outside") == "1":
                return
            frame = whole_below(shape.attributes.get("frame"), MOST_FRAMES)
            if frame is None:
                self.rows.reject(INVALID, "row_unreadable", f"{where}: a shape without a frame", self.row)
                return
            image = self._frame(self._video(self.track), frame)
            if image is None:
                detail = f"{where}: frame {frame} is not among the images in {self.where}"
                self.rows.reject(INVALID, "image_missing", detail, self.row)
                return
        if image is None:
            self.rows.reject(INVALID, "image_rejected", f"{where}: its image is among the rejects", self.row)
            return
        label = shape.attributes.get("label") or (
            self.track.attributes.get("label", "") if self.track else ""
        )
        ignored = plain(label) in self.ignored
        if not ignored and plain(label) not in self.people:
            self.rows.reject(EXCLUDED, "not_a_person", f"label {label[:40]!r}", self.row, image.image_id)
        elif shape.tag not in WITH_AREA:
            detail = f"{where}: <{shape.tag}> has no area"
            self.rows.reject(EXCLUDED, "no_area", detail, self.row, image.image_id)
        else:
            self._box(shape, image, plain(label), ignored=ignored)

    def _box(self, shape: Start, image: CvatImage, label: str, *, ignored: bool) -> None:
        try:
            corners = extent(shape.tag, shape.attributes)
            raw = self._raw_identity(shape)
            person = identity(raw)
        except ValueError as error:
            detail = f"line {shape.line}: {error}"
            self.rows.reject(INVALID, "row_unreadable", detail, self.row, image.image_id)
            return
        self.people_seen += not ignored
        if person is not None and self.scope == SCOPE_SEQUENCE:
            person = f"{image.sequence}/{person}"
        reason = label if ignored else None
        self.collected.boxes.append(
            BoxRecord(image.image_id, image.split, corners, self.row, label, reason, person, raw)
        )

    def _raw_identity(self, shape: Start) -> str | None:
        """What names the person: the attribute that an option names, or else the track."""
        if not self.key:
            return self.track.attributes.get("id") if self.track is not None else None
        places = [self.attributes, shape.attributes]
        places += [self.track.attributes] if self.track is not None else []
        found = next((place[self.key] for place in places if self.key in place), None)
        self.with_key += found is not None
        return found

    def _flush(self) -> None:
        """Make rows of the images and boxes that were collected."""
        tracks_count = bool(self.videos) or (self.scope == SCOPE_SEQUENCE and bool(self.key))
        self.collected.move_to(self.rows, with_sequences=tracks_count)
        self.collected = CollectedRows(self.scope)
