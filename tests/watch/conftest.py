from tests.series.conftest import make_series, upstream

__all__ = ["make_series", "upstream"]
