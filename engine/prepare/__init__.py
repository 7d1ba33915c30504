"""From the rows of a file to packed token sequences with a mask of what trains."""
