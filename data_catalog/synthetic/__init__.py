"""Scenes with people, drawn from a seed and written in the layouts of real datasets."""

from data_catalog.synthetic.cuhk_sysu import CuhkSysuSpec, write_cuhk_sysu
from data_catalog.synthetic.full_size import write_prw_annotations
from data_catalog.synthetic.mot17 import Mot17Spec, write_mot17
from data_catalog.synthetic.protocol_file import write_protocol
from data_catalog.synthetic.prw import PrwSpec, write_prw
from data_catalog.synthetic.scenes import Style
from data_catalog.synthetic.wider_pedestrian import WiderPedestrianSpec, write_wider_pedestrian

__all__ = [
    "CuhkSysuSpec",
    "Mot17Spec",
    "PrwSpec",
    "Style",
    "WiderPedestrianSpec",
    "write_cuhk_sysu",
    "write_mot17",
    "write_protocol",
    "write_prw",
    "write_prw_annotations",
    "write_wider_pedestrian",
]
