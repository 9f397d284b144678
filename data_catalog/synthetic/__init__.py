"""Scenes with people, drawn from a seed and written in the layouts of real datasets."""

from data_catalog.synthetic.cuhk_sysu import write_protocol
from data_catalog.synthetic.full_size import write_prw_annotations
from data_catalog.synthetic.mot17 import Mot17Spec, write_mot17
from data_catalog.synthetic.prw import PrwSpec, write_prw
from data_catalog.synthetic.scenes import Style

__all__ = [
    "Mot17Spec",
    "PrwSpec",
    "Style",
    "write_mot17",
    "write_protocol",
    "write_prw",
    "write_prw_annotations",
]
