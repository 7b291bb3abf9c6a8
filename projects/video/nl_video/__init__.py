"""Sections 4 and 5 of the paper: video classification. Built on nl_detectron, and no part of it."""

from .nets import PLACES as PLACES
from .nets import add_non_local as add_non_local
from .nets import c2d as c2d
from .nets import i3d as i3d
