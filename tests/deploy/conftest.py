"""What the tests of the production layout share."""

from tests.deploy.front import certificate, front
from tests.deploy.layout import alice, bob, layout, names

__all__ = ["alice", "bob", "certificate", "front", "layout", "names"]
