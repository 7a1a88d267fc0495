"""Copies among documents: exact, near, and of paragraphs or sentences.

fingerprints  of each document (or span): keys that copies share, and a signature to judge by
match         items that share a key, as edges
clusters      connected components of all edges, over ranks; what is removed, unit by unit
recall        how many of the copies that are there will have been found
"""
