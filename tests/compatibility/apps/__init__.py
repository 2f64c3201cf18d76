"""Small applications as people write them for 1.0.

They import what 1.0 needs and nothing else, and have no annotations, as 1.0 has none.
"""
