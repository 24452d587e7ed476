"""refattn: readable PyTorch references for efficient attention, architecture search and pruning."""

__version__ = "0.1.0"
