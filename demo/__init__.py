"""The stand-in world: a Xians server, its talkative agents, and the people who can sign in."""
