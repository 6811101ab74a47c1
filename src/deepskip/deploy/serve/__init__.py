"""The HTTP server: an answer for every picture that is sent, and a page to look at how it came about."""
