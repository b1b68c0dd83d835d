"""Deliberate breaks of the product, each of which the simulation finds: what a simulation that passes is worth.

`table` lists them, `trial` applies one to a copy of the product and runs the simulation there. A break that is not found
shows a hole in the simulation, not a merit of the product.
"""
