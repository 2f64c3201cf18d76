"""Code of the application that we call: receivers of signals, functions at a stream's end.

Such code may be slow, and it may fail; neither may stop the delivery. This wing may import the
wings for events and the system. It says with each function in which thread that runs.
"""
