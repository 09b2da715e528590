"""Train, evaluate, export and use Inception networks (arXiv 1512.00567, 1602.07261)."""

__version__ = "0.1.0"
