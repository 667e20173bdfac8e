"""The laboratory of random faults: people, tabs, processes and faults at random, then three books compared.

`books` is what happened (stored, shown, read), `judgement` what follows from it and where the application differs,
`rig` the processes with proxies around them, `tab` one reader over its whole life, `steps` what may happen, `run` one
seed from its first step to its verdict. `python -m tests.faults.laboratory --seeds 20 --steps 500` is the long run.
"""
