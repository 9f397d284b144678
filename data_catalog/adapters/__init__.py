"""One file per format; an adapter is found by its name among the entry points `personsearch.datasets`."""

from data_catalog.adapters.protocol import Adapter, Layout, Unit, adapter_names, load_adapter

__all__ = ["Adapter", "Layout", "Unit", "adapter_names", "load_adapter"]
