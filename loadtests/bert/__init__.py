"""The workload of `loadtests/gpu.py`: a BERT classifier, its raw loop, its stack and its load.

`network`, `build` and `raw` need torch and run in the models' environment; the rest runs in the
gateway's.
"""
