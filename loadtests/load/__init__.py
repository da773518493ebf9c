"""Load on real servers, and what it found: shared by the micro, the GPU and the comparison runs.

```
corpus ─▶ plan (streams, targets) ─▶ generator ─▶ server ─▶ answers (each judged) ─▶ Window
```
"""
