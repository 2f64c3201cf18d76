"""Clients of event streams that others have written, each as a program or a page.

A program takes the stream's address, and writes each event that it is given as a line of JSON. A
page is rendered with a channel and its position, and adds each event to the list `seen`.
"""
