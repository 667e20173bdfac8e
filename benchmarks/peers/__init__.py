"""The proxies that are measured side by side, each one process on a core of its own."""
