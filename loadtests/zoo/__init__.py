"""Models to measure with: any number of BERT-like classifiers of random weights, or MiniLM.

The classifiers are for speed only: what they answer means nothing, and every file that they come
with says so. `__main__` writes them in all the formats that the architectures run, `repository`
makes a repository for the gateway of them.
"""

NOTICE = "random weights from a seed: for measuring speed only, the answers mean nothing"
