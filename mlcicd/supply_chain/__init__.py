"""What is in a model before it is loaded, and what goes with it: scan, signature, provenance, bill of materials, card.

Nothing here imports, unpickles or runs any part of a model.
"""
