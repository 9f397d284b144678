"""Penn-Fudan pedestrians: a text file per image in Annotation (PASCAL 1.00), images in PNGImages."""

import re
from pathlib import PurePosixPath

from data_catalog import INVALID, CatalogError, Layout, Rows, Unit, files_with_suffix, image_files, read_text

BOX = re.compile(r"Bounding box .*: \((\d+), (\d+)\) - \((\d+), (\d+)\)\s*")


class PennFudan:
    name, version, options = "penn-fudan", 1, {}

    def discover(self, root, options):
        pictures = [path for name in ("PNGImages", "JPEGImages") for path in image_files(root, name)]
        image_of = {PurePosixPath(path).stem: path for path in pictures}
        units = [
            Unit(path, images=(image_of[stem],))
            for path in files_with_suffix(root, "Annotation", ".txt")
            if (stem := PurePosixPath(path).stem) in image_of
        ]
        if not units:
            raise CatalogError(f"{root} is not Penn-Fudan: no Annotation/NAME.txt with PNGImages/NAME.png")
        return Layout(tuple(units))

    def read(self, root, unit, options):
        rows, name = Rows(unit.source), PurePosixPath(unit.source).stem
        rows.images([name], list(unit.images), unit.split)
        for number, line in enumerate(read_text(root / unit.source).splitlines(), start=1):
            if found := BOX.fullmatch(line):
                x1, y1, x2, y2 = map(int, found.groups())  # 1-based, x2 and y2 inclusive
                rows.boxes([name], [[x1 - 1, y1 - 1, x2, y2]], unit.split, [number])
            elif line.startswith("Bounding box"):
                rows.reject(INVALID, "row_unreadable", line[:80], number, name)
        yield rows
