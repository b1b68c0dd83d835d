"""The data path of one host: its volumes, their devices, the copier, and the decisions about them."""
