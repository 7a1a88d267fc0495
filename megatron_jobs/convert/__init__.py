"""Checkpoints of any kind to any other: tensors are views of files until they are written.

Layer 2: never imports torch, so that a conversion's memory is that of its buffers.
"""
