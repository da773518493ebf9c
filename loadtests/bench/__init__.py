"""The comparison: the gateway and the architectures it replaces, side by side in one run.

`python -m loadtests.bench` starts the arms, puts load on them in turns, and writes
`results.json`; `python -m loadtests.bench.report` makes a page and Markdown of it.
"""
