"""A dispatcher and one process a model, all of them Tornado: what two of the baselines are.

`family` forks and supervises the processes, `dispatcher` passes requests on, `service` answers
them; what runs a model is the baseline's own.
"""
