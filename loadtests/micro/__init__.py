"""The microbenchmark: the gateway against the machine's own limit, in one interleaved run.

```
corpus ─▶ bare_model    a bare ONNX Runtime loop, no server: the limit          .venv-models
       ─▶ generator ──▶ gateway (stack) ─▶ Triton: what a client gets
                    ──▶ bare_handler  a Tornado handler that only parses and answers JSON
       ─▶ stages        each stage of a request by itself
arms = the above as windows of a few seconds ─▶ rounds ─▶ aims (ratios) ─▶ report
```
"""
