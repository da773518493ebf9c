"""What the Python-based backends share: the reading of a model's configuration and of requests.

Triton takes `backends/<name>/model.py` for a backend of that name. This folder holds no `model.py`,
so no model can name it as its backend; each backend puts it on `sys.path` itself, because the stub
ignores `PYTHONPATH`.
"""
