"""One file a format. An adapter is found by its name among the entry points of group `personsearch.datasets`.
"""

from data_catalog.adapters.protocol import Adapter, Layout, Unit, adapter_names, load_adapter

__all__ = ["Adapter", "Layout", "Unit", "adapter_names", "load_adapter"]
