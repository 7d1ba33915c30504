"""The worker: what trainctl sends to an evaluation host and starts there.

Standard library, and on the host torch, transformers and safetensors; Python 3.10 or newer.
Nothing here may import from outside of this folder: the other packages are not on the host.
"""
