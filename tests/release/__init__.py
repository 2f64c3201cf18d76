"""``make release-check``: whether what is in the tree can be released as it is.

Each check takes a tree, and what was built from it, and yields the problems that it finds. None
changes the tree.
"""
