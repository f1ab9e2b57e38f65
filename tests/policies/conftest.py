"""What every test of a policy begins with and leaves behind."""

from tests.support.torch_state import as_before

__all__ = ["as_before"]
