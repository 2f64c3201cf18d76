"""Streams under real servers, as processes of their own."""
