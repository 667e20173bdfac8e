"""What the portal costs beside other proxies, measured side by side: `make bench` (docs/benchmarks/README.md)."""
