"""A stand-in Xians server: the wire contract, an in-memory world, and ways to misbehave."""

from demo.xians.app import XiansApp, create_app
from demo.xians.control import Control
from demo.xians.world import Activation, Agent, ApiKey, Person, Tenant, World

__all__ = ["Activation", "Agent", "ApiKey", "Control", "Person", "Tenant", "World", "XiansApp", "create_app"]
